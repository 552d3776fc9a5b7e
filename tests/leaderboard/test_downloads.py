"""What programs read: tables, index, copies of the documents, and the feed."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import pyarrow.parquet as pq

ATOM = "{http://www.w3.org/2005/Atom}"


def test_tables_are_the_same_as_csv_json_and_parquet(site):
    for name in ("entries", "runs", "findings", "reported", "cost"):
        rows = json.loads((site / "data" / f"{name}.json").read_text())
        with (site / "data" / f"{name}.csv").open(newline="") as file:
            listed = list(csv.DictReader(file))
        assert pq.read_table(site / "data" / f"{name}.parquet").to_pylist() == rows
        assert len(listed) == len(rows) > 0
        assert list(listed[0]) == list(rows[0])


def test_the_run_table_has_every_run_also_void_ones_and_calibrations(site, results):
    rows = json.loads((site / "data" / "runs.json").read_text())
    expected = sum(len(results.runs(e.id)) for e in results.entries()) + sum(len(c.runs) for c in results.calibrations())
    assert len(rows) == expected
    assert {row["role"] for row in rows} == {"entry", "reference", "calibration"}
    assert all(row["void_reason"] for row in rows if row["state"] == "void")


def test_the_index_leads_to_every_document(site, results):
    index = json.loads((site / "index.json").read_text())
    assert {entry["id"] for entry in index["entries"]} == {entry.id for entry in results.entries()}
    paths = [path for entry in index["entries"] for path in [entry["page"], entry["document"], *entry["runs"], *entry["verdicts"]]]
    paths += [path for files in index["tables"].values() for path in files] + [track["page"] for track in index["tracks"]]
    assert [path for path in paths if not (site / path).is_file()] == []


def test_raw_documents_are_copied_byte_by_byte(site, results):
    for path, content in results.documents().items():
        served = site / "data" / (f"{path}.txt" if "/submission/" in path else path)
        assert served.read_bytes() == content


def test_the_feed_has_one_item_per_change_newest_first(site, results):
    feed = ElementTree.parse(site / "feed.xml").getroot()
    stamps = [entry.findtext(f"{ATOM}updated") for entry in feed.iter(f"{ATOM}entry")]
    ids = [entry.findtext(f"{ATOM}id") for entry in feed.iter(f"{ATOM}entry")]
    assert len(stamps) == sum(len(entry.history) for entry in results.entries())
    assert stamps == sorted(stamps, reverse=True)
    assert len(set(ids)) == len(ids)
    assert all((site / link.get("href")).is_file() for link in feed.iter(f"{ATOM}link"))
