"""A changed byte anywhere in a prepared folder is found, and its file named."""

from __future__ import annotations

import errno
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from baseline.data.durable import read_sealed, seal, sha256_of, whole_file, write_sealed
from baseline.data.errors import DataError
from baseline.data.integrity import verify
from baseline.data.manifest import DataSettings, Manifest
from baseline.data.prepare import prepare
from baseline.data.shards import split_folder

FILES = (
    "tokenizer/tokenizer.json",
    "train/rows.bin",
    "train/manifest.json",
    "val/rows.bin",
    "val/manifest.json",
    "val/token_bytes.npy",
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shards, out = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("out")
    for name in ("a.jsonl", "b.jsonl"):
        (shards / name).write_text("".join(json.dumps({"text": f"line {row} of {name} " * 9}) + "\n" for row in range(60)))
    prepare(split_folder(shards), out, DataSettings(16, 280))
    return out


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def test_an_untouched_folder_passes(folder: Path) -> None:
    assert verify(folder).train.rows > 0


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_found_and_its_file_named(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    rng = random.Random(name)
    places = {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(40))}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            verify(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_truncated_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        verify(folder)
    path.unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        verify(folder)


def test_rows_of_another_tokenizer_are_noticed(folder: Path) -> None:
    content = read_sealed(folder / "tokenizer/tokenizer.json")
    write_sealed(folder / "tokenizer/tokenizer.json", {**content, "tokens": [*content["tokens"][:-1], b"zzz".hex()]})
    with pytest.raises(DataError, match=r"tokenizer\.json is not the tokenizer that .*train/rows\.bin was made with"):
        verify(folder)


def test_counts_that_do_not_add_up_are_noticed(folder: Path) -> None:
    manifest = Manifest.read(folder / "val")
    replace(manifest, cropped_tokens=manifest.cropped_tokens + 1).write(folder / "val")
    with pytest.raises(DataError, match=r"val/manifest\.json contradicts itself"):
        verify(folder)


def test_splits_of_different_preparations_are_noticed(folder: Path) -> None:
    replace(Manifest.read(folder / "val"), recipe_sha256="0" * 64).write(folder / "val")
    with pytest.raises(DataError, match="come from different preparations"):
        verify(folder)


class TestDurableFiles:
    def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"old")
        with pytest.raises(RuntimeError), whole_file(tmp_path / "file") as file:  # noqa: PT012 - the write must come before the failure
            file.write(b"new")
            raise RuntimeError
        assert (tmp_path / "file").read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_a_full_disk_is_said_in_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"file could not be written: the disk is full"), whole_file(tmp_path / "file"):
            raise OSError(errno.ENOSPC, "No space left on device")
        assert not list(tmp_path.iterdir())

    def test_a_sealed_file_reads_back_and_carries_its_digest(self, tmp_path: Path) -> None:
        content = {"b": [1, 2.5, "ü"], "a": None}
        digest = write_sealed(tmp_path / "x.json", content)
        assert json.loads((tmp_path / "x.json").read_text())["sha256"] == digest == seal(content)[0]
        assert read_sealed(tmp_path / "x.json") == content

    @pytest.mark.parametrize("data", [b"", b"[]", b"3", b"{}", b"\xff", b'{"sha256": 1}'])
    def test_what_is_not_a_sealed_file_is_damaged(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(DataError, match=r"x\.json is damaged"):
            read_sealed(tmp_path / "x.json")

    def test_sha256_of_is_that_of_the_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"abc")
        assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
