"""A run's loss curve, and its parquet form beside `run.json`."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from leaderboard.documents import DatabaseError

SCHEMA = pa.schema([("step", pa.int32()), ("loss", pa.float32()), ("at_ns", pa.int64())])


@dataclass(frozen=True, slots=True)
class Curve:
    """One row per logged step. Three columns of equal length N; N is 0 for a run that never made a step."""

    step: tuple[int, ...]
    """Optimizer steps done, int32."""
    loss: tuple[float, ...]
    """Training loss in nats per token, float32. A diverged run may hold NaN."""
    at_ns: tuple[int, ...]
    """Nanoseconds on the run's clock, the one of `Event.at_ns`: 0 at the start of the run, int64."""

    def __post_init__(self) -> None:
        if not len(self.step) == len(self.loss) == len(self.at_ns):
            sizes = f"step {len(self.step)}, loss {len(self.loss)}, at_ns {len(self.at_ns)}"
            raise ValueError(f"a curve's columns must have equal length, but have {sizes}")

    def packed(self) -> bytes:
        """The rows as bytes, losses rounded to float32: equal bytes are equal curves, NaN included."""
        rows = zip(self.step, self.loss, self.at_ns, strict=True)
        return b"".join(struct.pack("<ifq", step, loss, at_ns) for step, loss, at_ns in rows)


def encode_curve(curve: Curve) -> bytes:
    """The curve as parquet; equal curves give equal bytes under one pyarrow version."""
    table = pa.table([curve.step, curve.loss, curve.at_ns], schema=SCHEMA)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    return sink.getvalue()


def decode_curve(path: Path) -> Curve:
    """Read a curve. DatabaseError when the file is missing, is not parquet, or has other columns."""
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()))
    except FileNotFoundError:
        raise DatabaseError(f"{path}: the file is missing; restore it from version control or a copy") from None
    except (OSError, pa.ArrowException) as error:
        raise DatabaseError(f"{path}: is not readable parquet ({_line(error)}); restore the file from version control") from None
    if not table.schema.equals(SCHEMA) or any(column.null_count for column in table.columns):
        found = ", ".join(f"{field.name} {field.type}" for field in table.schema)
        raise DatabaseError(f"{path}: columns are {found}; a curve has step int32, loss float, at_ns int64, without nulls")
    return Curve(*(tuple(table.column(name).to_pylist()) for name in SCHEMA.names))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
