"""The site's tables as files: the same rows as CSV, JSON and parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from harness.record import Finding, Run
from leaderboard.results import utc
from leaderboard.site.archive import Archive, Placed
from leaderboard.site.page import by_line, entry_path

Value = str | int | float | bool | None
Kind = Literal["text", "whole", "number"]
_PARQUET_TYPES = {"text": pa.string(), "whole": pa.int64(), "number": pa.float64()}
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_PHASES = ("staging_s", "warmup_s", "initialise_s", "timed_s", "evaluation_s", "closing_s", "wall_s")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns. `None` is an empty cell, null and null."""

    name: str
    columns: dict[str, Kind]
    rows: tuple[tuple[Value, ...], ...]

    def files(self) -> dict[str, bytes]:
        """Path in the site -> content."""
        return {f"data/{self.name}.csv": self._csv(), f"data/{self.name}.json": self._json(), f"data/{self.name}.parquet": self._parquet()}

    def _csv(self) -> bytes:
        sink = io.StringIO()
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return sink.getvalue().encode()

    def _json(self) -> bytes:
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def _parquet(self) -> bytes:
        schema = pa.schema([(name, _PARQUET_TYPES[kind]) for name, kind in self.columns.items()])
        values = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(values, schema=schema), sink, compression="zstd", store_schema=False)
        return sink.getvalue()


