"""`speedrun eval` on a small checkpoint of the nano track's vocabulary: figures, files, and how it ends when something is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result

from baseline.checkpoint import save_checkpoint
from baseline.config import Dial, TrainConfig
from baseline.data.manifest import TOKENIZER_FILE
from baseline.loop import build_model, initialise
from baseline.recipe import load_recipe
from harness.cli import main
from harness.evaluate.core.outcome_table import read_outcomes
from harness.prepared import PreparedData
from harness.track import load_track
from tests.harness.evaluate.core_samples import REAL_BUNDLE, needs_real_bundle
from tests.harness.evaluate.engine_models import entry

TASKS = "copa,winograd"
"""Without shots, and short."""
LIMIT = 12
SCORED_ROWS = 20


@dataclass(frozen=True)
class Trained:
    """A checkpoint as training leaves it, and the data that it was trained on."""

    out: Path
    model: torch.nn.Module
    data: PreparedData

    def eval(self, *arguments: str, checkpoint: Path | None = None) -> Result:
        return CliRunner().invoke(main, ["eval", str(checkpoint or self.out), *arguments], catch_exceptions=False)

    def core(self, *arguments: str) -> Result:
        tokenizer = f"--tokenizer={self.data.folder / TOKENIZER_FILE}"
        return self.eval(f"--core={REAL_BUNDLE}", f"--tasks={TASKS}", f"--limit={LIMIT}", tokenizer, *arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, prepared_data: PreparedData) -> Trained:
    """Random weights, none of them as they are initialised."""
    data = load_track("nano").data
    dial = Dial(data.vocab_size, data.sequence_len, tokens_per_parameter=1.0, aspect_ratio=16, head_dim=32)
    config = TrainConfig.from_depth(2, dial, batch_tokens=dial.sequence_len, num_steps=1)
    device = torch.device("cpu")
    model = build_model(load_recipe(config, None, device), device)
    initialise(model, 0, device)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    out = tmp_path_factory.mktemp("trained")
    save_checkpoint(out, model=model, optimizer_state={}, config=config, step=3, cursor=0, seed=0)
    return Trained(out, model.eval(), prepared_data)


@pytest.fixture(autouse=True)
def keep_prepared_rows_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("harness.cli.evaluate.CORE_DATA", tmp_path / "core")


@pytest.fixture
def at_the_data(monkeypatch: pytest.MonkeyPatch, prepared_data: PreparedData) -> None:
    """The command looks for prepared data where this session has it."""
    monkeypatch.setattr("harness.cli.evaluate.DATA", prepared_data.folder.parent)


# ---------------------------------------------------------------------- bits per byte


def test_bits_per_byte_are_those_of_the_model(trained: Trained, at_the_data: None) -> None:
    result = trained.eval("--metric=bpb", f"--limit={SCORED_ROWS}", "--json")
    assert result.exit_code == 0, result.output
    held_out = trained.data.held_out(SCORED_ROWS)
    rows = torch.from_numpy(held_out.rows.astype(np.int64))
    with torch.inference_mode():
        losses = torch.cat([F.cross_entropy(trained.model(row[None, :-1])[0], row[1:], reduction="none") for row in rows]).numpy()
    sizes = held_out.token_bytes[held_out.rows[:, 1:].ravel()]
    printed = json.loads(result.stdout)
    assert printed["val_bpb"] == pytest.approx(losses[sizes > 0].sum() / np.log(2) / sizes.sum(), rel=1e-5)
    assert all(probe["passed"] for probe in printed["probes"])


def test_without_json_it_is_one_line(trained: Trained, at_the_data: None) -> None:
    result = trained.eval("--metric=bpb", "--limit=2", checkpoint=trained.out / "step_000003")
    assert result.exit_code == 0
    assert "bits per byte on" in result.stdout
    assert result.stdout.count("\n") == 1


def test_a_model_that_sees_the_future_gets_no_score(trained: Trained, at_the_data: None, tmp_path: Path) -> None:
    cheat = entry(tmp_path / "cheat", "return honest(torch.roll(tokens, -1, 1), targets, cache, wanted)")
    result = trained.eval("--metric=bpb", "--limit=8", f"--submission={cheat}")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "no score, because the model failed" in result.stderr
    assert "causality" in result.stderr


# ---------------------------------------------------------------------- CORE


@needs_real_bundle
def test_core_of_some_tasks_as_json_and_parquet(trained: Trained, tmp_path: Path) -> None:
    result = trained.core("--json", f"--out={tmp_path / 'outcomes.parquet'}")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["core"] is None
    assert not printed["complete"]
    assert [task["label"] for task in printed["tasks"]] == TASKS.split(",")
    outcomes, provenance = read_outcomes(tmp_path / "outcomes.parquet")
    for task in printed["tasks"]:
        assert task["examples"] == LIMIT
        assert task["accuracy"] == sum(outcome.correct for outcome in outcomes[task["label"]]) / LIMIT
    assert provenance["model"] == str(trained.out)


@needs_real_bundle
def test_core_as_a_table(trained: Trained) -> None:
    result = trained.core()
    assert result.exit_code == 0, result.output
    for word in (*TASKS.split(","), "mean of these", "This is no CORE"):
        assert word in result.stdout


@needs_real_bundle
def test_a_limit_below_the_shots_is_refused_before_anything_is_scored(trained: Trained) -> None:
    result = trained.core("--tasks=jeopardy", "--limit=5")
    assert result.exit_code == 2
    assert "at least 11" in result.stderr


@needs_real_bundle
def test_a_damaged_bundle_is_refused(trained: Trained, tmp_path: Path) -> None:
    found = next((REAL_BUNDLE / "eval_data").rglob("copa.jsonl"))
    copy = tmp_path / "eval_data" / found.relative_to(REAL_BUNDLE / "eval_data")
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(found.read_bytes()[:-100])
    result = trained.core(f"--core={tmp_path}", "--tasks=copa")
    assert result.exit_code == 4
    assert "copa.jsonl" in result.stderr


# ---------------------------------------------------------------------- what it cannot evaluate


def test_a_folder_without_a_checkpoint_is_no_model(trained: Trained, tmp_path: Path) -> None:
    result = trained.eval(checkpoint=tmp_path / "nothing here")
    assert result.exit_code in (2, 4)
    assert result.stderr.count("\n") == 1


def test_a_broken_checkpoint_is_named(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    result = trained.eval(checkpoint=tmp_path)
    assert result.exit_code == 2
    assert "state.json: is no checkpoint's state" in result.stderr


def test_a_tokenizer_of_another_size_is_refused(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.evaluate.prepared_tokenizers", list)
    result = trained.eval(f"--core={trained.out}")
    assert result.exit_code in (2, 4)


def test_a_track_of_another_vocabulary_is_refused(trained: Trained) -> None:
    result = trained.eval("--metric=bpb", "--track=gpt2")
    assert result.exit_code == 2
    assert "tokens, and the track's rows have 32,768" in result.stderr
