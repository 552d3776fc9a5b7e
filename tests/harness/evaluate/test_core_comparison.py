"""Two models on the same examples: only changed answers count."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.evaluate.core.comparison import compare
from harness.evaluate.core.items import Outcome
from harness.evaluate.core.result import core_result
from harness.evaluate.core.tasks import Task

ONE = Task("one", "a.jsonl", "multiple_choice", 0, " ", 10, 0, "", 25.0, 40.0)
AGAIN = replace(ONE, label="again", random_baseline=0.0)
TWO = Task("two", "b.jsonl", "language_modeling", 0, " ", 10, 0, "", 0.0, 0.0)
TASKS = (ONE, AGAIN, TWO)


def outcomes(label: str, correct: str) -> dict[str, list[Outcome]]:
    """Outcomes from a line of `+` and `-`."""
    return {label: [Outcome(label, example, sign == "+", None, (1.0,)) for example, sign in enumerate(correct)]}


def test_changed_answers_are_counted_both_ways() -> None:
    comparison = compare(outcomes("one", "++++------"), outcomes("one", "+-+++++---"), TASKS)
    (task,) = comparison.tasks
    assert (task.label, task.examples, task.only_first, task.only_second) == ("one", 10, 1, 3)
    assert task.p_value == pytest.approx(2 * (math.comb(4, 0) + math.comb(4, 1)) / 2**4)
    assert task.centered_difference == pytest.approx(0.2 / 0.75)
    assert comparison.difference == task.centered_difference
    assert comparison.stderr == pytest.approx(task.stderr)


def test_equal_answers_are_no_difference() -> None:
    comparison = compare(outcomes("one", "++--"), outcomes("one", "++--"), TASKS)
    assert (comparison.difference, comparison.stderr, comparison.p_value, comparison.tasks[0].p_value) == (0.0, 0.0, 1.0, 1.0)


def test_the_same_change_in_every_example_is_certain() -> None:
    comparison = compare(outcomes("two", "----"), outcomes("two", "++++"), TASKS)
    assert (comparison.difference, comparison.p_value) == (1.0, 0.0)
    assert comparison.tasks[0].p_value == pytest.approx(2 / 2**4)


SIGNS = st.lists(st.sampled_from("+-"), min_size=6, max_size=6).map("".join)


@given(st.lists(SIGNS, min_size=6, max_size=6))
def test_the_difference_is_that_of_the_two_scores(signs: list[str]) -> None:
    first = outcomes("one", signs[0]) | outcomes("again", signs[1]) | outcomes("two", signs[2])
    second = outcomes("one", signs[3]) | outcomes("again", signs[4]) | outcomes("two", signs[5])
    comparison, backwards = compare(first, second, TASKS), compare(second, first, TASKS)
    scores = [core_result(result, {}, TASKS).mean_centered for result in (first, second)]
    assert comparison.difference == pytest.approx(scores[1] - scores[0], abs=1e-12)
    assert backwards.difference == pytest.approx(-comparison.difference, abs=1e-12)
    assert backwards.stderr == pytest.approx(comparison.stderr)
    assert backwards.p_value == pytest.approx(comparison.p_value)


def test_changes_on_one_files_examples_are_taken_together() -> None:
    """The same examples gained in both tasks: their errors add up, which independent tasks' would not."""
    first = outcomes("one", "----") | outcomes("again", "----")
    second = outcomes("one", "++--") | outcomes("again", "++--")
    sums = np.array([1, 1, 0, 0]) * (1 / 0.75 + 1) / 2
    assert compare(first, second, TASKS).stderr == pytest.approx(float(sums.std()) / 2)


def test_equal_models_are_called_different_as_often_as_the_level_says() -> None:
    """800 pairs of models that are right equally often: at 5 %, a two-sided p-value by the normal distribution."""
    generator = np.random.default_rng(11)
    below = 0
    for _ in range(800):
        a, b = ("".join(np.where(generator.random(80) < 0.6, "+", "-")) for _ in range(2))
        below += compare(outcomes("one", a), outcomes("one", b), TASKS).p_value < 0.05
    low, high = stats.binom.ppf([0.0005, 0.9995], 800, 0.05)
    assert low <= below <= high * 1.25


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (outcomes("one", "++"), outcomes("two", "++"), "different tasks"),
        (outcomes("one", "++"), outcomes("one", "+"), "different examples of one"),
        ({}, {}, "different tasks"),
    ],
)
def test_evaluations_that_do_not_match_are_refused(first: dict[str, list[Outcome]], second: dict[str, list[Outcome]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        compare(first, second, TASKS)
