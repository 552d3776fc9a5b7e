"""`speedrun check` on all sorts of submissions: each bad one is one clear line and the right exit code, a good one passes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.check import CheckReport, Inspection, SlotProblem, check, explain, load_parent
from harness.errors import MachineLacks, RuleViolation, SpeedrunError, UsageProblem
from harness.scaffold import new_submission
from harness.submission import Submission
from harness.track import Track, load_track

REPOSITORY = Path(__file__).parents[2]
CONFIG = "def configure(config):\n    return {}\n"
WriteSubmission = Callable[..., Path]


@pytest.fixture(scope="module")
def track() -> Track:
    return load_track("nano")


@dataclass(frozen=True)
class Checked:
    """A new submission with two changes, after its check."""

    report: CheckReport
    scratch: Path
    """Where the check could put temporary files."""


@pytest.fixture(scope="module")
def checked(track: Track, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    scratch = tmp_path_factory.mktemp("scratch")
    folder = new_submission("mine", tmp_path_factory.mktemp("submissions"))
    config = folder / "config.py"
    config.write_text(config.read_text().replace("    return config\n", "    return config.with_(softcap=20.0, window_pattern='L')\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(scratch))
        return Checked(check(Submission.load(folder), track), scratch)


def first_line(report: CheckReport) -> str:
    """The error that a report becomes: a rule violation, one printable line that begins with the folder."""
    error = report.error()
    assert isinstance(error, RuleViolation)
    assert str(error).isprintable()
    assert str(error).startswith(str(report.submission.path))
    return str(error)


# ---------------------------------------------------------------------- good submissions


@pytest.mark.parametrize("name", ["baseline", "adamw_control"])
def test_the_committed_submissions_pass(track: Track, name: str) -> None:
    report = check(Submission.load(REPOSITORY / "submissions" / name), track)

    assert (report.refusals, report.warnings, report.error()) == ((), (), None)
    assert report.ok


def test_a_new_submission_passes_and_explains_as_unchanged(track: Track, tmp_path: Path) -> None:
    report = check(Submission.load(new_submission("mine", tmp_path)), track)
    explanation = explain(report, track, None)

    assert report.ok
    assert explanation.config_changes == {}
    assert explanation.diff_lines == 0
    assert explanation.slots == ("config",)


def test_explain_names_changed_fields_with_both_values(track: Track, checked: Checked) -> None:
    explanation = explain(checked.report, track, load_parent(checked.report.submission))

    assert explanation.config_changes == {"softcap": ("15", "20"), "window_pattern": ("SSSL", "L")}
    assert explanation.hyperparameters["dial.head_dim"] == str(track.task.head_dim)
    assert explanation.parent == "baseline"
    assert explanation.diff_lines == 2
    assert explanation.parameters
    assert explanation.flops_per_token


def test_check_leaves_no_file_behind(checked: Checked) -> None:
    assert list(checked.scratch.iterdir()) == []
    assert sorted(os.listdir(checked.report.submission.path)) == ["README.md", "config.py", "submission.toml"]


# ---------------------------------------------------------------------- refused without running anything


def test_a_broken_rule_refuses_without_executing_a_line(track: Track, write_submission: WriteSubmission, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    text = f"from pathlib import Path\nPath({str(trace)!r}).touch()\n{CONFIG.format('config')}"
    report = check(Submission.load(write_submission(config=text)), track)

    assert report.inspection is None
    assert "config.py:1: R02: pathlib may not be imported" in first_line(report)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("slot", "text", "said"),
    [
        ("model", "def build_model(config, ops:\n", "model.py:1: R01: '(' was never closed; mend the syntax"),
        ("model", "x = 1\n", "model.py:1: R01: the function build_model is missing; write `def build_model(config, ops)`"),
        ("schedule", "def schedule(config):\n    pass\n", "schedule.py:1: R01: schedule takes other parameters than the contract's"),
        ("config", CONFIG.format("config.with_(vocab_size=9)"), "config.py:2: R08: vocab_size is the track's; leave it as it is"),
        ("config", "import torch\ntorch.relu = None\n" + CONFIG.format("config"), "config.py:2: R03: changes torch.relu"),
    ],
)
def test_what_reading_shows_is_refused_by_rule_and_line(
    track: Track, write_submission: WriteSubmission, slot: str, text: str, said: str
) -> None:
    assert said in first_line(check(Submission.load(write_submission(**{slot: text})), track))


def test_further_refusals_are_counted(track: Track, write_submission: WriteSubmission) -> None:
    report = check(Submission.load(write_submission(config="import os\nimport sys\n" + CONFIG.format("config"))), track)

    assert first_line(report).endswith("(and 1 more)")
    assert len(report.refusals) == 2


def test_a_submission_for_other_tracks_is_a_usage_problem(track: Track, write_submission: WriteSubmission) -> None:
    manifest = 'name = "mine"\ntitle = "x"\nsummary = "x"\ntracks = ["gpt2"]\n[[author]]\nname = "x"\n'

    with pytest.raises(UsageProblem, match="is meant for the tracks gpt2, not nano"):
        check(Submission.load(write_submission(manifest=manifest)), track)


def test_the_tracks_cap_on_all_files_together_is_kept(track: Track, write_submission: WriteSubmission) -> None:
    tight = track.model_copy(update={"limits": track.limits.model_copy(update={"submission_bytes": 50})})

    with pytest.raises(RuleViolation, match=r"all files together have \d+ bytes; the track nano allows 50"):
        check(Submission.load(write_submission()), tight)


# ---------------------------------------------------------------------- refused after trying out


def test_what_running_shows_is_refused_by_file(track: Track, write_submission: WriteSubmission) -> None:
    text = CONFIG.format("config.with_(**{'vocab' + '_size': 9})")

    assert "config.py: configure: vocab_size = 9 differs from the track's" in first_line(
        check(Submission.load(write_submission(config=text)), track)
    )


def test_an_endless_slot_is_ended(track: Track, write_submission: WriteSubmission) -> None:
    text = "def configure(config):\n    while True:\n        pass\n"

    with pytest.raises(RuleViolation, match="trying it out took over 1 s; look for an endless loop"):
        check(Submission.load(write_submission(config=text)), track, timeout_s=1.0)


def test_a_slot_that_ends_its_process_is_one_line(track: Track, write_submission: WriteSubmission) -> None:
    text = "def configure(config):\n    raise KeyboardInterrupt\n"

    with pytest.raises(RuleViolation, match=r"the process that tried it out died with status 130: KeyboardInterrupt; mend the slot"):
        check(Submission.load(write_submission(config=text)), track)


# ---------------------------------------------------------------------- errors


def inspected(submission: Submission, message: str, missing_package: str | None = None) -> CheckReport:
    """A report as if the child had found one problem."""
    problem = SlotProblem(slot="kernels", file="kernels.py", message=message, missing_package=missing_package)
    inspection = Inspection(ok=False, problems=(problem,), config=None, parameters=None, flops_per_token=None, overridden=())
    return CheckReport(submission, (), inspection)


def test_a_missing_gpu_package_is_the_machines_lack_and_any_other_the_submissions(write_submission: WriteSubmission) -> None:
    submission = Submission.load(write_submission())
    error = inspected(submission, "No module named 'triton'", "triton").error()

    assert isinstance(error, MachineLacks)
    assert "the package triton is not installed here; check on a GPU machine" in str(error)
    assert isinstance(inspected(submission, "No module named 'own'", "own").error(), RuleViolation)


def test_what_a_submission_says_cannot_steer_the_terminal(write_submission: WriteSubmission) -> None:
    report = inspected(Submission.load(write_submission()), "\x1b[2J\nfine")

    assert report.refusals == ("kernels.py: \\x1b[2J fine",)
    assert first_line(report)


def test_a_parent_must_lie_beside_the_submission(write_submission: WriteSubmission) -> None:
    manifest = 'name = "mine"\ntitle = "x"\nsummary = "x"\nparent = "elsewhere"\n[[author]]\nname = "x"\n'
    submission = Submission.load(write_submission(manifest=manifest))

    with pytest.raises(UsageProblem, match="parent = 'elsewhere' has no folder beside this one; fetch that submission into"):
        load_parent(submission)
    write_submission(name="elsewhere")
    parent = load_parent(submission)
    assert parent is not None
    assert parent.name == "elsewhere"


@pytest.mark.parametrize(("text", "shown"), [("a\nb\t c", "a b c"), ("\x1b[31m", "\\x1b[31m"), ("x" * 700, "x" * 599 + "…")])
def test_an_error_is_one_printable_line_of_bounded_length(text: str, shown: str) -> None:
    assert str(RuleViolation(text)) == shown


def test_exit_codes_are_those_of_the_command_line() -> None:
    codes = {error.__name__: error.exit_code for error in SpeedrunError.__subclasses__() if error.__module__ == "harness.errors"}

    assert codes == {"NotMet": 1, "UsageProblem": 2, "RuleViolation": 3, "MachineLacks": 4, "VoidRun": 5}
