"""The results database: written once, readable after any crash, and clear about what is broken."""

from __future__ import annotations

import io
import json
import math
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.record import StatusChange
from leaderboard.curve import Curve, decode_curve, encode_curve
from leaderboard.database import Database
from leaderboard.documents import DatabaseError
from leaderboard.merged import MergedDatabase
from tests.leaderboard import samples

REPOSITORY = Path(__file__).parents[2]
FILES = {"submission.toml": 'name = "x"\n', "model.py": "# naïve\n"}


@pytest.fixture
def kept(db):
    """A database with one entry, and that entry."""
    entry = samples.make_entry(samples.NANO, "baseline")
    db.add_entry(entry, FILES)
    return db, entry


# ---------------------------------------------------------------------- what goes in comes out


def test_an_entry_comes_back_with_its_files(kept):
    db, entry = kept
    assert db.entries() == db.entries("nano") == (entry,)
    assert db.entry(entry.id) == entry
    assert db.submission(entry.id) == FILES
    assert db.entries("gpt2") == ()


def test_runs_verdicts_and_curves_come_back(kept):
    db, entry = kept
    run, curve = samples.make_run(samples.NANO, "baseline", 0)
    void, _ = samples.make_run(samples.NANO, "baseline", 1, void="a rank died")
    db.add_run(entry.id, run, curve)
    db.add_run(entry.id, void, Curve((), (), ()))
    verdict = samples.make_verdict(samples.NANO, [run], name="submit-1", against=entry.id)
    db.add_verdict(entry.id, verdict)
    assert db.runs(entry.id) == (run, void)
    assert db.verdicts(entry.id) == (verdict,)
    assert db.curve(entry.id, run.id).packed() == curve.packed()
    assert db.curve(entry.id, void.id).step == ()


def test_a_calibration_comes_back_with_its_runs(db):
    calibration = samples.add_calibration(db, samples.NANO)
    assert db.calibration("nano", "nano-v1") == calibration
    assert db.calibrations() == db.calibrations("nano") == (calibration,)
    assert [run.id for run in db.calibration_runs("nano", "nano-v1")] == list(calibration.runs)
    assert db.calibration_curve("nano", "nano-v1", calibration.runs[0]).step[0] == 0
    assert db.calibration("nano", "nano-v2") is None


def test_findings_and_reported_entries_come_back_oldest_first(db):
    late, early = samples.make_finding("late", date="2026-09-02"), samples.make_finding("early", date="2026-01-01")
    db.add_finding(late)
    db.add_finding(early)
    db.add_reported(samples.make_reported())
    assert db.findings() == (early, late)
    assert db.reported() == (samples.make_reported(),)


def test_the_text_of_a_document_is_fixed(kept):
    db, entry = kept
    text = (db.entry_folder(entry.id) / "entry.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_an_empty_root_is_an_empty_database(tmp_path):
    db = Database(tmp_path / "nowhere")
    assert db.entries() == db.findings() == db.reported() == db.cost_history() == db.calibrations() == ()
    assert db.documents() == {}
    assert not (tmp_path / "nowhere").exists()


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(width=32), st.integers(0, 2**62)), max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_curve_survives_parquet_bit_by_bit(tmp_path, rows):
    curve = Curve(tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows))
    path = tmp_path / "curve.parquet"
    path.write_bytes(encode_curve(curve))
    assert decode_curve(path).packed() == curve.packed()
    assert encode_curve(decode_curve(path)) == encode_curve(curve)


def test_a_curve_needs_columns_of_one_length():
    with pytest.raises(ValueError, match="equal length"):
        Curve((1, 2), (0.5,), (1, 2))


# ---------------------------------------------------------------------- nothing is overwritten


def test_adding_the_same_again_changes_nothing(kept):
    db, entry = kept
    run, curve = samples.make_run(samples.NANO, "baseline", 0)
    verdict = samples.make_verdict(samples.NANO, [run], name="submit-1", against=entry.id)
    seen = []
    for _ in range(2):
        db.add_run(entry.id, run, curve)
        db.add_verdict(entry.id, verdict)
        db.add_entry(entry, FILES)
        samples.add_calibration(db, samples.NANO)
        seen.append(db.documents())
    assert seen[0] == seen[1]


