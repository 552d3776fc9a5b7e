"""Shards: one global order of documents, the last file for validation, bounded memory, errors that name the place."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from baseline.data.errors import DataError
from baseline.data.shards import Shard, TextDigest, list_shards, read_documents, split_folder

WIKIPEDIA = Path(__file__).parents[3] / "shared" / "text" / "wikipedia"


def write_parquet(path: Path, texts: list[str | None], row_group_size: int = 2, column: str = "text") -> None:
    pq.write_table(pa.table({column: texts, "other": range(len(texts))}), path, row_group_size=row_group_size, compression="zstd")


def shard(path: Path) -> Shard:
    return Shard(path, path.stat().st_size)


def texts_of(path: Path) -> list[str]:
    return [text for batch in read_documents(shard(path)) for text in batch.texts]


class TestOrder:
    def test_documents_follow_the_names_of_files_and_the_rows_within(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "b.parquet", ["3", "4", "5"])
        (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("1", "2")))
        (tmp_path / "c.txt").write_text("6\nstill 6")
        assert [text for item in list_shards(tmp_path) for text in texts_of(item.path)] == ["1", "2", "3", "4", "5", "6\nstill 6"]

    def test_hidden_and_foreign_files_are_no_shards(self, tmp_path: Path) -> None:
        for name in (".hidden.txt", "notes.md", "a.txt", "b.txt.partial"):
            (tmp_path / name).write_text("x")
        (tmp_path / "folder.txt").mkdir()
        assert [item.name for item in list_shards(tmp_path)] == ["a.txt"]


class TestSplit:
    def test_the_last_by_name_is_validation(self, tmp_path: Path) -> None:
        for index in (10, 2, 1):
            (tmp_path / f"shard_{index:05d}.txt").write_text("x")
        split = split_folder(tmp_path)
        assert [item.name for item in split.train] == ["shard_00001.txt", "shard_00002.txt"]
        assert [item.name for item in split.val] == ["shard_00010.txt"]

    def test_a_track_takes_the_first_shards_it_asks_for_and_still_the_last(self, tmp_path: Path) -> None:
        for index in range(5):
            (tmp_path / f"{index}.txt").write_text("x")
        split = split_folder(tmp_path, train_shards=2)
        assert [item.name for item in (*split.train, *split.val)] == ["0.txt", "1.txt", "4.txt"]

    @pytest.mark.parametrize(("present", "wanted"), [(1, None), (0, None), (3, 3)])
    def test_too_few_shards_are_counted(self, tmp_path: Path, present: int, wanted: int | None) -> None:
        for index in range(present):
            (tmp_path / f"{index}.txt").write_text("x")
        with pytest.raises(DataError, match=rf"holds {present} shard\(s\).*and {(wanted or 1) + 1} are needed"):
            split_folder(tmp_path, wanted)

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="absent is not a folder"):
            split_folder(tmp_path / "absent")


class TestReading:
    def test_memory_is_bounded_even_when_a_row_group_is_not(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", [str(row) for row in range(5000)], row_group_size=5000)
        batches = list(read_documents(shard(tmp_path / "a.parquet")))
        assert max(len(batch.texts) for batch in batches) <= 1024
        assert [text for batch in batches for text in batch.texts] == [str(row) for row in range(5000)]

    @pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.txt", "empty.parquet", "empty.jsonl", "empty.txt"])
    def test_consumed_bytes_add_up_to_the_size(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        texts: list[str | None] = [] if "empty" in name else ["ä" * count for count in range(3000)]
        if path.suffix == ".parquet":
            write_parquet(path, texts, row_group_size=700)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps({"text": text}) + "\n\n" for text in texts))
        else:
            path.write_text("".join(text or "" for text in texts))
        batches = list(read_documents(shard(path)))
        assert sum(batch.source_bytes for batch in batches) == path.stat().st_size

    def test_the_digest_of_the_text_does_not_depend_on_the_container(self, tmp_path: Path) -> None:
        texts = ["one", "zwei ü", "", "drei\n"]
        write_parquet(tmp_path / "a.parquet", list(texts))
        (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        digests = []
        for name in ("a.parquet", "a.jsonl"):
            digest = TextDigest()
            for text in texts_of(tmp_path / name):
                digest.update(text)
            digests.append(digest.hexdigest())
        assert digests[0] == digests[1]
        assert digest.documents == 4
        assert digest.bytes == len("".join(texts).encode())

    def test_where_one_document_ends_matters_to_the_digest(self) -> None:
        first, second = TextDigest(), TextDigest()
        for text in ("ab", "c"):
            first.update(text)
        for text in ("a", "bc"):
            second.update(text)
        assert first.hexdigest() != second.hexdigest()

    @pytest.mark.skipif(not WIKIPEDIA.is_dir(), reason="the shared text shards are not on this machine")
    def test_a_shard_of_the_public_shape_can_be_read(self) -> None:
        split = split_folder(WIKIPEDIA)
        first = next(read_documents(split.train[0]))
        assert split.val[0].name == "shard_00003.parquet"
        assert len(first.texts) == 1024
        assert all(first.texts)


class TestErrors:
    def test_a_row_without_text_is_named(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", ["x", "y", None])
        with pytest.raises(DataError, match=r"a\.parquet: row 2 has no text"):
            texts_of(tmp_path / "a.parquet")

    def test_a_missing_column_is_named_with_those_that_are_there(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", ["x"], column="content")
        with pytest.raises(DataError, match=r"a\.parquet has no column `text`; it has content, other"):
            texts_of(tmp_path / "a.parquet")

    def test_a_truncated_parquet_file_is_named(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", ["x"] * 100)
        whole = (tmp_path / "a.parquet").read_bytes()
        (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
            texts_of(tmp_path / "a.parquet")

    @pytest.mark.parametrize("line", ["not json", '{"body": "x"}', '["text"]', '{"text": 3}', "7"])
    def test_a_bad_line_is_named(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
        with pytest.raises(DataError, match=r"a\.jsonl:2: expected a JSON object with a string"):
            texts_of(tmp_path / "a.jsonl")

    def test_half_a_surrogate_pair_is_refused_where_it_stands(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "\\ud800"}\n')
        with pytest.raises(DataError, match=r"a\.jsonl:1: the text holds half of a surrogate pair"):
            texts_of(tmp_path / "a.jsonl")

    def test_text_that_is_not_utf8_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
        with pytest.raises(DataError, match=r"a\.txt cannot be read"):
            texts_of(tmp_path / "a.txt")
