"""From a model's scores of an example's rows to whether the example is right."""

from __future__ import annotations

from collections.abc import Sequence

from harness.evaluate.core.items import ExampleItem, Outcome, RowScore


def judge(item: ExampleItem, scores: Sequence[RowScore]) -> Outcome:
    """The outcome of one example from the scores of its rows, in their order. Raises ValueError when a score is missing.

    Options are judged by the lowest mean loss per token, language modelling by greedy agreement in every scored token.
    """
    if len(scores) != len(item.rows):
        raise ValueError(f"{item.task} example {item.example} has {len(item.rows)} rows and got {len(scores)} scores")
    losses = tuple(score.mean_loss for score in scores)
    if item.kind == "language_modeling":
        row = item.rows[0]
        return Outcome(item.task, item.example, scores[0].all_greedy and row.start < row.end, None, losses)
    choice = preferred(losses)
    return Outcome(item.task, item.example, choice == item.gold, choice, losses)


def preferred(losses: Sequence[float]) -> int:
    """Index of the lowest loss, the first of equal ones.

    A loss that is NaN (a row without a scored token) beats all when it stands first and loses to all otherwise: that is what a
    minimum found by `<` from left to right makes of it, so the historical evaluator too.
    """
    best = 0
    for index, loss in enumerate(losses):
        if loss < losses[best]:
            best = index
    return best
