"""Per-example outcomes as a parquet file: what a reader needs to recompute every figure, or to compare two models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from baseline.data.durable import whole_file
from harness.errors import UsageProblem
from harness.evaluate.core.items import Outcome

SCHEMA_VERSION = 1
VERSION_KEY = b"core_outcomes_version"
PROVENANCE_KEY = b"core_provenance"
COLUMNS = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("example", pa.int32(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("choice", pa.int16()),
        pa.field("mean_losses", pa.list_(pa.float64()), nullable=False),
    ]
)
"""Field for field an `Outcome`."""


def write_outcomes(path: Path, outcomes: Iterable[Outcome], provenance: Mapping[str, str]) -> None:
    """Write outcomes in their order, whole or not at all. `provenance` says what was evaluated, in names and values of the caller."""
    rows = list(outcomes)
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS.names}
    metadata = {VERSION_KEY: str(SCHEMA_VERSION).encode(), PROVENANCE_KEY: json.dumps(dict(provenance), sort_keys=True).encode()}
    table = pa.table(columns, schema=COLUMNS.with_metadata(metadata))
    with whole_file(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_outcomes(path: Path) -> tuple[dict[str, list[Outcome]], dict[str, str]]:
    """(label -> its outcomes, provenance) of a file that `write_outcomes` wrote. Raises UsageProblem when it is none."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UsageProblem(f"cannot be read: {error}", where=str(path), mend="give a file of outcomes that `speedrun eval` wrote") from None
    metadata = table.schema.metadata or {}
    version = metadata.get(VERSION_KEY, b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION) or not table.schema.equals(COLUMNS):
        raise UsageProblem(
            f"holds outcomes of version {version}, and version {SCHEMA_VERSION} is read", where=str(path), mend="evaluate the model again"
        )
    outcomes: dict[str, list[Outcome]] = {}
    for row in table.to_pylist():
        outcome = Outcome(**{**row, "mean_losses": tuple(row["mean_losses"])})
        outcomes.setdefault(outcome.task, []).append(outcome)
    return outcomes, json.loads(metadata[PROVENANCE_KEY])
