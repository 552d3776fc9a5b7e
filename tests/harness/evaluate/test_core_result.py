"""Scores, centring and standard errors, against closed forms and against simulated draws of examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.core.items import Outcome
from harness.evaluate.core.result import centered, core_result
from harness.evaluate.core.tasks import CORE_TASKS, Task

ONE = Task("one", "a.jsonl", "multiple_choice", 0, " ", 40, 0, "", 25.0, 40.0)
TWO = Task("two", "b.jsonl", "multiple_choice", 0, " ", 60, 0, "", 50.0, 50.0)
AGAIN = replace(ONE, label="again", shots=10, random_baseline=0.0, corrected_baseline=0.0)
"""Asks the examples of ONE."""


def outcomes(task: Task, correct: Sequence[bool]) -> list[Outcome]:
    return [Outcome(task.label, example, right, 0, (1.0, 2.0)) for example, right in enumerate(correct)]


def some(count: int, right: int) -> list[bool]:
    return [index < right for index in range(count)]


def test_centring() -> None:
    assert centered(0.25, 25.0) == 0.0
    assert centered(1.0, 62.0) == 1.0
    assert centered(0.625, 25.0) == pytest.approx(0.5)
    assert centered(0.0, 50.0) == -1.0


def test_a_task_is_scored_by_both_baselines() -> None:
    (task,) = core_result({"one": outcomes(ONE, some(40, 28))}, {"one": 1.5}, (ONE,)).tasks
    assert (task.label, task.examples, task.accuracy, task.seconds) == ("one", 40, 0.7, 1.5)
    assert task.centered == pytest.approx((0.7 - 0.25) / 0.75)
    assert task.centered_corrected == pytest.approx((0.7 - 0.4) / 0.6)


def test_core_is_the_unweighted_mean_of_the_tasks() -> None:
    result = core_result({"one": outcomes(ONE, some(40, 28)), "two": outcomes(TWO, some(60, 45))}, {}, (ONE, TWO))
    assert result.core == pytest.approx(((0.7 - 0.25) / 0.75 + 0.5) / 2)
    assert result.core_corrected == pytest.approx(((0.7 - 0.4) / 0.6 + 0.5) / 2)
    assert result.complete


def test_published_accuracies_of_gpt2_give_the_published_core() -> None:
    """GPT-2 124M, a third party's figures per task, to four digits; its CORE is given as 0.1216."""
    accuracies = dict(zip((task.label for task in CORE_TASKS), GPT2_THIRD_PARTY, strict=True))
    mean = math.fsum(centered(accuracies[task.label], task.random_baseline) for task in CORE_TASKS) / 22
    assert mean == pytest.approx(0.1216, abs=0.00005)


GPT2_THIRD_PARTY = [
    *(0.3088, 0.0033, 0.2826, 0.4184, 0.2227, 0.62, 0.2375, 0.6208, 0.276, 0.3241, 0.3070),
    *(0.5934, 0.5162, 0.155, 0.2304, 0.4235, 0.0905, 0.0313, 0.0579, 0.1328, 0.5544, 0.2592),
]
"""In the order of the tasks."""


