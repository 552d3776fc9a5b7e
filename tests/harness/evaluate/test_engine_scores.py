"""CORE's examples through real servers: the scores are the model's own, whatever happens on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.errors import VoidRun
from harness.evaluate.core.items import ExampleItem, Outcome, TokenRow
from harness.evaluate.core.outcome import judge
from harness.evaluate.core_scores import CoreRows, CoreScores
from harness.evaluate.logit_memory import token_scores
from harness.evaluate.model_server import Capacity, ModelServer
from harness.evaluate.probes import Prober
from tests.harness.evaluate.engine_models import CAPACITY, examples, expected, served

TASKS = examples()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ModelServer]]:
    with served(tmp_path_factory.mktemp("honest"), count=2) as servers:
        yield servers


@pytest.fixture(scope="module")
def right() -> dict[str, list[Outcome]]:
    """Outcomes of a model that reads each row alone and whole."""
    return {task[0].task: [judge(item, [expected(row) for row in item.rows]) for item in task] for task in TASKS}


def scored(servers: list[ModelServer], tasks: list[list[ExampleItem]] = TASKS, capacity: Capacity = CAPACITY) -> CoreScores:
    """All examples, with probes among them."""
    rows = CoreRows.of(tasks)
    rng = np.random.default_rng(5)
    prober = Prober(rows.draw_probed_rows(rng), rng, 2e-3)
    scores = CoreScores(rows)
    scores.score(servers, capacity, prober)
    assert all(probe.passed for probe in prober.probes())
    return scores


def assert_same(found: dict[str, list[Outcome]], right: dict[str, list[Outcome]]) -> None:
    """Equal verdicts of all examples, and mean losses to rounding."""
    assert found.keys() == right.keys()
    for label in right:
        for one, other in zip(found[label], right[label], strict=True):
            assert (one.example, one.correct, one.choice) == (other.example, other.correct, other.choice)
            np.testing.assert_allclose(one.mean_losses, other.mean_losses, rtol=1e-4)


def test_the_examples_have_verdicts_of_both_kinds(right: dict[str, list[Outcome]]) -> None:
    for outcomes in right.values():
        assert len({outcome.correct for outcome in outcomes}) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_outcomes_are_those_of_rows_read_alone_and_whole(count: int, servers: list[ModelServer], right: dict[str, list[Outcome]]) -> None:
    assert servers[0].shares_prefixes
    assert_same(scored(servers[:count]).outcomes(), right)


@pytest.mark.parametrize("capacity", [Capacity(40, 8), Capacity(64, 96, overhead=1000), Capacity(256, 10)], ids=["small", "padded", "few"])
def test_the_size_of_requests_changes_no_outcome(capacity: Capacity, servers: list[ModelServer], right: dict[str, list[Outcome]]) -> None:
    assert_same(scored(servers, capacity=capacity).outcomes(), right)


def test_a_model_without_cache_and_wanted_gets_the_same_outcomes(tmp_path: Path, right: dict[str, list[Outcome]]) -> None:
    forward = "pass\n\n    def forward(self, tokens, targets=None):\n        return super().forward(tokens, targets)"
    with served(tmp_path, forward) as plain:
        assert not plain[0].shares_prefixes
        assert_same(scored(plain).outcomes(), right)


def test_a_model_whose_cache_is_wrong_is_scored_without_it(tmp_path: Path, right: dict[str, list[Outcome]]) -> None:
    forward = "return honest(tokens, targets, cache, wanted) + (0.1 if cache is not None else 0.0)"
    with served(tmp_path, forward) as wrong:
        assert wrong[0].shares_prefixes
        assert_same(scored(wrong).outcomes(), right)


def test_identical_rows_are_asked_once(servers: list[ModelServer]) -> None:
    twice = [[*task, *task] for task in TASKS]
    assert len(CoreRows.of(twice).rows) == len(CoreRows.of(TASKS).rows)
    found = scored(servers, twice).outcomes()
    for label, outcomes in found.items():
        half = len(outcomes) // 2
        assert outcomes[:half] == outcomes[half:], label


def test_a_row_without_a_scored_token_has_no_loss(servers: list[ModelServer]) -> None:
    rows = (TokenRow(np.array([1, 2, 3], np.int32), 3, 3), TokenRow(np.array([1, 2, 3, 4], np.int32), 3, 4))
    item = ExampleItem("odd", 0, 1, "multiple_choice", rows, 1)
    (outcome,) = scored(servers, [[item]]).outcomes()["odd"]
    assert np.isnan(outcome.mean_losses[0])
    assert outcome.mean_losses[1] == pytest.approx(expected(rows[1]).mean_loss, rel=1e-4)


def test_seconds_are_told_apart_by_task(servers: list[ModelServer]) -> None:
    seconds = scored(servers).seconds()
    assert seconds.keys() == {task[0].task for task in TASKS}
    assert all(value > 0 for value in seconds.values())


# ---------------------------------------------------------------------- what can go wrong


def test_requests_that_do_not_fit_into_memory_are_made_smaller(tmp_path: Path, right: dict[str, list[Outcome]]) -> None:
    forward = (
        "if tokens.numel() > 60: raise torch.OutOfMemoryError('CUDA out of memory')\n        return honest(tokens, targets, cache, wanted)"
    )
    with served(tmp_path, forward) as small:
        assert_same(scored(small).outcomes(), right)


def test_not_enough_memory_for_one_row_ends_the_evaluation(tmp_path: Path) -> None:
    with served(tmp_path, "raise MemoryError") as none, pytest.raises(VoidRun, match="evaluation: out of memory"):
        scored(none)


def test_a_server_that_is_killed_ends_the_evaluation_and_no_other_goes_on(tmp_path: Path) -> None:
    with served(tmp_path, "import time; time.sleep(0.3); return honest(tokens, targets, cache, wanted)", count=2) as both:
        assert all(server.shares_prefixes for server in both)
        victim = next(p for p in psutil.Process().children(recursive=True) if "baseline.serve" in p.cmdline() and not p.children())
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(VoidRun, match="the model's process ended") as void:
            scored(both)
    assert not void.value.by_entry


def test_a_server_that_dies_of_its_own_code_is_the_entrys_fault(tmp_path: Path) -> None:
    with served(tmp_path, "raise ValueError('broken')") as broken, pytest.raises(VoidRun, match="ValueError: broken") as void:
        scored(broken)
    assert void.value.by_entry


# ---------------------------------------------------------------------- losses


@pytest.mark.parametrize("shift", [0.0, 500.0, -500.0])
def test_adding_the_same_to_all_logits_changes_nothing(shift: float) -> None:
    """Scores come from what the evaluator normalises itself; an output that pretends to be a log-probability gains nothing."""
    logits = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    positions, targets = np.arange(40), np.random.default_rng(1).integers(0, 50, 40)
    plain, shifted = token_scores(logits, positions, targets), token_scores(logits + np.float32(shift), positions, targets)
    np.testing.assert_allclose(shifted.losses, plain.losses, atol=1e-3)
    np.testing.assert_array_equal(shifted.greedy, plain.greedy)


def test_of_equal_logits_the_first_is_the_likeliest() -> None:
    found = token_scores(np.zeros((2, 5), np.float32), np.array([0, 1]), np.array([0, 3]))
    assert found.greedy.tolist() == [True, False]
    np.testing.assert_allclose(found.losses, np.log(5), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_positions_with_logits_that_are_not_finite_are_counted(bad: float) -> None:
    logits = np.zeros((70_000, 4), np.float32)
    logits[[3, 69_999], 2] = bad
    found = token_scores(logits, np.arange(70_000), np.full(70_000, 1))
    assert found.not_finite == 2


def test_losses_leave_the_logits_as_they_are() -> None:
    logits = np.random.default_rng(0).standard_normal((2, 7)).astype(np.float32)
    before = logits.copy()
    token_scores(logits, np.arange(2), np.zeros(2, np.int64))
    np.testing.assert_array_equal(logits, before)
