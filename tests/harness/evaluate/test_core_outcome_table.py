"""Outcomes survive the way through a file, and any other file is refused in words."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UsageProblem
from harness.evaluate.core.items import Outcome
from harness.evaluate.core.outcome_table import COLUMNS, SCHEMA_VERSION, VERSION_KEY, read_outcomes, write_outcomes

OUTCOMES = [
    Outcome("copa", 0, True, 1, (2.5, 1.25)),
    Outcome("copa", 1, False, 0, (0.1, math.inf)),
    Outcome("squad", 0, True, None, (0.5,)),
]


def test_outcomes_come_back_by_task_with_their_provenance(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "outcomes.parquet", OUTCOMES, {"model": "gpt2", "tokenizer": "abc"})
    outcomes, provenance = read_outcomes(tmp_path / "outcomes.parquet")
    assert outcomes == {"copa": OUTCOMES[:2], "squad": OUTCOMES[2:]}
    assert provenance == {"model": "gpt2", "tokenizer": "abc"}
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.parquet"]


ANY = st.builds(
    Outcome,
    st.sampled_from(["a", "b"]),
    st.integers(0, 2**31 - 1),
    st.booleans(),
    st.none() | st.integers(0, 100),
    st.lists(st.floats(allow_nan=False), max_size=4).map(tuple),
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY, max_size=6))
def test_any_outcomes_come_back(tmp_path: Path, outcomes: list[Outcome]) -> None:
    write_outcomes(tmp_path / "o.parquet", outcomes, {})
    read, _ = read_outcomes(tmp_path / "o.parquet")
    assert [outcome for label in read for outcome in read[label]] == sorted(outcomes, key=lambda one: list(read).index(one.task))


def test_a_loss_that_is_no_number_stays_none(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "o.parquet", [Outcome("piqa", 3, False, 0, (math.nan, 1.0))], {})
    read, _ = read_outcomes(tmp_path / "o.parquet")
    assert math.isnan(read["piqa"][0].mean_losses[0])


def test_the_same_outcomes_are_the_same_bytes(tmp_path: Path) -> None:
    for name, provenance in (("one", {"a": "1", "b": "2"}), ("two", {"b": "2", "a": "1"})):
        write_outcomes(tmp_path / name, OUTCOMES, provenance)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    table = pa.table({name: [] for name in COLUMNS.names}, schema=COLUMNS.with_metadata({VERSION_KEY: b"99"}))
    pq.write_table(table, path)
    with pytest.raises(UsageProblem, match=rf"o\.parquet: holds outcomes of version 99, and version {SCHEMA_VERSION} is read"):
        read_outcomes(path)


@pytest.mark.parametrize("content", [b"", b"PAR1 nothing"])
def test_a_file_that_holds_no_outcomes_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "o.parquet"
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match=r"o\.parquet: cannot be read"):
        read_outcomes(path)


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "o.parquet")
    with pytest.raises(UsageProblem, match="holds outcomes of version none"):
        read_outcomes(tmp_path / "o.parquet")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"nowhere\.parquet: cannot be read"):
        read_outcomes(tmp_path / "nowhere.parquet")
