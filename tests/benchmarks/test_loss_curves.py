"""Two sets of loss curves are compared against the spread of their own seeds."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.loss_curves import SMOOTHING_STEPS, Curves, compare, plot, smoothed, table


def curves(ours: list[float], theirs: list[float], steps: int = 100) -> Curves:
    """Constant losses, one level for each seed."""
    return {"baseline": [[level] * steps for level in ours], "nanochat": [[level] * steps for level in theirs]}


def test_tails_are_means_over_seeds_with_their_standard_deviation() -> None:
    comparison = compare(curves([4.0, 4.2], [5.0, 5.0]))
    assert comparison.tail_mean == pytest.approx({"baseline": 4.1, "nanochat": 5.0})
    assert comparison.tail_sd == pytest.approx({"baseline": np.std([4.0, 4.2], ddof=1), "nanochat": 0.0})


def test_the_largest_gap_is_found_with_its_step_and_the_noise_there() -> None:
    both = curves([4.0, 4.2], [4.0, 4.2])
    for run in both["nanochat"]:
        run[60:] = [loss + 0.5 for loss in run[60:]]
    comparison = compare(both)
    assert comparison.largest_gap == pytest.approx(0.5)
    assert comparison.largest_gap_step == 60 + SMOOTHING_STEPS  # the first step whose average holds changed losses only
    assert comparison.noise_there == pytest.approx(0.1 * np.sqrt(2))


def test_smoothing_averages_a_step_with_those_before_it() -> None:
    ramp = np.arange(40.0)[None]
    assert smoothed(ramp)[0, 0] == ramp[0, :SMOOTHING_STEPS].mean()
    assert smoothed(ramp)[0, -1] == ramp[0, -SMOOTHING_STEPS:].mean()


def test_the_table_names_both_trainers() -> None:
    text = table(compare(curves([4.0, 4.2], [5.0, 5.0])), seeds=2)
    assert "baseline" in text
    assert "4.1000" in text
    assert "5.0000" in text


def test_the_plot_is_an_svg_with_units() -> None:
    image = plot(curves([4.0, 4.2], [5.0, 5.0]))
    assert image.startswith("<svg")
    assert "nats per token" in image
