"""`speedrun check` and `speedrun explain`: everything that can be said of a submission without training it.

First the static rules, which execute nothing. Only a submission that keeps them is loaded, in a child process with a
sandbox and a time limit; what that child says is shown, and never counts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.difference import SlotDifference, diff_lines, differences
from harness.errors import MachineLacks, RuleViolation, SpeedrunError, UsageProblem, one_line
from harness.launch import SupervisedProcess, child_environment, last_words, private_folders, wait_until_stopped
from harness.record import Component, Document, Finite, SlotName
from harness.rules import RuleFinding, check_rules
from harness.sandbox.available import chosen
from harness.sandbox.surroundings import make_policy
from harness.submission import BASELINE, Submission, stage
from harness.track import Track

INSPECTION_TIMEOUT_S = 300.0
"""For importing torch and one small step, also on a slow laptop: at the largest track that is 7 s of one AMD EPYC core."""
MAX_REPORT_BYTES = 1_000_000
KILLED = 128 + signal.SIGKILL
GPU_PACKAGES = ("triton",)
"""Packages that a machine without a GPU may lack."""


class SlotProblem(Document):
    """One thing that does not keep the contract, as the inspecting child says."""

    slot: SlotName
    file: str
    message: str
    missing_package: str | None = None

    def __str__(self) -> str:
        return one_line(f"{self.file}: {self.message}")


class Inspection(Document):
    """The child's report. It comes from a process that ran the entrant's code: good for advice, never for a figure that counts."""

    ok: bool
    problems: tuple[SlotProblem, ...]
    config: dict[str, Any] | None
    """The resolved TrainConfig; None where `configure` failed."""
    parameters: int | None
    flops_per_token: Finite | None
    overridden: tuple[SlotName, ...]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found. `inspection` is None where a rule already refused the submission."""

    submission: Submission
    findings: tuple[RuleFinding, ...]
    inspection: Inspection | None

    @property
    def refusals(self) -> tuple[str, ...]:
        """One line for each reason not to run the submission."""
        broken = [f"{f.file}:{f.line}: {f.rule}: {f.message}" for f in self.findings if f.severity == "refuse"]
        return (*map(one_line, broken), *map(str, self.inspection.problems if self.inspection else ()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each thing to know that does not keep the submission from running."""
        return tuple(one_line(str(finding)) for finding in self.findings if finding.severity == "warn")

    @property
    def ok(self) -> bool:
        return not self.refusals

    def error(self) -> SpeedrunError | None:
        """The first refusal as an error: MachineLacks where a GPU package is what is missing, else RuleViolation."""
        if self.ok:
            return None
        more = f" (and {len(self.refusals) - 1} more)" if len(self.refusals) > 1 else ""
        lacking = [p.missing_package for p in (self.inspection.problems if self.inspection else ()) if p.missing_package in GPU_PACKAGES]
        if lacking:
            mend = "check on a GPU machine, or fall back to `ops` in replace_ops where it is missing"
            return MachineLacks(f"the package {lacking[0]} is not installed here", where=str(self.submission.path), mend=mend)
        return RuleViolation(self.refusals[0] + more, where=str(self.submission.path))


def check(submission: Submission, track: Track, timeout_s: float = INSPECTION_TIMEOUT_S) -> CheckReport:
    """Rules, then contract, at the track's config. Raises UsageProblem for the wrong track, and an error if the child gives no report."""
    if not submission.runs_on(track.name):
        meant = ", ".join(submission.tracks)
        raise UsageProblem(
            f"is meant for the tracks {meant}, not {track.name}", where=str(submission.path), mend="choose one, or edit 'tracks'"
        )
    size = sum(map(len, submission.files.values()))
    if size > track.limits.submission_bytes:
        mend = f"the track {track.name} allows {track.limits.submission_bytes:,}"
        raise RuleViolation(f"all files together have {size:,} bytes", where=str(submission.path), mend=mend)
    findings = tuple(check_rules(submission))
    refused = any(finding.severity == "refuse" for finding in findings)
    return CheckReport(submission, findings, None if refused else _inspect(submission, track, timeout_s))


# ---------------------------------------------------------------------- the child


def _inspect(submission: Submission, track: Track, timeout_s: float) -> Inspection:
    """Run `baseline.inspection` on the bytes that were hashed."""
    with tempfile.TemporaryDirectory(prefix=f"speedrun-{os.getpid()}-check-") as folder:
        scratch, out = Path(folder), Path(folder, "out")
        config, report, console = scratch / "config.json", out / "report.json", scratch / "console.log"
        config.write_text(json.dumps(track.base_config().to_dict()))
        out.mkdir()
        staged = stage(submission, scratch / "submission")
        command = [sys.executable, "-m", "baseline.inspection", "--config-json", str(config), "--json-out", str(report)]
        command += ["--submission", str(staged), "--tolerance", str(track.limits.op_tolerance)]
        command += ["--processes", str(track.launch.processes)]
        for depth in range(*_inclusive(submission.depths)):
            command += ["--depth", str(depth)]
        # The track's machine may have more cores than this one; threads beyond the cores only wait for each other.
        threads = min(track.launch.threads_per_process, os.cpu_count() or 1)
        environment = child_environment(scratch, threads)
        sandbox = make_policy(chosen(), readable=[config, staged], writable=[*private_folders(scratch), out])
        with SupervisedProcess(command, environment, console, track.limits.scratch_bytes, scratch, sandbox=sandbox) as child:
            status = wait_until_stopped(child, timeout_s)
        if status is None:
            raise RuleViolation(f"trying it out took over {timeout_s:g} s", where=str(submission.path), mend="look for an endless loop")
        return _read_report(report, submission, status, last_words(console))


def _inclusive(depths: tuple[int, int] | None) -> tuple[int, int]:
    return (depths[0], depths[1] + 1) if depths else (0, 0)


def _read_report(report: Path, submission: Submission, status: int, words: str) -> Inspection:
    """Parse the child's report as hostile input. `status` is the child's exit status."""
    where = str(submission.path)
    try:
        # The submission's code could have put a link or a pipe there.
        with open(os.open(report, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            content = stream.read(MAX_REPORT_BYTES)
    except OSError as error:
        if status == KILLED:
            raise MachineLacks("the process that tried it out was killed", where=where, mend="free some memory") from error
        raise RuleViolation(
            f"the process that tried it out died with status {status}: {words}", where=where, mend="mend the slot"
        ) from error
    try:
        return Inspection.model_validate_json(content)
    except ValidationError as error:
        raise RuleViolation(
            "the process that tried it out left no readable report", where=where, mend="slots must not write files"
        ) from error


# ---------------------------------------------------------------------- explain


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a submission is, in terms of what it builds on."""

    slots: tuple[SlotName, ...]
    parent: str | None
    config_changes: dict[str, tuple[str, str]]
    """Field of TrainConfig -> (the track's value, the entry's), as text."""
    hyperparameters: dict[str, str]
    """The whole resolved config, as text."""
    differences: tuple[SlotDifference, ...]
    diff_lines: int
    components: tuple[Component, ...]
    parameters: int | None
    flops_per_token: float | None


def explain(report: CheckReport, track: Track, parent: Submission | None) -> Explanation:
    """Put a check's results in words. `parent` is what `load_parent` gives."""
    submission, inspection = report.submission, report.inspection
    before = _flat(track.base_config().to_dict())
    after = _flat(inspection.config) if inspection and inspection.config else {}
    return Explanation(
        slots=submission.slots,
        parent=submission.parent,
        config_changes={name: (_text(before.get(name)), _text(value)) for name, value in after.items() if before.get(name) != value},
        hyperparameters={name: _text(value) for name, value in after.items()},
        differences=differences(submission, parent),
        diff_lines=diff_lines(submission),
        components=submission.components,
        parameters=inspection.parameters if inspection else None,
        flops_per_token=inspection.flops_per_token if inspection else None,
    )


def load_parent(submission: Submission) -> Submission | None:
    """The submission's parent, from the folder beside it; None where that is the baseline. Raises UsageProblem if there is none."""
    if submission.parent in (None, BASELINE):
        return None
    folder = submission.path.parent / str(submission.parent)
    if not folder.is_dir():
        mend = f"fetch that submission into {folder}, or name another parent"
        raise UsageProblem(
            f"parent = '{submission.parent}' has no folder beside this one", where=str(submission.path / "submission.toml"), mend=mend
        )
    return Submission.load(folder)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Field -> value; the dial's fields as `dial.<field>`."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {one_line(prefix + name): value}
    return found


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else one_line(str(value))
