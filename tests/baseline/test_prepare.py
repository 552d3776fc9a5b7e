"""Preparation: the same bytes for any number of workers, after any kill, and nothing to do the second time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

from baseline.data.errors import DataError
from baseline.data.integrity import Prepared
from baseline.data.manifest import DataSettings, Manifest
from baseline.data.prepare import prepare
from baseline.data.progress import Stage
from baseline.data.shards import ShardSplit, read_documents, split_folder
from baseline.data.tokenizer import Tokenizer, encode_document

REPOSITORY = Path(__file__).parents[2]
SETTINGS = DataSettings(sequence_len=32, vocab_size=300, tokenizer_characters=50_000, buffer_documents=50, refill_documents=16)
OUTPUTS = (
    "tokenizer/tokenizer.json",
    "train/rows.bin",
    "train/manifest.json",
    "val/rows.bin",
    "val/manifest.json",
    "val/token_bytes.npy",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ShardSplit:
    """Five shards of 400 documents of 1 to 60 words."""
    folder = tmp_path_factory.mktemp("shards")
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 8))) for _ in range(500)]
    for index in range(5):
        with (folder / f"shard_{index:05d}.jsonl").open("w") as file:
            for _ in range(400):
                file.write(json.dumps({"text": " ".join(rng.choices(words, k=rng.randint(1, 60)))}) + "\n")
    return split_folder(folder)


@pytest.fixture(scope="module")
def reference(source: ShardSplit, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The preparation that all others must equal."""
    return prepare(source, tmp_path_factory.mktemp("reference"), SETTINGS)


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def start_preparing(source: ShardSplit, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """`prepare` in a process of its own, which prints its progress."""
    program = f"""
from pathlib import Path
from baseline.data.manifest import DataSettings
from baseline.data.prepare import prepare
from baseline.data.shards import split_folder
prepare(split_folder(Path({str(source.val[0].path.parent)!r})), Path({str(out)!r}), {SETTINGS!r}, workers={workers},
        progress=lambda stage, done, total: print(stage, done, flush=True))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)


def texts_of(source: ShardSplit) -> list[str]:
    return [text for shard in source.train for batch in read_documents(shard) for text in batch.texts]


class TestResult:
    def test_the_folder_holds_exactly_what_it_promises(self, reference: Prepared) -> None:
        files = {path.relative_to(reference.folder).as_posix() for path in reference.folder.rglob("*") if path.is_file()}
        assert files == {*OUTPUTS, ".lock"}

    def test_the_counts_add_up(self, reference: Prepared, source: ShardSplit) -> None:
        train = reference.train
        assert train.documents == 1600
        assert train.text_bytes == sum(len(text.encode()) for text in texts_of(source))
        assert train.tokens == train.rows * 33 + train.cropped_tokens + train.tail_tokens
        assert train.cropped_share == pytest.approx(train.cropped_tokens / train.tokens, abs=1e-6)
        assert train.tail_tokens < 33
        assert [shard.documents for shard in train.shards] == [400] * 4

    def test_rows_are_documents_of_the_split_in_the_tokenizer_s_ids(self, reference: Prepared, source: ShardSplit) -> None:
        tokenizer = Tokenizer.load(reference.folder / "tokenizer/tokenizer.json")
        encoding = tokenizer.encoding()
        rows = np.fromfile(reference.folder / "train/rows.bin", dtype="<u2").reshape(reference.train.rows, 33)
        assert (rows[:, 0] == tokenizer.bos_id).all()
        known = {encode_document(encoding, tokenizer.bos_id, text).tobytes() for text in texts_of(source)}
        for row in rows[::7]:
            starts = np.flatnonzero(row == tokenizer.bos_id)
            for start, end in pairwise(starts):
                assert row[start:end].tobytes() in known

    def test_token_bytes_are_the_tokenizer_s(self, reference: Prepared) -> None:
        tokenizer = Tokenizer.load(reference.folder / "tokenizer/tokenizer.json")
        stored = np.load(reference.folder / "val/token_bytes.npy")
        assert stored.dtype == np.int32
        assert stored.tolist() == tokenizer.token_bytes().tolist()

    def test_the_manifest_on_disk_is_the_one_returned(self, reference: Prepared) -> None:
        assert Manifest.read(reference.folder / "train") == reference.train
        assert Manifest.read(reference.folder / "val") == reference.val

    def test_progress_of_each_stage_runs_from_nothing_to_all(self, source: ShardSplit, tmp_path: Path) -> None:
        reports: dict[Stage, list[tuple[int, int]]] = {}
        prepare(source, tmp_path, SETTINGS, progress=lambda stage, done, total: reports.setdefault(stage, []).append((done, total)))
        assert list(reports) == ["tokenizer", "tokenize", "pack", "verify"]
        for stage, steps in reports.items():
            assert steps[0][0] == 0, stage
            assert steps[-1][0] == steps[-1][1] > 0, stage
            assert steps == sorted(steps), stage


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_bytes_do_not_depend_on_the_workers(source: ShardSplit, reference: Prepared, tmp_path: Path, workers: int) -> None:
    prepare(source, tmp_path, SETTINGS, workers=workers)
    assert outputs(tmp_path) == outputs(reference.folder)


class TestSecondCall:
    def test_it_writes_nothing(self, source: ShardSplit, tmp_path: Path) -> None:
        first = prepare(source, tmp_path, SETTINGS)
        times = {name: (tmp_path / name).stat().st_mtime_ns for name in OUTPUTS}
        assert prepare(source, tmp_path, SETTINGS, workers=2) == first
        assert {name: (tmp_path / name).stat().st_mtime_ns for name in OUTPUTS} == times

    def test_other_settings_are_refused_by_name(self, source: ShardSplit, tmp_path: Path) -> None:
        prepare(source, tmp_path, SETTINGS)
        with pytest.raises(DataError, match=r"another preparation \(sequence_len 32, not 64\)"):
            prepare(source, tmp_path, DataSettings(64, 300, 50_000, buffer_documents=50, refill_documents=16))

    def test_other_shards_are_refused(self, source: ShardSplit, tmp_path: Path) -> None:
        prepare(source, tmp_path, SETTINGS)
        with pytest.raises(DataError, match=r"another preparation \(other shards, or another version\)"):
            prepare(ShardSplit(source.train[1:], source.val), tmp_path, SETTINGS)

    def test_damage_is_found_and_named(self, source: ShardSplit, tmp_path: Path) -> None:
        prepare(source, tmp_path, SETTINGS)
        rows = bytearray((tmp_path / "train/rows.bin").read_bytes())
        rows[len(rows) // 2] ^= 1
        (tmp_path / "train/rows.bin").write_bytes(rows)
        with pytest.raises(DataError, match=r"train/rows\.bin is damaged"):
            prepare(source, tmp_path, SETTINGS)


class TestInterruption:
    @pytest.mark.parametrize("workers", [1, 2, 4])
    def test_killed_at_random_moments_it_ends_with_the_same_bytes(
        self, source: ShardSplit, reference: Prepared, tmp_path: Path, workers: int
    ) -> None:
        rng = random.Random(workers)
        for attempt in range(2):
            child = start_preparing(source, tmp_path, workers)
            assert child.stdout is not None
            for _ in range(rng.randint(1, 4 + 12 * attempt)):
                child.stdout.readline()
            time.sleep(rng.random() * 0.01)
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
        prepare(source, tmp_path, SETTINGS)
        assert outputs(tmp_path) == outputs(reference.folder)
        assert not (tmp_path / "unfinished").exists()

    def test_workers_end_with_their_killed_parent(self, source: ShardSplit, tmp_path: Path) -> None:
        child = start_preparing(source, tmp_path, workers=2)
        assert child.stdout is not None
        while not child.stdout.readline().startswith(b"tokenize"):
            pass
        workers: list[psutil.Process] = []
        while not workers and child.poll() is None:
            workers = [process for process in psutil.Process(child.pid).children() if "spawn_main" in " ".join(process.cmdline())]
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert workers
        assert alive == []

    def test_finished_pieces_are_reused_and_half_finished_ones_are_not(
        self, source: ShardSplit, reference: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("baseline.data.prepare._pack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                prepare(source, tmp_path, SETTINGS)
        pieces = sorted((tmp_path / "unfinished").glob("*/tokens"))
        assert len(pieces) == 5
        pieces[2].write_bytes(pieces[2].read_bytes()[:-2])
        times = {path: path.stat().st_mtime_ns for path in pieces}

        with monkeypatch.context() as patch:
            patch.setattr("baseline.data.prepare._pack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                prepare(source, tmp_path, SETTINGS)
        rewritten = [path for path in pieces if path.stat().st_mtime_ns != times[path]]
        assert rewritten == [pieces[2]]

        prepare(source, tmp_path, SETTINGS)
        assert outputs(tmp_path) == outputs(reference.folder)

    def test_what_another_plan_left_unfinished_is_not_mixed_in(
        self, source: ShardSplit, reference: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("baseline.data.prepare._pack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                prepare(source, tmp_path, DataSettings(32, 290, 50_000, buffer_documents=50, refill_documents=16))
        prepare(source, tmp_path, SETTINGS)
        assert outputs(tmp_path) == outputs(reference.folder)

    def test_a_shard_that_fails_stops_the_others_and_names_itself(self, source: ShardSplit, tmp_path: Path) -> None:
        for shard in (*source.train, *source.val):
            (tmp_path / shard.name).write_bytes(shard.path.read_bytes())
        with (tmp_path / "shard_00003.jsonl").open("a") as file:
            file.write("{}\n")
        with pytest.raises(DataError, match=r"shard_00003\.jsonl:401"):
            prepare(split_folder(tmp_path), tmp_path / "out", SETTINGS, workers=2)

    def test_two_at_once_make_one_preparation(self, source: ShardSplit, reference: Prepared, tmp_path: Path) -> None:
        children = [start_preparing(source, tmp_path, workers=1) for _ in range(2)]
        for child in children:
            child.communicate()
        assert [child.returncode for child in children] == [0, 0]
        assert outputs(tmp_path) == outputs(reference.folder)

    def test_a_disk_that_is_too_small_is_refused_before_the_work(
        self, source: ShardSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("baseline.data.prepare.WRITTEN_PER_SHARD_BYTE", 1e12)
        with pytest.raises(DataError, match=r"GB free, and token ids and rows need \d+\.\d GB"):
            prepare(source, tmp_path, SETTINGS)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (DataSettings(0, 300), "sequence_len = 0"),
            (DataSettings(32, 264), "vocab_size = 264: it must lie between 265"),
            (DataSettings(32, 65_537), "vocab_size = 65537"),
            (DataSettings(32, 300, buffer_documents=0), "buffer_documents = 0"),
        ],
    )
    def test_settings_that_cannot_work(self, source: ShardSplit, tmp_path: Path, settings: DataSettings, message: str) -> None:
        with pytest.raises(DataError, match=message):
            prepare(source, tmp_path, settings)

    def test_too_little_text_for_one_row(self, source: ShardSplit, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"the val split holds \d+ tokens, less than one row of 50001"):
            prepare(source, tmp_path, DataSettings(50_000, 300, 50_000))

    def test_an_unfinished_folder_that_is_not_ours_is_left_alone(self, source: ShardSplit, tmp_path: Path) -> None:
        (tmp_path / "unfinished").mkdir()
        (tmp_path / "unfinished" / "thesis.tex").write_text("precious")
        with pytest.raises(DataError, match="holds files that no preparation wrote"):
            prepare(source, tmp_path, SETTINGS)
        assert (tmp_path / "unfinished" / "thesis.tex").read_text() == "precious"
