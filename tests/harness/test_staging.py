"""What is laid out for a run, and how what it leaves is read: as hostile files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from baseline.config import TrainConfig
from harness.errors import VoidRun
from harness.staging import dummy_rows, file_digest, make_durable, parameters_in, require_digest, stage_run
from harness.track import Track
from tests.harness.conftest import SubmissionFolder


def safetensors_file(path: Path, header: object, data: bytes = b"") -> Path:
    """A file of the safetensors format with any header."""
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def regular(path: Path) -> None:
    path.write_bytes(b"weights")


def link(path: Path) -> None:
    (path.parent / "elsewhere").write_bytes(b"weights")
    path.symlink_to("elsewhere")


NO_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a link": link,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
}

# ---------------------------------------------------------------------- before the run


def test_a_run_gets_the_bytes_that_were_hashed_and_the_tracks_config(
    session_submission: SubmissionFolder, tiny_track: Track, tmp_path: Path
) -> None:
    submission = session_submission({"schedule": "print('hashed')\n"})
    (submission.path / "schedule.py").write_text("print('changed since')\n")
    files = stage_run(tmp_path, submission, tiny_track.base_config())
    assert {path.name: path.read_bytes() for path in files.submission.iterdir()} == submission.files
    assert TrainConfig.from_dict(json.loads(files.config.read_text())) == tiny_track.base_config()
    assert (list(files.weights.iterdir()), list(files.witness.iterdir())) == ([], [])


def test_dummy_rows_are_one_batch_of_tokens_and_the_same_every_time(tiny_track: Track, tmp_path: Path) -> None:
    config = tiny_track.base_config()
    with dummy_rows(config, tmp_path) as first, dummy_rows(config, tmp_path) as second:
        contents = [os.pread(file.fileno(), 2**24, 0) for file in (first, second)]
    assert contents[0] == contents[1]
    rows = np.frombuffer(contents[0], "<u2").reshape(config.batch_rows, config.sequence_len + 1)
    assert 0 <= rows.min() < 10
    assert config.vocab_size - 10 < rows.max() < config.vocab_size
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_what_was_pinned_pass_and_are_rewound(tmp_path: Path) -> None:
    path = tmp_path / "rows.bin"
    path.write_bytes(b"rows")
    with path.open("rb") as file:
        require_digest(file, hashlib.sha256(b"rows").hexdigest(), path)
        assert file.read() == b"rows"


def test_rows_that_have_changed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.bin"
    path.write_bytes(b"other rows")
    with path.open("rb") as file, pytest.raises(VoidRun, match=r"rows.bin of the training split has changed on disk") as void:
        require_digest(file, hashlib.sha256(b"rows").hexdigest(), path)
    assert not void.value.by_entry


# ---------------------------------------------------------------------- after the run


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    regular(tmp_path / "final.safetensors")
    make_durable(tmp_path / "final.safetensors")
    assert file_digest(tmp_path / "final.safetensors") == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [file_digest, make_durable, parameters_in])
@pytest.mark.parametrize("leave", NO_FILES.values(), ids=NO_FILES.keys())
def test_what_is_no_regular_file_counts_as_left_out_by_the_entry(
    leave: Callable[[Path], object], read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "final.safetensors"
    leave(path)
    with pytest.raises(VoidRun, match=r"^the run left no final.safetensors$") as void:
        read(path)
    assert void.value.by_entry


def test_parameters_are_counted_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "final.safetensors"
    path.write_bytes(save({"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16), "c": torch.zeros(())}, {"made": "here"}))
    assert parameters_in(path) == 3 * 4 + 5 + 1


HOSTILE_HEADERS = {
    "a list": [1, 2],
    "null": None,
    "no shape": {"a": {"dtype": "F32"}},
    "a tensor that is a number": {"a": 7},
    "a shape that is text": {"a": {"shape": "33"}},
    "sizes that are text": {"a": {"shape": ["3"]}},
    "a size with a fraction": {"a": {"shape": [1.5]}},
    "an infinite size": {"a": {"shape": [float("inf")]}},
    "a size that is true": {"a": {"shape": [True]}},
    "a negative size": {"a": {"shape": [-3]}},
    "a huge size": {"a": {"shape": [10**4000] * 50}},
    "more weights than bits": {"a": {"shape": [10_000]}},
}


@pytest.mark.parametrize("header", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS.keys())
def test_a_hostile_header_makes_the_run_void(header: object, tmp_path: Path) -> None:
    with pytest.raises(VoidRun, match=r"^final.safetensors is not a safetensors file$"):
        parameters_in(safetensors_file(tmp_path / "final.safetensors", header))


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\xff" * 100, (20).to_bytes(8, "little") + b"{"])
def test_a_broken_file_makes_the_run_void(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "final.safetensors").write_bytes(content)
    with pytest.raises(VoidRun, match=r"^final.safetensors is not a safetensors file$"):
        parameters_in(tmp_path / "final.safetensors")
