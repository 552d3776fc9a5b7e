"""Real runs at a tiny size: the nano track with its steps counted on one hand, and what a run must not leave behind."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.launch import REPOSITORY
from harness.prepared import PreparedData, open_data, prepare_data
from harness.record import Environment
from harness.run import RunJob, RunResult, Watcher, perform
from harness.seeds import derive_seed
from harness.submission import Submission
from harness.track import Track, load_track

NONCE = "00112233445566778899aabbccddeeff"
STEPS = 6
TINY_CONFIG = {"batch_tokens": 2048, "num_steps": STEPS, "rows_per_forward": 2, "warmup_steps": 2}
TINY_LIMITS = {"warmup_s": 90.0, "run_s": 60.0, "silence_s": 30.0}
MANIFEST = 'name = "{name}"\ntitle = "Tiny"\nsummary = "For a test."\n\n[[author]]\nname = "somebody"\n'


def tiny(track: Track, limits: Mapping[str, Any] | None = None) -> Track:
    """The track with a model of 2 layers, 6 steps, 16 rows to score, and other limits."""
    return track.model_copy(
        update={
            "task": track.task.model_copy(update={"depth": 2, "config": TINY_CONFIG}),
            "data": track.data.model_copy(update={"val_rows": 16}),
            "limits": track.limits.model_copy(update={**TINY_LIMITS, **(limits or {})}),
        }
    )


def nano_data(made_in: Path) -> PreparedData:
    """The nano track's data: the repository's where it is prepared already, else made in this folder."""
    track = load_track("nano")
    prepared = REPOSITORY / "data"
    return open_data(track, prepared) if (prepared / "nano" / "val" / "manifest.json").exists() else prepare_data(track, made_in)


def write_tiny_submission(folder: Path, slots: Mapping[str, str]) -> Submission:
    """A valid submission in the new folder, with a file for each slot."""
    folder.mkdir(parents=True)
    (folder / "submission.toml").write_text(MANIFEST.replace("{name}", folder.name))
    (folder / "README.md").write_text("For a test.\n")
    for slot, code in slots.items():
        (folder / f"{slot}.py").write_text(code)
    return Submission.load(folder)


@dataclass(frozen=True, slots=True)
class TinyRuns:
    """Performs single runs in one work folder."""

    track: Track
    data: PreparedData
    environment: Environment
    work_folder: Path

    def perform(
        self, submission: Submission, index: int = 0, *, watcher: Watcher | None = None, limits: Mapping[str, Any] | None = None
    ) -> RunResult:
        """One run from the seed of this index. `limits` replace some of the track's."""
        track = tiny(self.track, limits)
        job = RunJob(
            run_id=f"{submission.name}-{index}",
            track=track,
            submission=submission,
            data=self.data,
            seed=derive_seed(submission.digest, track.baseline_digest, track.ruleset.id, NONCE, index),
            role="entry",
            pair=None,
            environment=self.environment,
            work_folder=self.work_folder,
        )
        return perform(job, watcher)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Live processes whose command line names something below this folder: those of the runs that work there."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def wait_until_none(folder: Path, within_s: float) -> list[psutil.Process]:
    """Wait for the processes of a work folder to end; those that are left after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
