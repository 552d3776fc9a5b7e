"""Training alone, on a small learnable task: the same mathematics at any world size and split, exact resume, one-line errors."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baseline.data.manifest import ROWS_FILE, DataSettings, Manifest
from baseline.loop import TrainingError, micro_batch
from baseline.train import main

ROOT = Path(__file__).resolve().parents[2]
VOCAB, LENGTH, ROWS = 300, 64, 96
STEPS = 40
CHECKPOINT = 15
OPTIONS = ["--depth=2", "--aspect-ratio=32", "--head-dim=32", "--reference-batch-tokens=512", "--short-window-multiple=16"]
OPTIONS += ["--set", "batch_tokens=512", "--set", f"num_steps={STEPS}", "--device-batch-size=4"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--max-restarts=0"]
DIGEST = "0" * 64

Train = Callable[..., Path]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed rows in which four tokens of five follow from the one before; 96 rows of 64 + 1 tokens are 3.3 epochs of the run."""
    rng = np.random.default_rng(0)
    follower = rng.permutation(VOCAB)
    tokens = rng.integers(VOCAB, size=(ROWS, LENGTH + 1))
    for place in range(LENGTH):
        follows = rng.random(ROWS) < 0.8
        tokens[follows, place + 1] = follower[tokens[follows, place]]
    folder = tmp_path_factory.mktemp("rows")
    (folder / ROWS_FILE).write_bytes(tokens.astype("<u2").tobytes())
    Manifest(
        split="train",
        settings=DataSettings(LENGTH, VOCAB),
        recipe_sha256=DIGEST,
        rows=ROWS,
        documents=1,
        text_bytes=1,
        tokens=tokens.size,
        cropped_tokens=0,
        cropped_share=0.0,
        tail_tokens=0,
        bos_id=0,
        corpus_sha256=DIGEST,
        tokenizer_sha256=DIGEST,
        rows_sha256=DIGEST,
        token_bytes_sha256=None,
        shards=(),
    ).write(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As under torchrun: sums over several threads round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def train(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """`train(*options, world=1, out=None)`: a run to its end; a world of one in this process, others under torchrun."""

    def run(*options: str, world: int = 1, out: Path | None = None) -> Path:
        out = out or tmp_path_factory.mktemp("run")
        arguments = [f"--rows={rows}", f"--out={out}", *OPTIONS, *options]
        if world == 1:
            assert main(arguments) == 0
        else:
            subprocess.run(under_torchrun(world, arguments), cwd=ROOT, env=environment(), check=True, capture_output=True, timeout=120)
        return out

    return run


def under_torchrun(world: int, arguments: list[str]) -> list[str]:
    return [*TORCHRUN, f"--nproc-per-node={world}", "-m", "baseline.train", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def losses(run: Path) -> list[float]:
    """The loss of each step, in order, each step once."""
    lines = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] - lines[0]["step"] for line in lines] == list(range(len(lines)))
    return [line["loss"] for line in lines]


def final(run: Path) -> dict[str, bytes]:
    """Every file of the last checkpoint."""
    return {path.name: path.read_bytes() for path in (run / f"step_{STEPS:06d}").iterdir()}


@pytest.fixture(scope="module")
def alone(train: Train) -> Path:
    return train()


@pytest.fixture(scope="module")
def two(train: Train) -> Path:
    """A run of two processes, with a checkpoint on the way."""
    return train(f"--save-every={CHECKPOINT}", world=2)


# ---------------------------------------------------------------------- the same mathematics


def test_it_learns(alone: Path) -> None:
    found = losses(alone)
    assert len(found) == STEPS
    assert found[0] == pytest.approx(np.log(VOCAB), abs=0.1)
    assert found[-1] < 2.0


def test_the_same_seed_gives_the_same_bytes(alone: Path, train: Train) -> None:
    assert final(train()) == final(alone)


def test_another_seed_gives_other_weights(alone: Path, train: Train) -> None:
    other = train("--seed=1", "--stop-after=1")
    assert losses(other)[0] != losses(alone)[0]


def test_two_processes_follow_the_same_curve_as_one(alone: Path, two: Path) -> None:
    one, both = np.array(losses(alone)), np.array(losses(two))
    assert np.abs(one - both)[:20].max() <= 1e-5
    assert np.abs(one - both).max() <= 1e-3


@pytest.mark.slow
def test_four_processes_follow_the_same_curve_as_one(train: Train) -> None:
    one, four = (np.array(losses(train("--device-batch-size=2", world=world))) for world in (1, 4))
    assert np.abs(one - four)[:20].max() <= 1e-5
    assert np.abs(one - four).max() <= 1e-3


@pytest.mark.parametrize("rows_per_forward", [1, 2, 8])
def test_how_a_batch_is_split_changes_nothing_but_rounding(rows_per_forward: int, alone: Path, train: Train) -> None:
    other = train(f"--device-batch-size={rows_per_forward}", "--stop-after=20")
    np.testing.assert_allclose(losses(other), losses(alone)[:20], rtol=0, atol=1e-5)


@given(micro_steps=st.integers(1, 8), rows_per_forward=st.integers(1, 8), world=st.integers(1, 8))
def test_a_batch_is_split_into_forwards_of_the_wanted_rows(micro_steps: int, rows_per_forward: int, world: int) -> None:
    assert micro_batch(micro_steps * rows_per_forward * world, rows_per_forward, world) == (micro_steps, rows_per_forward)


@pytest.mark.parametrize(
    ("split", "saying"),
    [
        ((9, 4, 2), "a batch of 9 rows cannot be split over 2 processes; use a multiple of 2"),
        ((8, 3, 1), "rows_per_forward = 3 does not divide the 8 rows of each process; use a divisor"),
    ],
)
def test_a_batch_that_cannot_be_split_is_refused(split: tuple[int, int, int], saying: str) -> None:
    with pytest.raises(TrainingError) as refused:
        micro_batch(*split)
    assert str(refused.value) == saying


# ---------------------------------------------------------------------- resume


def test_a_run_killed_at_any_step_and_resumed_ends_with_the_same_bytes(two: Path, rows: Path, train: Train, tmp_path: Path) -> None:
    kill_after = random.Random().randint(4, STEPS - 10)
    arguments = [f"--rows={rows}", f"--out={tmp_path}", *OPTIONS, "--save-every=3"]
    with subprocess.Popen(
        under_torchrun(2, arguments), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
        log = tmp_path / "steps.jsonl"
        while not log.exists() or log.read_bytes().count(b"\n") < kill_after:
            assert run.poll() is None
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
    time.sleep(0.5)  # the workers die with torchrun
    done = len(losses(tmp_path))
    assert kill_after <= done < STEPS, f"killed after step {kill_after}"
    train("--resume", "--save-every=3", world=2, out=tmp_path)
    assert final(tmp_path) == final(two), f"killed after step {kill_after}"
    np.testing.assert_array_equal(losses(tmp_path), losses(two))


def test_a_run_of_two_processes_goes_on_in_one(two: Path, train: Train, tmp_path: Path) -> None:
    checkpoint = f"step_{CHECKPOINT:06d}"
    shutil.copytree(two / checkpoint, tmp_path / checkpoint)
    train("--resume", out=tmp_path)
    resumed, whole = np.array(losses(tmp_path)), np.array(losses(two)[CHECKPOINT:])
    np.testing.assert_allclose(resumed[:20], whole[:20], rtol=0, atol=1e-5)
    np.testing.assert_allclose(resumed, whole, rtol=0, atol=1e-3)


def test_a_run_that_was_stopped_goes_on_bit_by_bit(alone: Path, train: Train, tmp_path: Path) -> None:
    for stop in ("--stop-after=7", "--stop-after=20", "--stop-after=1000"):
        train("--resume", stop, out=tmp_path)
    assert final(tmp_path) == final(alone)


def test_a_finished_run_that_is_resumed_stays_as_it_is(alone: Path, train: Train) -> None:
    before = final(alone)
    train("--resume", out=alone)
    assert final(alone) == before


def test_a_resumed_run_keeps_its_seed(rows: Path, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("--seed=7", "--stop-after=1", out=tmp_path)
    train("--resume", "--stop-after=2", out=tmp_path)
    assert [json.loads((tmp_path / f"step_00000{step}" / "state.json").read_text())["seed"] for step in (1, 2)] == [7, 7]
    capsys.readouterr()
    saying = refusal(capsys, f"--rows={rows}", f"--out={tmp_path}", *OPTIONS, "--resume", "--seed=8")
    assert saying == f"{tmp_path}/step_000002: was trained with --seed 7, not 8; resume without --seed"


def test_a_run_never_mixes_with_an_older_one(short: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saying = refusal(capsys, f"--rows={rows}", f"--out={short}", *OPTIONS)
    assert saying == f"{short} holds checkpoints up to step_000001; go on from there with --resume, or choose another --out"


def test_a_run_begins_with_what_it_is_and_shows_the_time_left(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("--stop-after=20", out=tmp_path)
    train("--resume", out=tmp_path)
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith("depth 2, width 64, 40 steps of 512 tokens, ")
    assert first.endswith(" | 1 × cpu, 4 rows a forward, float32, attention sdpa")
    assert lines[0].startswith("step     20/40 | loss ")
    assert lines[-1].endswith(" | 0:00 left")
    lefts = [json.loads(line)["seconds_left"] for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert lefts[-1] == 0.0
    seconds_per_step = [left / (STEPS - step) for step, left in enumerate(lefts[:-1], 1)]
    assert max(seconds_per_step) < 20 * min(seconds_per_step)  # also right after the resume: the pace is this process's own


@pytest.mark.parametrize("package", ["trackio", "wandb"])
def test_a_tracker_follows_the_run_or_says_how_to_install_it(
    package: str, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    arguments = [f"--rows={rows}", f"--out={tmp_path / 'out'}", *OPTIONS, "--stop-after=2", f"--tracker={package}"]
    if importlib.util.find_spec(package):
        assert main(arguments) == 0
    else:
        assert main(arguments) == 3
        wanted = f"baseline.train: --tracker {package}: it is not installed; pip install 'speedrun[{package}]'"
        assert capsys.readouterr().err.splitlines()[-1] == wanted


# ---------------------------------------------------------------------- rows per forward pass

GREEDY = """
import torch
from baseline.model import GPT

class Greedy(GPT):
    \"\"\"Runs out of memory, as a card would, when more than {most} rows are in one forward pass.\"\"\"

    def forward(self, tokens, targets=None, cache=None, wanted=None):
        if self.training and len(tokens) > {most}:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.")
        return super().forward(tokens, targets, cache, wanted)

def build_model(config, ops):
    return Greedy(config, ops)
"""


@pytest.fixture
def greedy(tmp_path: Path) -> Path:
    folder = tmp_path / "greedy"
    folder.mkdir()
    (folder / "model.py").write_text(GREEDY.format(most=3))
    return folder


def test_running_out_of_memory_names_what_fits(greedy: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--rows={rows}", f"--out={tmp_path / 'out'}", *OPTIONS, f"--submission={greedy}"]
    assert main(arguments) == 3
    assert capsys.readouterr().err.splitlines()[-1] == (
        "baseline.train: out of memory on cpu with 4 rows in one forward pass; the most that fit are 2: "
        "use --device-batch-size 2, or --device-batch-size auto"
    )


@pytest.mark.parametrize("world", [1, 2])
def test_auto_takes_the_most_rows_that_fit_and_changes_no_result(world: int, greedy: Path, alone: Path, train: Train) -> None:
    run = train("--device-batch-size=auto", "--stop-after=20", f"--submission={greedy}", world=world)
    config = json.loads((run / "step_000020" / "state.json").read_text())["config"]
    assert config["rows_per_forward"] == 2
    np.testing.assert_allclose(losses(run), losses(alone)[:20], rtol=0, atol=1e-5)


def test_a_card_too_small_for_one_row_says_so(greedy: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (greedy / "model.py").write_text(GREEDY.format(most=0))
    for option in ("--device-batch-size=auto", "--device-batch-size=1"):
        assert main([f"--rows={rows}", f"--out={tmp_path / 'out'}", *OPTIONS, f"--submission={greedy}", option]) == 3
        assert "out of memory on cpu even with 1 row in one forward pass" in capsys.readouterr().err.splitlines()[-1]


# ---------------------------------------------------------------------- errors


@pytest.fixture(scope="module")
def short(train: Train) -> Path:
    """A run stopped after one step."""
    return train("--stop-after=1")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which a run is refused."""
    assert main(arguments) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("baseline.train: ")
    return lines[0].removeprefix("baseline.train: ")


REFUSED = {
    "--depth=0": "depth = 0; it must be a finite number above 0",
    "--tokens-per-parameter=nan": "tokens_per_parameter = nan; it must be a finite number above 0",
    "--head-dim=33": "head_dim = 33; rotary embeddings need an even head_dim",
    "--set=softcap": "--set 'softcap'; write --set field=value",
    "--set=softcaps=1": "--set TrainConfig has no field 'softcaps'; did you mean 'softcap'?",
    "--set=softcap=high": "--set softcap = 'high'; it must be a number",
    "--set=softcap=inf": "--set softcap = inf; it must be finite",
    "--set=smear=1": "--set smear = 1; it must be True or False",
    "--set=dtype=float16": "--set dtype = 'float16'; it must be one of 'float32', 'bfloat16'",
    "--set=sequence_len=32": "--set sequence_len: the packed rows fix it; prepare other rows instead",
    "--set=rope_base=0": "rope_base = 0; it must be above 0",
    "--set=softcap=-1": "softcap = -1; it must be at least 0, which turns it off",
    "--set=warmup_steps=-1": "warmup_steps = -1; it must be a finite number, at least 0",
    "--set=num_steps=0": "num_steps = 0; it must be a positive whole number",
    "--set=batch_tokens=500": "batch_tokens = 500; it must be a multiple of sequence_len = 64",
    "--submission=/nowhere": "/nowhere is no folder; name the one that holds the slot files",
    "--rows=/nowhere": "/nowhere/manifest.json is missing: prepare the data again",
}


@pytest.mark.parametrize(("option", "saying"), REFUSED.items())
def test_a_bad_option_gives_one_line(option: str, saying: str, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, f"--rows={rows}", f"--out={tmp_path}", *OPTIONS, option) == saying


@pytest.mark.parametrize(
    "arguments",
    [
        ["--out=x"],
        ["--rows=x"],
        ["--rows=x", "--out=x", "--save-every=0"],
        ["--rows=x", "--out=x", "--device-batch-size=0"],
        ["--control=x", "--out=x"],
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused_with_its_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("baseline.train: error: ")


def test_resuming_with_another_config_is_refused(short: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saying = refusal(capsys, f"--rows={rows}", f"--out={short}", *OPTIONS, "--resume", "--set=softcap=20")
    assert saying == f"{short}/step_000001: was trained with another config; resume with the options it was started with"


def test_resuming_may_change_how_a_run_is_executed(short: Path, train: Train) -> None:
    train("--resume", "--stop-after=2", "--set=rows_per_forward=2", out=short)
    assert len(losses(short)) == 2


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(file: str, rows: Path, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("--stop-after=1", out=tmp_path)
    damaged = tmp_path / "step_000001" / file
    damaged.write_bytes(damaged.read_bytes()[:100])
    capsys.readouterr()
    assert refusal(capsys, f"--rows={rows}", f"--out={tmp_path}", *OPTIONS, "--resume").startswith(f"{damaged}: not a")