def _cell(value: Value) -> Value:
    """A text that a spreadsheet would run as a formula is quoted, as entrants write some of these texts."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def tables(archive: Archive) -> tuple[Table, ...]:
    """Entries, runs, findings, figures from elsewhere, and the cost line."""
    return (_entries(archive), _runs(archive), _findings(archive.findings), _reported(archive), _cost(archive))


def _entries(archive: Archive) -> Table:
    columns: dict[str, Kind] = {
        **dict.fromkeys(("id", "track", "track_version"), "text"),
        "rank": "whole",
        **dict.fromkeys(("name", "title", "status", "created_at", "authors", "licence", "parent", "slots"), "text"),
        "diff_lines": "whole",
        **dict.fromkeys(("validity", "superiority", "against"), "text"),
        **dict.fromkeys(("mean_timed_s", "ratio", "ratio_low", "ratio_high", "mean_val_bpb", "core", "run_usd", "verify_usd"), "number"),
        **dict.fromkeys(("runs", "void_runs"), "whole"),
        "page": "text",
    }
    placed = [p for track in archive.tracks for version in archive.versions(track) for p in archive.table(track.name, version)]
    return Table("entries", columns, tuple(_entry_row(p) for p in placed))


def _entry_row(placed: Placed) -> tuple[Value, ...]:
    entry, verdict = placed.dossier.entry, placed.dossier.headline
    own = [run for run in placed.dossier.runs if run.role != "reference"]
    validity = verdict.validity if verdict else None
    superiority = verdict.superiority if verdict else None
    cost = verdict.cost if verdict else None
    return (
        *(
            entry.id,
            entry.track,
            entry.track_version,
            placed.rank,
            entry.name,
            entry.title,
            entry.status,
            utc(entry.created_at).isoformat(),
        ),
        *(by_line(entry.authors), entry.licence, entry.parent, " ".join(entry.slots), entry.diff_lines),
        validity.verdict if validity else None,
        *((superiority.verdict, superiority.against) if superiority else (None, None)),
        verdict.mean_timed_s if verdict else None,
        *((superiority.ratio, superiority.low, superiority.high) if superiority else (None, None, None)),
        verdict.mean_val_bpb if verdict else None,
        validity.mean if validity and validity.metric == "core" else None,
        *((cost.run_usd, cost.verify_usd) if cost else (None, None)),
        len(own),
        sum(run.state == "void" for run in own),
        entry_path(entry),
    )


def _runs(archive: Archive) -> Table:
    columns: dict[str, Kind] = {
        **dict.fromkeys(("id", "entry", "track", "track_version", "submission", "role"), "text"),
        **dict.fromkeys(("pair", "seed_index", "seed"), "whole"),
        **dict.fromkeys(("started_at", "state", "void_reason"), "text"),
        **dict.fromkeys(("world_size", "steps", "tokens"), "whole"),
        **dict.fromkeys(("val_bpb", "core", *_PHASES), "number"),
        **dict.fromkeys(("sandbox", "accelerators", "torch"), "text"),
        **dict.fromkeys(("peak_memory_bytes", "parameters"), "whole"),
        "final_weights": "text",
    }
    rows = [_run_row(run, d.entry.id) for d in archive.dossiers for run in d.runs]
    for c in archive.calibrations:
        rows += [_run_row(run, None) for run in archive.results.calibration_runs(c.track, c.track_version)]
    return Table("runs", columns, tuple(rows))


def _run_row(run: Run, entry_id: str | None) -> tuple[Value, ...]:
    phases = run.phases
    return (
        *(run.id, entry_id, run.track, run.track_version, run.submission, run.role, run.pair, run.seed_index, run.seed),
        *(utc(run.started_at).isoformat(), run.state, run.void_reason, run.world_size, run.steps, run.tokens),
        *((run.scores.val_bpb, run.scores.core) if run.scores else (None, None)),
        *(getattr(phases, name) if phases else None for name in _PHASES),
        *(run.sandbox, "; ".join(run.environment.accelerators) or None, run.environment.packages.get("torch")),
        *(run.peak_memory_bytes, run.parameters, run.digests.final_weights),
    )


def _findings(findings: Sequence[Finding]) -> Table:
    """One row per effect; a finding without figures has one row."""
    columns: dict[str, Kind] = {
        **dict.fromkeys(("id", "date", "idea", "verdict", "kind", "scale", "track"), "text"),
        "runs": "whole",
        "quantity": "text",
        **dict.fromkeys(("value", "low", "high", "level"), "number"),
        **dict.fromkeys(("unit", "summary", "source", "source_url"), "text"),
    }
    rows: list[tuple[Value, ...]] = []
    for f in findings:
        head = (f.id, f.date, f.idea, f.verdict, f.kind, f.scale, f.track, f.runs)
        tail = (f.summary, f.source.title, f.source.url)
        effects: list[tuple[Value, ...]] = [(e.quantity, e.value, e.low, e.high, e.level, e.unit) for e in f.effects]
        rows += [(*head, *effect, *tail) for effect in effects or [(None,) * 6]]
    return Table("findings", columns, tuple(rows))


def _reported(archive: Archive) -> Table:
    columns: dict[str, Kind] = {
        **dict.fromkeys(("id", "track", "date", "title", "authors"), "text"),
        **dict.fromkeys(("hours", "cost_usd", "mean_core"), "number"),
        "runs": "whole",
        "val_bpb": "number",
        **dict.fromkeys(("core", "accepted", "source", "source_url"), "text"),
    }
    rows = tuple(
        (
            *(r.id, r.track, r.date, r.title, by_line(r.authors), r.hours, r.cost_usd),
            sum(r.core) / len(r.core) if r.core else None,
            *(r.runs, r.val_bpb, " ".join(str(value) for value in r.core), "yes" if r.accepted else "no", r.source.title, r.source.url),
        )
        for r in archive.reported
    )
    return Table("reported", columns, rows)


def _cost(archive: Archive) -> Table:
    columns: dict[str, Kind] = {
        **dict.fromkeys(("date", "title"), "text"),
        **dict.fromkeys(("hours", "cost_usd"), "number"),
        **dict.fromkeys(("hardware", "source", "source_url"), "text"),
    }
    rows = tuple((p.date, p.title, p.hours, p.cost_usd, p.hardware, p.source.title, p.source.url) for p in archive.cost_history)
    return Table("cost", columns, rows)
