"""`speedrun new` writes a complete submission that changes nothing and passes every check."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.difference import diff_lines
from harness.errors import UsageProblem
from harness.rules import check_rules
from harness.scaffold import new_submission
from harness.submission import Submission


def test_a_new_submission_is_complete_and_keeps_the_rules(tmp_path: Path) -> None:
    folder = new_submission("my_idea", tmp_path / "submissions")
    submission = Submission.load(folder)

    assert folder == tmp_path / "submissions" / "my_idea"
    assert (submission.name, submission.parent, submission.slots) == ("my_idea", "baseline", ("config",))
    assert check_rules(submission) == []


def test_a_new_submission_changes_no_line_of_the_baseline(tmp_path: Path) -> None:
    assert diff_lines(Submission.load(new_submission("my_idea", tmp_path))) == 0


def test_two_new_submissions_differ_in_nothing_but_their_name(tmp_path: Path) -> None:
    first, second = (Submission.load(new_submission(name, tmp_path)) for name in ("aaa", "bbb"))

    assert {n: c.replace(b"aaa", b"bbb") for n, c in first.files.items()} == second.files


@pytest.mark.parametrize("name", ["", "My_Idea", "1st", "a-b", "a b", "../up", "a/b", "é", "a" * 65, ".hidden"])
def test_a_name_that_cannot_be_a_submission_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageProblem, match="is not allowed; use lower-case letters") as caught:
        new_submission(name, tmp_path / "submissions")

    assert caught.value.exit_code == 2
    assert not (tmp_path / "submissions").exists()


def test_the_baselines_name_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="choose another"):
        new_submission("baseline", tmp_path)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    folder = new_submission("mine", tmp_path)
    (folder / "config.py").write_text("my work\n")

    with pytest.raises(UsageProblem, match="mine: exists already; choose another name"):
        new_submission("mine", tmp_path)
    assert (folder / "config.py").read_text() == "my work\n"


def test_a_place_where_no_folder_can_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageProblem, match=r"cannot be made: .*; choose another place"):
        new_submission("mine", tmp_path / "file")


@given(name=st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True).filter(lambda name: name != "baseline"))
def test_every_legal_name_gives_a_submission_that_loads(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = new_submission(name, tmp_path_factory.mktemp("submissions"))

    assert Submission.load(folder).name == name