@pytest.mark.parametrize(
    "partial",
    [
        {"one": outcomes(ONE, some(40, 28))},
        {"one": outcomes(ONE, some(39, 28)), "two": outcomes(TWO, some(60, 45))},
        {"one": [*outcomes(ONE, some(39, 28)), Outcome("one", 41, True, 0, ())], "two": outcomes(TWO, some(60, 45))},
    ],
    ids=["a task is missing", "an example is missing", "an example is another"],
)
def test_a_partial_evaluation_has_a_mean_but_no_core(partial: dict[str, list[Outcome]]) -> None:
    result = core_result(partial, {}, (ONE, TWO))
    assert not result.complete
    assert result.core is result.core_corrected is None
    assert math.isfinite(result.mean_centered)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({}, "no task has outcomes"),
        ({"one": []}, "one has no outcome"),
        ({"three": []}, "three is none of the tasks"),
        ({"one": outcomes(ONE, [True]) * 2}, "one example 0 is judged twice"),
        ({"one": outcomes(TWO, [True])}, "an outcome of two stands among those of one"),
        ({"one": outcomes(ONE, some(3, 1)), "again": outcomes(AGAIN, some(2, 1))}, "read one file and were judged on different examples"),
    ],
)
def test_outcomes_that_cannot_be_scored_are_refused(wrong: dict[str, list[Outcome]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        core_result(wrong, {}, (ONE, TWO, AGAIN))


def test_the_order_of_outcomes_does_not_matter() -> None:
    rows = outcomes(ONE, some(40, 28))
    assert core_result({"one": rows}, {}, (ONE,)) == core_result({"one": rows[::-1]}, {}, (ONE,))


# ---------------------------------------------------------------------- standard errors


def test_a_tasks_standard_error_is_the_binomial_one() -> None:
    (task,) = core_result({"one": outcomes(ONE, some(40, 28))}, {}, (ONE,)).tasks
    exact = math.sqrt(0.7 * 0.3 / 40) / 0.75
    assert task.stderr_binomial == pytest.approx(exact)
    assert task.stderr_bootstrap == pytest.approx(exact, rel=0.03)


def test_independent_tasks_add_their_variances() -> None:
    result = core_result({"one": outcomes(ONE, some(40, 28)), "two": outcomes(TWO, some(60, 45))}, {}, (ONE, TWO))
    exact = math.hypot(*(task.stderr_binomial for task in result.tasks)) / 2
    assert result.stderr == pytest.approx(exact)
    assert result.stderr_bootstrap == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize(("second", "relation"), [(some(40, 20), "equal"), (some(40, 20)[::-1], "opposite")])
def test_tasks_that_ask_the_same_examples_are_not_independent(second: list[bool], relation: str) -> None:
    """Right on the same examples: the errors add up. Right on the others: in these units they cancel but for the scales."""
    result = core_result({"one": outcomes(ONE, some(40, 20)), "again": outcomes(AGAIN, second)}, {}, (ONE, AGAIN))
    spread = math.sqrt(0.25 / 40)
    exact = spread * abs(1 / 0.75 + (1 if relation == "equal" else -1)) / 2
    assert result.stderr == pytest.approx(exact)
    assert result.stderr_bootstrap == pytest.approx(exact, rel=0.03)


def test_standard_errors_describe_what_other_examples_would_have_given() -> None:
    """400 evaluations, each on its own draw of examples; the tasks on one file are right together more often than not."""
    generator = np.random.default_rng(5)
    scores, claimed = [], []
    for _ in range(400):
        ability = generator.random(40)
        first, second = ability + 0.3 * generator.random(40) < 0.7, ability + 0.3 * generator.random(40) < 0.6
        other = generator.random(60) < 0.8
        result = core_result(
            {"one": outcomes(ONE, first.tolist()), "again": outcomes(AGAIN, second.tolist()), "two": outcomes(TWO, other.tolist())},
            {},
            (ONE, AGAIN, TWO),
        )
        scores.append(result.mean_centered)
        claimed.append(result.stderr)
    assert np.mean(claimed) == pytest.approx(np.std(scores), rel=0.12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_propagated_error_is_the_spread_of_the_example_s_sums(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    result = core_result({"one": outcomes(ONE, first), "again": outcomes(AGAIN, second)}, {}, (ONE, AGAIN))
    sums = np.array(first) / 0.75 / 2 + np.array(second) / 2
    assert result.stderr == pytest.approx(float(sums.std()) / math.sqrt(len(pairs)), abs=1e-12)


def test_results_repeat_exactly() -> None:
    rows = {"one": outcomes(ONE, some(40, 28)), "two": outcomes(TWO, some(60, 45))}
    assert core_result(rows, {}, (ONE, TWO)) == core_result(rows, {}, (ONE, TWO))
