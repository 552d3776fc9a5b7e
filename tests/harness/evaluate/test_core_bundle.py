"""A bundle is used only when every byte of it is the pinned one; what is wrong is named with its file, and its line where it has one."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import MachineLacks, SpeedrunError, UsageProblem
from harness.evaluate.core.bundle import ZIP_NAME, open_bundle
from harness.evaluate.core.examples import LanguageModeling, MultipleChoice, Schema, parse_examples
from harness.evaluate.core.items import Kind
from harness.evaluate.core.tasks import CORE_TASKS, Task, read_table
from tests.harness.evaluate.core_samples import (
    CHOICES,
    PASSAGES,
    REAL_BUNDLE,
    SCHEMAS,
    Rows,
    content_of,
    needs_real_bundle,
    task_of,
    write_folder,
    write_zip,
)

TASK = task_of("multiple_choice", CHOICES)
CONTENT = content_of(CHOICES)
FILES = {TASK.file: CONTENT}

Place = Callable[[Path, dict[str, bytes]], Path]


def in_folder(root: Path, files: dict[str, bytes]) -> Path:
    return write_folder(root / "bundle", files)


def in_unpacked_zip(root: Path, files: dict[str, bytes]) -> Path:
    write_folder(root / "bundle" / "eval_bundle", files)
    return root / "bundle"


def in_zip(root: Path, files: dict[str, bytes]) -> Path:
    return write_zip(root / "some.zip", files)


def in_default_place(root: Path, files: dict[str, bytes]) -> Path:
    return write_zip(root / "bundle" / ZIP_NAME, files).parent


def in_bare_zip(root: Path, files: dict[str, bytes]) -> Path:
    return write_zip(root / "bare.zip", files, prefix="eval_data/")


PLACES: list[Place] = [in_folder, in_unpacked_zip, in_zip, in_default_place, in_bare_zip]


@pytest.mark.parametrize("place", PLACES)
def test_an_intact_bundle_gives_its_examples_in_file_order(tmp_path: Path, place: Place) -> None:
    bundle = open_bundle(place(tmp_path, FILES))
    bundle.verify((TASK,))
    examples = bundle.examples(TASK)
    assert examples[1] == MultipleChoice(2, "Which one is warm?", ("ice", "the sun", "the moon"), 1)
    assert [example.line for example in examples] == [1, 2, 3, 4]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        (CONTENT[:-7], rf"is cut short: {len(CONTENT) - 7} of {len(CONTENT)} bytes"),
        (CONTENT + b"\n", rf"is longer than the pinned {len(CONTENT)} bytes"),
        (CONTENT.replace(b"ice", b"Ice"), r"differs from the pinned file: SHA-256 [0-9a-f]{12}…, not " + TASK.sha256[:12]),
        (None, "is missing; `--core DIR`"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, place: Place, damaged: bytes | None, problem: str) -> None:
    bundle = open_bundle(place(tmp_path, {"tiny/other.jsonl": b"", **({} if damaged is None else {TASK.file: damaged})}))
    for use in (lambda: bundle.verify((TASK,)), lambda: bundle.examples(TASK)):
        with pytest.raises(MachineLacks, match=rf"eval_data/tiny/tiny\.jsonl: {problem}"):
            use()


def test_a_missing_bundle_says_how_to_bring_it(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match=r"nowhere: the examples of CORE are missing: the folder is not there; .*--core DIR"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(MachineLacks, match=r"the folder holds neither eval_data/ nor eval_bundle.zip"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04" + bytes(30)])
def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match=r"bundle\.zip: is no whole zip file"):
        open_bundle(path)


# ---------------------------------------------------------------------- hostile zips


def test_members_that_point_outside_are_never_written(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "in" / "slip.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../../outside", "/tmp/absolute-outside", "eval_bundle/eval_data/../../../outside"):
            archive.writestr(name, b"escaped")
    before = sorted(tmp_path.rglob("*"))
    bundle = open_bundle(path)
    bundle.verify((TASK,))
    assert len(bundle.examples(TASK)) == 4
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bomb_is_read_no_further_than_the_pinned_length(tmp_path: Path) -> None:
    """300 MB of blanks in 300 KB: refused for being longer, with no more than the pinned bytes and one taken out."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"eval_data/{TASK.file}", "w") as member:
        for _ in range(300):
            member.write(b" " * 1_000_000)
    with pytest.raises(MachineLacks, match="is longer than the pinned"):
        open_bundle(path).verify((TASK,))


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"eval_data/{TASK.file}", CONTENT)
    content = bytearray(buffer.getvalue())
    central = content.rindex(b"PK\x01\x02")
    struct.pack_into("<II", content, central + 20, 10, len(CONTENT))
    path = tmp_path / "lies.zip"
    path.write_bytes(content)
    with pytest.raises(MachineLacks, match=r"tiny\.jsonl: (is cut short|cannot be read)"):
        open_bundle(path).verify((TASK,))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4), st.integers(0, 10_000))