def test_adding_an_entry_again_keeps_its_status(kept):
    db, entry = kept
    db.set_status(entry.id, StatusChange(status="checked", at=datetime(2026, 9, 2, tzinfo=UTC), reason="rules", by="node-7"))
    db.add_entry(entry, FILES)
    assert db.entry(entry.id).status == "checked"


@pytest.mark.parametrize("change", ["run", "curve"])
def test_another_run_under_a_taken_id_is_refused(kept, change):
    db, entry = kept
    run, curve = samples.make_run(samples.NANO, "baseline", 0)
    db.add_run(entry.id, run, curve)
    other_run = run.model_copy(update={"seed": run.seed + 1}) if change == "run" else run
    other_curve = Curve(curve.step, (9.0, *curve.loss[1:]), curve.at_ns) if change == "curve" else curve
    with pytest.raises(DatabaseError, match="another run is kept under this id"):
        db.add_run(entry.id, other_run, other_curve)
    assert db.runs(entry.id) == (run,)


def test_other_verdicts_findings_and_calibrations_under_taken_ids_are_refused(kept):
    db, entry = kept
    run, curve = samples.make_run(samples.NANO, "baseline", 0)
    verdict = samples.make_verdict(samples.NANO, [run], name="submit-1", against=entry.id)
    db.add_verdict(entry.id, verdict)
    db.add_finding(samples.make_finding())
    calibration = samples.add_calibration(db, samples.NANO, seeds=1)
    with pytest.raises(DatabaseError, match="another document"):
        db.add_verdict(entry.id, verdict.model_copy(update={"note": "changed"}))
    with pytest.raises(DatabaseError, match="another document"):
        db.add_finding(samples.make_finding(summary="changed"))
    changed = calibration.model_copy(update={"mean": 0.0, "runs": (run.id,)})
    with pytest.raises(DatabaseError, match="another calibration"):
        db.add_calibration(changed, [(run, curve)])


def test_another_submission_under_a_taken_entry_id_is_refused(kept):
    db, entry = kept
    with pytest.raises(DatabaseError, match="another entry"):
        db.add_entry(entry, {**FILES, "model.py": "changed"})
    with pytest.raises(DatabaseError, match="another entry"):
        db.add_entry(samples.make_entry(samples.GPT2, "baseline", id=entry.id), FILES)


def test_a_calibration_names_exactly_the_runs_it_brings(db):
    run, curve = samples.make_run(samples.NANO, "baseline", 0)
    calibration = samples.add_calibration(Database(db.root / "other"), samples.NANO)
    with pytest.raises(DatabaseError, match="field runs"):
        db.add_calibration(calibration, [(run, curve)])


def test_a_status_is_appended(kept):
    db, entry = kept
    change = StatusChange(status="reproduced", at=datetime(2026, 9, 3, tzinfo=UTC), reason="two nodes agree", by="node-9")
    assert db.set_status(entry.id, change).status == "reproduced"
    assert db.entry(entry.id).history == (*entry.history, change)


# ---------------------------------------------------------------------- names cannot leave the root


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", ".hidden", "", "A", "a\n"])
def test_an_id_cannot_be_a_path(db, name):
    with pytest.raises(DatabaseError, match="is not an id"):
        db.entry(name)
    with pytest.raises(DatabaseError, match="is not an id"):
        db.calibration("nano", name)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", ".git", "a//b", "a\\b", "a b", "x\n", ""])
def test_a_submission_file_cannot_leave_its_folder(db, name):
    with pytest.raises(DatabaseError, match="not a plain relative name"):
        db.add_entry(samples.make_entry(samples.NANO, "baseline"), {name: "x"})
    assert db.entries() == ()


def test_links_in_the_folders_are_not_followed(kept, tmp_path):
    db, entry = kept
    (tmp_path / "secret").write_text("secret")
    (db.entry_folder(entry.id) / "submission" / "leak.py").symlink_to(tmp_path / "secret")
    (db.root / "records" / "nano" / "linked-1").symlink_to(tmp_path)
    assert "leak.py" not in db.submission(entry.id)
    assert not any(b"secret" in content for content in db.documents().values())
    assert not db.has_entry("linked-1")


