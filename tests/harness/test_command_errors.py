"""Bad input to the command line: each gives one clear line on stderr and the right exit code, and leaves nothing half-done.

Every case runs the real command in a private copy of the repository, so that files of it can be broken.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("baseline", "harness", "kernels", "leaderboard", "submissions")
GOOD_TOML = 'name = "mine"\ntitle = "Mine"\nsummary = "A test."\n[[author]]\nname = "Ada"\n'


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository in which commands can be run and files broken."""

    root: Path

    def speedrun(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Where there is a network, the 170 shards of gpt2 would be fetched.
        offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
        environment = {**os.environ, **offline, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
        command = [sys.executable, "-m", "harness.cli.main", *arguments]
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def refuses(self, *arguments: str, code: int, saying: str) -> None:
        """The command ends with `code` and one line on stderr that contains `saying`."""
        done = self.speedrun(*arguments)
        lines = [line for line in done.stderr.splitlines() if line.startswith("speedrun: ")]
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert len(lines) == 1, done.stderr
        assert saying in lines[0]
        assert "Traceback" not in done.stderr

    def submission(self, name: str = "mine", toml: str = GOOD_TOML, **slots: str) -> str:
        """Write a submission folder and return its path as a command-line argument."""
        folder = self.root / "submissions" / name
        folder.mkdir()
        (folder / "submission.toml").write_text(toml)
        (folder / "README.md").write_text("An idea.\n")
        for slot, text in slots.items():
            (folder / f"{slot}.py").write_text(text)
        return f"submissions/{name}"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """One copy with prepared data, from which each test takes its own."""
    root = tmp_path_factory.mktemp("checkout")
    for room in COPIED:
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("RULES.md", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / file, root / file)
    done = Checkout(root).speedrun("data", "prepare")
    assert done.returncode == 0, done.stderr
    return Checkout(root)


@pytest.fixture
def checkout(pristine: Checkout, tmp_path: Path) -> Iterator[Checkout]:
    root = tmp_path / "repository"
    shutil.copytree(pristine.root, root)
    yield Checkout(root)
    shutil.rmtree(root, ignore_errors=True)


def test_an_unknown_command_is_a_usage_error(checkout: Checkout) -> None:
    done = checkout.speedrun("sumbit", "submissions/baseline")
    assert done.returncode == 2
    assert "No such command 'sumbit'" in done.stderr


Breaks = Callable[[Checkout], tuple[str, ...]]


def with_submission(toml: str = GOOD_TOML, **slots: str) -> Breaks:
    return lambda checkout: ("check", checkout.submission("mine", toml, **slots))


FORWARD_STRING = "from baseline.model import GPT\nclass M(GPT):\n    def forward(self, tokens, targets=None):\n        return 'loss'\n"
BUILD_M = "def build_model(config, ops):\n    return M(config, ops)\n"
SUBMISSIONS: dict[str, tuple[Breaks, int, str]] = {
    "broken TOML": (with_submission(toml='name = "mine\n'), 3, "submission.toml"),
    "missing field": (with_submission(toml='name = "mine"\n'), 3, "'title' is missing"),
    "unknown field": (with_submission(toml=GOOD_TOML + "nick = 1\n"), 3, "nick"),
    "wrong type": (with_submission(toml=GOOD_TOML.replace('"Mine"', "7")), 3, "title"),
    "name is not the folder's": (with_submission(toml=GOOD_TOML.replace('"mine"', '"other"')), 3, "differs from the folder's name"),
    "unknown slot": (with_submission(loss="x = 1\n"), 3, "loss.py"),
    "syntax error": (with_submission(config="def configure(config:\n"), 3, "config.py"),
    "missing function": (with_submission(config="def other(config):\n    return config\n"), 3, "configure"),
    "wrong signature": (with_submission(config="def configure():\n    return None\n"), 3, "configure"),
    "wrong return type": (with_submission(config="def configure(config):\n    return 3\n"), 3, "TrainConfig"),
    "changed vocabulary": (with_submission(config="def configure(config):\n    return config.with_(vocab_size=512)\n"), 3, "vocab_size"),
    "unknown config field": (with_submission(config="def configure(config):\n    return config.with_(speed=2)\n"), 3, "speed"),
    "value that is no number": (
        with_submission(config="def configure(config):\n    return config.with_(matrix_lr=float('nan'))\n"),
        3,
        "matrix_lr",
    ),
    "exception in a slot": (with_submission(schedule="def schedule(step, config):\n    return 1 / 0\n"), 3, "schedule.py"),
    "schedule returns the wrong thing": (with_submission(schedule="def schedule(step, config):\n    return 1.0\n"), 3, "StepPlan"),
    "loss is not a tensor": (with_submission(model=FORWARD_STRING + BUILD_M), 3, "model.py"),
    "forbidden import": (with_submission(config="import socket\ndef configure(config):\n    return config\n"), 3, "R02"),
    "monkeypatch": (
        with_submission(config="import torch\ntorch.sum = None\ndef configure(config):\n    return config\n"),
        3,
        "R03",
    ),
    "not a folder": (lambda checkout: ("check", "submissions/nobody"), 2, "is not a submission folder"),
    "bad name for a new one": (lambda checkout: ("new", "My Idea"), 2, "My Idea"),
    "name taken": (lambda checkout: ("new", "baseline"), 2, "baseline"),
    "unknown track": (lambda checkout: ("check", "submissions/baseline", "--track", "mars"), 2, "there is no track 'mars'"),
    "unknown entry": (lambda checkout: ("verify", "nobody-00000000"), 4, "nobody-00000000"),
    "a track whose data is not here": (lambda checkout: ("data", "prepare", "--track", "gpt2"), 4, "gpt2"),
    "a track that has no data at all": (lambda checkout: ("data", "status", "--track", "gpt2"), 4, "gpt2"),
    "no site to serve": (lambda checkout: ("board", "serve", "--out", "nowhere"), 4, "holds no site"),
}


@pytest.mark.parametrize(("breaks", "code", "saying"), SUBMISSIONS.values(), ids=SUBMISSIONS.keys())
def test_bad_input_gives_one_line(checkout: Checkout, breaks: Breaks, code: int, saying: str) -> None:
    checkout.refuses(*breaks(checkout), code=code, saying=saying)


# ---------------------------------------------------------------------- a machine that is not as it should be


def test_a_changed_baseline_file_is_named(checkout: Checkout) -> None:
    with (checkout.root / "baseline" / "model.py").open("a") as file:
        file.write("\n# faster\n")
    checkout.refuses("submit", "submissions/adamw_control", code=4, saying="baseline/model.py: was changed since the baseline was frozen")


def test_a_package_that_would_stand_in_for_a_baseline_file_is_named(checkout: Checkout) -> None:
    (checkout.root / "baseline" / "model").mkdir()
    checkout.refuses("run", "submissions/baseline", code=4, saying="baseline/model: was added since the baseline was frozen")


def test_a_broken_freeze_list_is_named(checkout: Checkout) -> None:
    (checkout.root / "baseline" / "frozen.toml").write_text("files = ")
    checkout.refuses("run", "submissions/baseline", code=4, saying="baseline/frozen.toml")


@pytest.mark.parametrize(
    "file", ["train/rows.bin", "val/rows.bin", "val/token_bytes.npy", "train/manifest.json", "tokenizer/tokenizer.json"]
)
def test_one_flipped_byte_of_the_data_is_found_before_training(checkout: Checkout, file: str) -> None:
    path = checkout.root / "data" / "nano" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    checkout.refuses("submit", "submissions/adamw_control", code=4, saying=file.split("/")[-1])


def test_missing_data_says_how_to_make_it(checkout: Checkout) -> None:
    shutil.rmtree(checkout.root / "data")
    checkout.refuses("data", "status", "--track", "nano", code=4, saying="speedrun data prepare --track nano")


def test_a_track_file_with_a_wrong_field_is_named(checkout: Checkout) -> None:
    path = checkout.root / "harness" / "tracks" / "nano.toml"
    path.write_text(path.read_text().replace("run_s = 600.0", 'run_s = "long"'))
    checkout.refuses("check", "submissions/baseline", code=2, saying="nano.toml: limits.run_s")


def test_a_track_file_that_is_not_toml_is_named(checkout: Checkout) -> None:
    (checkout.root / "harness" / "tracks" / "nano.toml").write_text("name = ")
    checkout.refuses("check", "submissions/baseline", code=2, saying="nano.toml: not valid TOML")


def test_a_broken_document_of_the_database_is_named(checkout: Checkout) -> None:
    broken = checkout.root / "leaderboard" / "findings" / "nanochat-fp8-lm-head.json"
    broken.write_text(broken.read_text().replace('"kind": "reported"', '"kind": "rumoured"'))
    checkout.refuses("board", "build", code=4, saying="nanochat-fp8-lm-head.json")


def test_a_file_in_the_place_of_the_database_folder_is_named(checkout: Checkout) -> None:
    done = checkout.speedrun("submit", "submissions/adamw_control", "--db", "pyproject.toml")
    assert done.returncode == 2
    assert "is a file" in done.stderr


def test_a_site_is_not_written_over_other_peoples_files(checkout: Checkout) -> None:
    checkout.refuses("board", "build", "--out", "harness", code=4, saying="harness")
    assert (checkout.root / "harness" / "record.py").is_file()


def test_an_occupied_port_is_named(checkout: Checkout) -> None:
    assert checkout.speedrun("board", "build").returncode == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        checkout.refuses("board", "serve", "--port", port, code=4, saying=f"port {port}")


def test_json_output_is_one_object_on_stdout(checkout: Checkout) -> None:
    done = checkout.speedrun("check", "submissions/adamw_control", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
    refused = checkout.speedrun("check", checkout.submission(config="import os\n"), "--json")
    assert refused.returncode == 3
    assert json.loads(refused.stdout)["ok"] is False


def test_debug_shows_the_traceback(checkout: Checkout) -> None:
    done = checkout.speedrun("--debug", "check", "submissions/nobody")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