def test_flipped_bytes_in_a_zip_are_an_error_in_words_or_do_not_matter(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(write_zip(tmp_path / "whole.zip", FILES).read_bytes())
    for at, mask in flips:
        content[at % len(content)] ^= mask
    path = tmp_path / "flipped.zip"
    path.write_bytes(content[: max(cut, 200)])
    problem = None
    try:
        content = bytearray(open_bundle(path).read(TASK))
    except SpeedrunError as error:
        problem = str(error)
    assert content == CONTENT if problem is None else "flipped.zip" in problem


# ---------------------------------------------------------------------- malformed rows


@pytest.mark.parametrize(
    ("kind", "line", "problem"),
    [
        ("multiple_choice", b'{"query": "q", "gold": 0}', "`choices` is missing"),
        ("multiple_choice", b'{"query": "q", "choices": ["a", "b"]}', "`gold` is missing"),
        ("multiple_choice", b'{"query": "q", "choices": ["a", "b"], "gold": 2}', "`gold` is 2, and the options are 0 to 1"),
        ("multiple_choice", b'{"query": "q", "choices": ["a", "b"], "gold": -1}', "`gold` is -1"),
        ("multiple_choice", b'{"query": "q", "choices": ["a", "b"], "gold": true}', "`gold` is True"),
        ("multiple_choice", b'{"query": "q", "choices": ["a", "b"], "gold": "1"}', "`gold` must be of type int"),
        ("multiple_choice", b'{"query": "q", "choices": ["a"], "gold": 0}', "`choices` must be a list of two texts or more"),
        ("multiple_choice", b'{"query": "q", "choices": ["a", 2], "gold": 0}', "`choices` must be a list of two texts or more"),
        ("multiple_choice", b'{"query": null, "choices": ["a", "b"], "gold": 0}', "`query` must be of type str"),
        ("schema", b'{"context_options": "ab", "continuation": "c", "gold": 0}', "`context_options` must be of type list"),
        ("schema", b'{"context_options": ["a", "b"], "gold": 0}', "`continuation` is missing"),
        ("language_modeling", b'{"context": "a", "continuation": "\\ud800"}', "`continuation` holds half of a surrogate pair"),
        ("language_modeling", b'["a", "b"]', "not a JSON object"),
        ("language_modeling", b'{"context": "a"', "Expecting ',' delimiter"),
        ("language_modeling", b"\xff\xfe", "'utf-?8' codec"),
        ("language_modeling", b"[" * 100_000, "."),
        ("language_modeling", b"", "Expecting value"),
    ],
)
def test_a_malformed_line_is_named_with_its_number(kind: Kind, line: bytes, problem: str) -> None:
    good: dict[Kind, Rows] = {"multiple_choice": CHOICES, "schema": SCHEMAS, "language_modeling": PASSAGES}
    content = content_of(good[kind][:1]) + line + b"\n" + content_of(good[kind][1:2])
    task = task_of(kind, good[kind][:3])
    with pytest.raises(MachineLacks, match=rf"^file\.jsonl:2: is no {kind} example: {problem}.*; mend or remove the line"):
        parse_examples(task, content, "file.jsonl")


def test_a_giant_line_is_refused_unread() -> None:
    content = json.dumps({"context": "x" * 2_000_000, "continuation": "y"}).encode()
    with pytest.raises(MachineLacks, match=r"^file\.jsonl:1: the line has 2,000,\d{3} bytes, and at most 1,048,576 are read"):
        parse_examples(task_of("language_modeling", PASSAGES[:1]), content, "file.jsonl")


def test_a_missing_line_is_noticed() -> None:
    with pytest.raises(MachineLacks, match=r"^file\.jsonl: has 3 lines, and 4 belong there"):
        parse_examples(TASK, content_of(CHOICES[:3]), "file.jsonl")


def test_a_line_end_within_a_text_is_no_line_end_of_the_file() -> None:
    rows: Rows = [{"context": "a\u2028b\x85c\r", "continuation": "d\x0be"}]
    assert parse_examples(task_of("language_modeling", rows), content_of(rows), "here") == [
        LanguageModeling(1, "a\u2028b\x85c\r", "d\x0be")
    ]


def test_a_schema_is_read() -> None:
    first = parse_examples(task_of("schema", SCHEMAS), content_of(SCHEMAS), "here")[0]
    assert isinstance(first, Schema)
    assert (first.context_options[1], first.continuation, first.gold) == ("The cup fell on the floor because the floor", "was wet.", 1)


# ---------------------------------------------------------------------- the real one


@needs_real_bundle
def test_the_real_bundle_is_the_pinned_one() -> None:
    open_bundle(REAL_BUNDLE).verify(CORE_TASKS)


@needs_real_bundle
@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_every_real_line_is_an_example(task: Task) -> None:
    assert len(open_bundle(REAL_BUNDLE).examples(task)) == task.rows


def test_a_table_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text('[[task]]\nlabel = "x"\ncolour = "red"\n')
    with pytest.raises(TypeError, match="colour"):
        read_table(path)