# ---------------------------------------------------------------------- what is broken is named


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"licence": "MIT"', '"licence": 3', "field licence"),
        ('"diff_lines": 14', '"diff_lines": "14"', "field diff_lines"),
        ('"diff_lines": 14', '"diff_lines": 14, "rank": 1', "field rank"),
        ('"schema_version": 1', '"schema_version": 2', "field schema_version"),
        ('"status": "claimed"', '"status": "famous"', "field history.0.status"),
        ('"track": "nano"', '"track": "gpt2"', "field track"),
        ('"id": "baseline-', '"id": "better-', "field id"),
        ("{\n", "", "the whole document"),
    ],
)
def test_a_tampered_document_is_named_with_its_field_and_the_mend(kept, old, new, field):
    db, entry = kept
    path = db.entry_folder(entry.id) / "entry.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DatabaseError) as caught:
        db.entries()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert field in message
    assert "correct" in message
    assert "\n" not in message


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_gives_a_database_error_or_a_valid_document(kept, data):
    db, entry = kept
    path = db.entry_folder(entry.id) / "entry.json"
    original = path.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    path.write_bytes(original[:place] + bytes([data.draw(st.integers(0, 255))]) + original[place + 1 :])
    with suppress(DatabaseError):
        assert db.entry(entry.id).id == entry.id
    path.write_bytes(original)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "columns", "missing"])
def test_a_damaged_curve_is_named(kept, damage):
    db, entry = kept
    run, curve = samples.make_run(samples.NANO, "baseline", 0)
    db.add_run(entry.id, run, curve)
    path = db.entry_folder(entry.id) / "runs" / run.id / "curve.parquet"
    if damage == "missing":
        path.unlink()
    else:
        other = Path(__file__).read_bytes()
        path.write_bytes({"cut": path.read_bytes()[:-40], "empty": b"", "text": other, "columns": _other_parquet()}[damage])
    with pytest.raises(DatabaseError, match=r"curve\.parquet"):
        db.curve(entry.id, run.id)


def _other_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"step": [1]}), sink)
    return sink.getvalue()


def test_a_folder_without_its_document_is_named(kept):
    db, entry = kept
    (db.entry_folder(entry.id) / "runs" / "run-1").mkdir(parents=True)
    with pytest.raises(DatabaseError, match=r"run-1/run\.json: the file is missing"):
        db.runs(entry.id)


def test_an_unknown_entry_is_named(db):
    with pytest.raises(DatabaseError, match="no entry 'nobody-1'"):
        db.entry("nobody-1")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DatabaseError, match=r"cannot be written .*--db"):
            Database(root).add_finding(samples.make_finding())


# ---------------------------------------------------------------------- crashes

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {repository!r})
from harness.record import StatusChange
from leaderboard.database import Database
from tests.leaderboard import samples
db = Database(Path({root!r}))
entry = samples.make_entry(samples.NANO, "baseline")
db.add_entry(entry, {{"model.py": "# " + "x" * 200_000}})
run, curve = samples.make_run(samples.NANO, "baseline", 0)
print("ready", flush=True)
for i in range(10_000):
    db.add_run(entry.id, run.model_copy(update={{"id": f"run-{round}-{{i}}"}}), curve)
    print(f"run-{round}-{{i}}", flush=True)
    db.set_status(entry.id, StatusChange(status="checked", at=samples.DAY_ONE, reason=f"round {round} step {{i}}", by="x" * 200))
