"""`speedrun sample` on a model trained for a few steps of the nano track: the tokenizer it finds, what passes through, how it ends.

Every case runs the real command in a copy of the repository, whose prepared data can be taken away.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from baseline.data.manifest import TOKENIZER_FILE
from baseline.train import main as train
from harness.cli import main
from tests.harness.tiny_runs import nano_data, processes_of

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("baseline", "harness", "leaderboard")
SIZE = ["--depth=2", "--aspect-ratio=32", "--head-dim=32", "--reference-batch-tokens=512", "--short-window-multiple=64"]
SIZE += [f"--set={assignment}" for assignment in ("batch_tokens=512", "num_steps=8", "rows_per_forward=2", "warmup_steps=2")]


@dataclass(frozen=True)
class Copy:
    """The repository's code, and in `data` what the test puts there."""

    root: Path

    @property
    def tokenizer(self) -> Path:
        return self.root / "data" / "nano" / TOKENIZER_FILE

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "LC_ALL": "C.UTF-8",
        }
        command = [sys.executable, "-c", "from harness.cli import main; main()", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.root, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)

    def speedrun(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            printed, said = process.communicate(given, timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, printed, said)

    def refuses(self, *arguments: str, code: int, saying: str) -> None:
        """The command ends with `code`, prints nothing, and says one line that contains `saying`."""
        done = self.speedrun(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert done.stderr.startswith("speedrun: ")
        assert done.stderr.count("\n") == 1
        assert saying in done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The code, the tokenizer of the nano track, and `model`, the --out folder of a training of 8 steps."""
    root = tmp_path_factory.mktemp("repository")
    for room in COPIED:
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    prepared = nano_data(tmp_path_factory.mktemp("data")).folder
    copy = Copy(root)
    copy.tokenizer.parent.mkdir(parents=True)
    shutil.copy(prepared / TOKENIZER_FILE, copy.tokenizer)
    assert train([f"--rows={prepared / 'train'}", f"--out={root / 'model'}", *SIZE]) == 0
    return copy


@pytest.fixture
def bare(copy: Copy, tmp_path: Path) -> Copy:
    """The same without prepared data."""
    root = tmp_path / "repository"
    shutil.copytree(copy.root, root, ignore=shutil.ignore_patterns("data"))
    return Copy(root)


def test_the_tokenizer_of_the_prepared_data_is_found(copy: Copy) -> None:
    done = copy.speedrun("sample", "model", "--prompt", "Returns", "--samples", "2", "--max-tokens", "7", "--seed", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert (printed["prompt"], printed["seed"], printed["checkpoint"]) == ("Returns", 3, "model/step_000008")
    assert len(printed["samples"]) == 2
    assert printed["tokens_per_s"] > 0


def test_the_text_goes_to_stdout_and_the_pace_to_stderr(copy: Copy) -> None:
    done = copy.speedrun("sample", "model/step_000008", "--prompt", "-", "--max-tokens", "5", "--temperature", "0", given="Größe der -\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Größe der -")
    assert "tokens/s, seed 0, model/step_000008" in done.stderr


def test_where_no_tokenizer_fits_one_can_be_named(copy: Copy, bare: Copy) -> None:
    bare.refuses("sample", "model", code=2, saying="the model knows 2,048 tokens, and there is no tokenizer here; name the one")
    assert bare.speedrun("sample", "model", "--tokenizer", str(copy.tokenizer), "--max-tokens", "2").returncode == 0


def test_a_checkpoint_with_damaged_weights_is_named(copy: Copy, bare: Copy) -> None:
    weights = bare.root / "model" / "step_000008" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    bare.refuses("sample", "model", "--tokenizer", str(copy.tokenizer), code=4, saying="weights.safetensors: not a readable")


def test_a_submission_that_breaks_the_contract_is_named(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def build_model(config, ops):\n    return 3\n")
    copy.refuses("sample", "model", "--submission", str(tmp_path), code=3, saying="model.py: build_model must return an nn.Module")


@pytest.mark.parametrize("option", ["--samples=0", "--max-tokens=0", "--temperature=-1", "--top-k=0", "--seed=-1"])
def test_numbers_out_of_range_are_usage_errors(option: str) -> None:
    done = CliRunner().invoke(main, ["sample", "model", option])
    assert done.exit_code == 2
    assert f"Invalid value for '{option.split('=')[0]}'" in done.stderr


def test_an_interrupted_command_leaves_no_process(copy: Copy, tmp_path: Path) -> None:
    with copy.start("sample", "model", "--samples", "9", "--max-tokens", "1000000", "--prompt", str(tmp_path)) as process:
        deadline = time.monotonic() + 60
        while len(processes_of(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(processes_of(tmp_path)) == 2, "the command and its sampler"
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (5, "speedrun: interrupted\n")
    assert processes_of(tmp_path) == []
