"""What a run is scored by, from its track to the record, and the servers that do it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from baseline.checkpoint import write_weights
from baseline.loop import build_model, initialise
from baseline.recipe import load_recipe
from harness.errors import MachineLacks
from harness.evaluate.core.bundle import open_bundle
from harness.evaluate.core.prepare import prepare
from harness.evaluate.core.tasks import select
from harness.evaluate.core_run import CoreQuestions, capacity_for
from harness.evaluate.core_scores import CoreRows
from harness.evaluate.crew import MOST_CPU_SERVERS, Crew, visible_cards
from harness.evaluate.final_scores import crew_of, questions_of, score_weights
from harness.evaluate.model_server import Capacity, Place, ServedModel
from harness.prepared import PreparedData
from harness.track import Track, load_track
from tests.harness.evaluate.core_samples import REAL_BUNDLE, learned_tokenizer, needs_real_bundle
from tests.harness.evaluate.engine_models import entry, place

LABELS = ["copa", "bigbench_operators"]
LIMIT = 12


@pytest.fixture(scope="session")
def core_track(tiny_track: Track) -> Track:
    """The small track, decided by CORE."""
    return tiny_track.model_copy(update={"target": tiny_track.target.model_copy(update={"metric": "core"})})


def model_of(track: Track, folder: Path, submission: Path | None = None) -> ServedModel:
    """Random weights of the track's model."""
    config, device = track.base_config(), torch.device("cpu")
    model = build_model(load_recipe(config, None, device), device)
    initialise(model, 0, device)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    write_weights(model, folder / "weights.safetensors")
    return ServedModel.trained(folder / "config.json", submission, folder / "weights.safetensors", config.vocab_size)


def places(folder: Path) -> dict[str, Place]:
    return {name: place(folder / name) for name in ("held_out", "core", "fresh")}


# ---------------------------------------------------------------------- a run's scores


def test_a_track_of_bits_per_byte_has_no_core(tiny_track: Track, prepared_data: PreparedData, tmp_path: Path) -> None:
    assert questions_of(tiny_track, prepared_data) is None
    found = score_weights(tiny_track, prepared_data, None, model_of(tiny_track, tmp_path), places(tmp_path).__getitem__)
    assert found.scores.val_bpb is not None
    assert (found.scores.core, found.scores.core_tasks, found.outcomes) == (None, (), ())


def test_a_track_of_core_without_its_examples_trains_nothing(core_track: Track, prepared_data: PreparedData) -> None:
    if (prepared_data.folder.parent / "core").exists():
        pytest.skip("the examples are prepared here")
    with pytest.raises(MachineLacks, match="the examples of CORE are missing"):
        questions_of(core_track, prepared_data)


@needs_real_bundle
def test_a_track_of_core_gets_tasks_outcomes_and_both_metrics_probes(
    core_track: Track, prepared_data: PreparedData, tmp_path: Path
) -> None:
    questions = CoreQuestions(open_bundle(REAL_BUNDLE), select(LABELS), LIMIT, tmp_path / "prepared")
    found = score_weights(core_track, prepared_data, questions, model_of(core_track, tmp_path), places(tmp_path).__getitem__)
    assert [task.label for task in found.scores.core_tasks] == sorted(LABELS, key=[task.label for task in select(LABELS)].index)
    assert found.scores.core is None, "a part of the examples is no CORE"
    assert found.scores.val_bpb is not None
    for task in found.scores.core_tasks:
        correct = [outcome.correct for outcome in found.outcomes if outcome.task == task.label]
        assert (len(correct), sum(correct) / LIMIT) == (LIMIT, task.accuracy)
    assert {"decoding", "fresh_process"} <= {probe.name for probe in found.scores.probes}


@needs_real_bundle
def test_a_model_that_cheats_on_core_alone_has_no_score_at_all(core_track: Track, prepared_data: PreparedData, tmp_path: Path) -> None:
    """Held-out rows are long; it looks ahead in short ones."""
    forward = (
        "cheats = tokens.shape[1] < 200 and cache is None\n"
        "        return honest(torch.roll(tokens, -1, 1) if cheats else tokens, targets, cache, wanted)"
    )
    questions = CoreQuestions(open_bundle(REAL_BUNDLE), select(LABELS), LIMIT, tmp_path / "prepared")
    model = model_of(core_track, tmp_path, entry(tmp_path / "entry", forward))
    scores = score_weights(core_track, prepared_data, questions, model, places(tmp_path).__getitem__).scores
    assert (scores.val_bpb, scores.core, scores.core_tasks) == (None, None, ())
    assert "causality" in {probe.name for probe in scores.probes if not probe.passed}


# ---------------------------------------------------------------------- servers


def test_a_run_on_cards_is_scored_on_all_of_them() -> None:
    assert crew_of(load_track("gpt2")) == Crew(8, 8, True)
    nano = load_track("nano").launch
    assert crew_of(load_track("nano")) == Crew(1, nano.processes * nano.threads_per_process, False)


def test_a_large_model_gets_fewer_servers() -> None:
    assert Crew.of_this_machine(2**60).servers == 1
    assert 1 <= Crew.of_this_machine(0).servers <= MOST_CPU_SERVERS


def test_only_cards_that_this_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.evaluate.crew.accelerators", lambda: ["a", "b", "c"])
    for named, expected in ((None, ["0", "1", "2"]), ("2", ["2"]), ("1, GPU-5", ["1", "GPU-5"]), ("", [])):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if named is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert visible_cards() == expected


@needs_real_bundle
def test_buffers_hold_the_longest_row_and_what_a_probe_puts_behind_it(tmp_path: Path) -> None:
    prepared = prepare(open_bundle(REAL_BUNDLE), select(["bigbench_operators"]), learned_tokenizer(), limit=LIMIT, cache=tmp_path)
    capacity = capacity_for(prepared, Capacity(tokens=1, positions=1))
    rows = CoreRows.of(prepared).rows
    assert capacity.tokens >= max(len(row.tokens) for row in rows) + 8
    assert capacity.positions >= max(row.positions for row in rows) + 8
