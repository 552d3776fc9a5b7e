"""A submit at a tiny size, in a process of its own, for a test that kills it: prints the phase of each run.

python -m tests.harness.interrupted_submit PREPARED_FOLDER WORK_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.check import CheckReport
from harness.prepared import open_data
from harness.run import Watcher
from harness.submit import Place, submit
from harness.track import load_track
from leaderboard.database import Database
from leaderboard.merged import MergedDatabase
from tests.harness.tiny_runs import tiny, write_tiny_submission


def main(prepared_folder: Path, work_folder: Path) -> None:
    track = load_track("nano")
    data = open_data(track, prepared_folder.parent)
    entry = write_tiny_submission(work_folder / "mine", {})
    reference = write_tiny_submission(work_folder / "theirs", {})
    database = Database(work_folder / "db")
    place = Place(database, MergedDatabase([database]), work_folder, "somebody")
    watcher = Watcher(on_phase=lambda phase: print(phase, flush=True))
    submit(CheckReport(entry, (), None), CheckReport(reference, (), None), tiny(track), data, 2, place, lambda planned, job: watcher)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
