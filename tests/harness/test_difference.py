"""A submission's difference is shown against its parent, and counted in lines of code against the baseline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.difference import changed_lines, code_only, diff_lines, differences
from harness.submission import Submission

REPOSITORY = Path(__file__).parents[2]
WriteSubmission = Callable[..., Path]
SUBCLASS = '''
"""A model with a doubled embedding."""
from baseline.model import GPT

class Mine(GPT):
    def embed(self, tokens, cache=None):
        return 2 * super().embed(tokens, cache)  # twice

def build_model(config: TrainConfig, ops: Ops) -> GPT:
    return Mine(config, ops)
'''


def test_a_subclass_is_shown_against_the_function_it_replaces(write_submission: WriteSubmission) -> None:
    (difference,) = differences(Submission.load(write_submission(model=SUBCLASS)), None)

    assert difference.against == "baseline/model.py, build_model"
    assert "+class Mine(GPT):" in difference.diff
    assert "-    return GPT(config, ops)" in difference.diff


def test_an_edited_copy_is_shown_against_the_whole_file(write_submission: WriteSubmission) -> None:
    text = (REPOSITORY / "baseline" / "schedule.py").read_text()
    copy = text.replace("config.warmup_steps", "100")
    (difference,) = differences(Submission.load(write_submission(schedule=copy)), None)

    assert difference.against == "baseline/schedule.py"
    assert diff_lines(Submission.load(write_submission(name="other", schedule=copy))) == 2 * text.count("config.warmup_steps")


def test_only_slots_that_differ_from_the_parent_are_shown(write_submission: WriteSubmission) -> None:
    config = "def configure(config):\n    return config.with_(softcap=0.0)\n"
    parent = Submission.load(write_submission(name="parent", model=SUBCLASS, config=config))
    child = Submission.load(write_submission(name="child", model=SUBCLASS, config=config.replace("0.0", "20.0")))

    (difference,) = differences(child, parent)
    assert (difference.slot, difference.against) == ("config", "parent/config.py")
    assert "-    return config.with_(softcap=0.0)\n+    return config.with_(softcap=20.0)" in difference.diff


def test_a_slot_that_falls_back_to_the_baseline_is_shown(write_submission: WriteSubmission) -> None:
    parent = Submission.load(write_submission(name="parent", model=SUBCLASS))
    (difference,) = differences(Submission.load(write_submission(name="child")), parent)

    assert difference.against == "parent/model.py"
    assert "+++ baseline/model.py, build_model" in difference.diff


def test_complexity_counts_code_and_not_how_well_it_is_explained(write_submission: WriteSubmission) -> None:
    bare = SUBCLASS.replace('"""A model with a doubled embedding."""\n', "").replace("  # twice", "").replace("\n\n", "\n")
    counts = [diff_lines(Submission.load(write_submission(name=f"s{i}", model=text))) for i, text in enumerate((SUBCLASS, bare))]

    assert counts[0] == counts[1]
    assert 3 <= counts[0] <= 8


@pytest.mark.parametrize("slots", [{}, {"kernels": "def replace_ops(ops: Ops, config: TrainConfig) -> Ops:\n    return ops\n"}])
def test_no_override_is_no_line(write_submission: WriteSubmission, slots: dict[str, str]) -> None:
    assert diff_lines(Submission.load(write_submission(**slots))) == 0


def test_text_that_is_not_python_counts_as_it_stands() -> None:
    assert code_only("def (\n# x\n") == "def (\n# x\n"


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_changed_lines_is_zero_only_for_equal_texts_and_never_more_than_both(old: list[str], new: list[str]) -> None:
    count = changed_lines("\n".join(old), "\n".join(new))

    assert (count == 0) == (old == new)
    assert count <= len(old) + len(new)
    assert (count - len(new) + len(old)) % 2 == 0