"""


def test_a_writer_killed_at_any_moment_leaves_everything_it_had_acknowledged(tmp_path):
    rng = random.Random(7)
    root, acknowledged = tmp_path / "db", []
    for round_ in range(3):
        code = WRITER.format(repository=str(REPOSITORY), root=str(root), round=round_)
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        acknowledged += [writer.stdout.readline().strip() for _ in range(rng.randint(1, 3))]
        time.sleep(rng.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.read().split("\n")[:-1]
        writer.stdout.close()
        writer.wait()
        db = Database(root)
        (entry,) = db.entries()
        assert set(acknowledged) <= {run.id for run in db.runs(entry.id)}
        assert all(db.curve(entry.id, run.id).step for run in db.runs(entry.id))
        assert len(db.submission(entry.id)["model.py"]) == 200_002


def test_a_reader_meets_the_whole_old_document_or_the_whole_new_one(kept):
    db, entry = kept
    path = db.entry_folder(entry.id) / "entry.json"
    before = path.read_bytes()
    with path.open("rb") as reader:
        db.set_status(entry.id, StatusChange(status="checked", at=datetime(2026, 9, 2, tzinfo=UTC), reason="rules", by="node-7"))
        assert reader.read() == before
    assert path.read_bytes() != before


def test_what_a_crash_left_behind_is_skipped_and_then_removed(kept):
    db, entry = kept
    runs = db.entry_folder(entry.id) / "runs"
    for folder in (runs, db.root / "records" / "nano"):
        (folder / ".writing-abc").mkdir(parents=True)
        (folder / ".writing-abc" / "run.json").write_text("{")
    (db.entry_folder(entry.id) / ".writing-xyz").write_text('{"half": ')
    assert db.entries() == (entry,)
    assert db.runs(entry.id) == ()
    assert not any("writing" in path for path in db.documents())
    run, curve = samples.make_run(samples.NANO, "baseline", 0)
    db.add_run(entry.id, run, curve)
    assert [path.name for path in runs.iterdir()] == [run.id]


def test_two_writers_at_once_lose_no_status(kept):
    db, entry = kept
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from datetime import UTC, datetime\nfrom pathlib import Path\n"
        "from harness.record import StatusChange\nfrom leaderboard.database import Database\n"
        f"db = Database(Path({str(db.root)!r}))\n"
        "for i in range(20):\n"
        f"    db.set_status({entry.id!r}, StatusChange(status='checked', at=datetime(2026, 9, 2, tzinfo=UTC), reason=str(i), by='x'))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(db.entry(entry.id).history) == 41


# ---------------------------------------------------------------------- several roots as one


def test_merged_shows_both_and_the_first_wins(tmp_path):
    local, committed = Database(tmp_path / "runs"), Database(tmp_path / "leaderboard")
    entry, other = samples.make_entry(samples.NANO, "baseline"), samples.make_entry(samples.NANO, "other", day=1)
    here, there = samples.make_run(samples.NANO, "baseline", 0), samples.make_run(samples.NANO, "baseline", 1)
    for db in (local, committed):
        db.add_entry(entry, FILES)
    committed.add_entry(other, FILES)
    local.set_status(entry.id, StatusChange(status="checked", at=datetime(2026, 9, 2, tzinfo=UTC), reason="here", by="me"))
    local.add_run(entry.id, *here)
    committed.add_run(entry.id, *there)
    local.add_verdict(entry.id, samples.make_verdict(samples.NANO, [here[0]], name="verify-1", against=entry.id, kind="verify", day=3))
    committed.add_verdict(entry.id, samples.make_verdict(samples.NANO, [there[0]], name="submit-1", against=entry.id, day=2))
    local.add_finding(samples.make_finding(summary="local"))
    committed.add_finding(samples.make_finding(summary="committed"))
    merged = MergedDatabase([local, committed])
    assert [e.id for e in merged.entries()] == [entry.id, other.id]
    assert merged.entry(entry.id).status == "checked"
    assert [run.id for run in merged.runs(entry.id)] == [here[0].id, there[0].id]
    assert merged.curve(entry.id, there[0].id).packed() == there[1].packed()
    assert [v.id for v in merged.verdicts(entry.id)] == ["submit-1", "verify-1"]
    assert [f.summary for f in merged.findings()] == ["local"]
    assert merged.documents().keys() == local.documents().keys() | committed.documents().keys()


def test_merged_of_one_reads_like_that_one(filled):
    merged = MergedDatabase([filled])
    assert merged.entries() == filled.entries()
    assert merged.calibrations() == filled.calibrations()
    assert merged.documents() == filled.documents()
    assert merged.calibration_runs("gpt2", "gpt2-v1") == filled.calibration_runs("gpt2", "gpt2-v1")


def test_merged_names_what_it_lacks(filled):
    merged = MergedDatabase([filled])
    with pytest.raises(DatabaseError, match="no entry 'nobody-1'"):
        merged.entry("nobody-1")
    with pytest.raises(DatabaseError, match="no run 'nothing'"):
        merged.curve(filled.entries()[0].id, "nothing")
    with pytest.raises(DatabaseError, match="no calibration for version v9"):
        merged.calibration_curve("nano", "v9", "x")


def test_losses_are_rounded_to_float32_once(tmp_path):
    curve = Curve((0,), (0.1,), (0,))
    (tmp_path / "c.parquet").write_bytes(encode_curve(curve))
    kept = decode_curve(tmp_path / "c.parquet")
    assert kept.loss[0] != 0.1
    assert math.isclose(kept.loss[0], 0.1, rel_tol=1e-7)
    assert kept.packed() == curve.packed()
