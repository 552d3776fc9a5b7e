"""An example is judged as the historical evaluator judges it, from the scores alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.core.items import ExampleItem, Kind, RowScore, TokenRow
from harness.evaluate.core.outcome import judge, preferred

NAN = math.nan


def item(kind: Kind, rows: int, gold: int = 0, scored_tokens: int = 2) -> ExampleItem:
    """An example whose rows have the same shape."""
    row = TokenRow(np.arange(5, dtype=np.int32), 5 - scored_tokens, 5)
    return ExampleItem("task", 7, 1, kind, (row,) * rows, gold)


def scores(*losses: float, greedy: bool = False) -> list[RowScore]:
    return [RowScore(loss, greedy) for loss in losses]


@pytest.mark.parametrize("kind", ["multiple_choice", "schema"])
@pytest.mark.parametrize(("gold", "correct"), [(0, False), (1, True), (2, False)])
def test_the_lowest_mean_loss_is_the_models_choice(kind: Kind, gold: int, correct: bool) -> None:
    outcome = judge(item(kind, 3, gold), scores(2.0, 1.5, 1.75))
    assert (outcome.task, outcome.example, outcome.choice, outcome.correct) == ("task", 7, 1, correct)
    assert outcome.mean_losses == (2.0, 1.5, 1.75)


def test_the_first_of_equal_losses_wins() -> None:
    assert judge(item("multiple_choice", 3, gold=1), scores(2.0, 1.0, 1.0)).correct


def test_agreement_of_the_argmax_says_nothing_of_choices() -> None:
    assert not judge(item("multiple_choice", 2, gold=0), scores(2.0, 1.0, greedy=True)).correct


@pytest.mark.parametrize("greedy", [True, False])
def test_language_modelling_asks_for_greedy_agreement_whatever_the_loss(greedy: bool) -> None:
    outcome = judge(item("language_modeling", 1), scores(9.0, greedy=greedy))
    assert (outcome.correct, outcome.choice) == (greedy, None)


def test_nothing_to_predict_is_nothing_right() -> None:
    assert not judge(item("language_modeling", 1, scored_tokens=0), scores(NAN, greedy=True)).correct


@pytest.mark.parametrize(("losses", "choice"), [((NAN, 1.0), 0), ((1.0, NAN), 0), ((2.0, NAN, 1.0), 2), ((NAN, NAN), 0)])
def test_a_row_without_scored_tokens_wins_when_first_and_loses_otherwise(losses: tuple[float, ...], choice: int) -> None:
    assert preferred(losses) == choice


@given(st.lists(st.floats(allow_nan=True) | st.sampled_from([1.0, NAN]), min_size=1, max_size=5))
def test_the_choice_is_where_pythons_minimum_stands(losses: list[float]) -> None:
    assert preferred(losses) == losses.index(min(losses))


def test_a_missing_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="task example 7 has 3 rows and got 2 scores"):
        judge(item("schema", 3), scores(1.0, 2.0))
