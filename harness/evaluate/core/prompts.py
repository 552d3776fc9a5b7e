"""The prompts of a task: which examples, in which order, after which solved ones, and their text.

Every choice here is the retired board's, and each moves the score: the shuffle, the seeds, the blank lines, what is trimmed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from harness.errors import UsageProblem
from harness.evaluate.core.cuts import Cutter, Pieces, joined, trimmed
from harness.evaluate.core.examples import Example, LanguageModeling, MultipleChoice, Schema
from harness.evaluate.core.tasks import Task

SHUFFLE_SEED = 1337
SHOTS_SEED = 1234
"""Plus the example's position."""
BETWEEN_EXAMPLES = "\n\n"


def in_order(task: Task, examples: Sequence[Example], limit: int | None) -> list[Example]:
    """The examples that are scored: the file's, shuffled, and the first `limit` of them. Shots are drawn among the same.

    Raises UsageProblem when these are too few to draw the task's shots from.
    """
    shuffled = list(examples)
    random.Random(SHUFFLE_SEED).shuffle(shuffled)
    kept = shuffled[:limit] if limit is not None else shuffled
    if len(kept) <= task.shots:
        raise UsageProblem(
            f"{task.label} asks each question after {task.shots} other examples, and there are {len(kept)} in all",
            where="--limit",
            mend=f"at least {task.shots + 1}",
        )
    return kept


def draw_shots(count: int, example: int, shots: int) -> list[int]:
    """Positions of the solved examples that precede `example` among `count` examples, in the order in which they are shown."""
    drawn = random.Random(SHOTS_SEED + example).sample(range(count - 1), shots) if shots else []
    return [at if at < example else at + 1 for at in drawn]


def stems_and_endings(example: Example, delimiter: str) -> tuple[tuple[str, str], ...]:
    """(question with the delimiter, answer) of each option; one for language modelling. Only its contexts are trimmed."""
    match example:
        case MultipleChoice():
            return tuple((example.query + delimiter, choice) for choice in example.choices)
        case Schema():
            return tuple((option + delimiter, example.continuation) for option in example.context_options)
        case LanguageModeling():
            return ((example.context.strip() + delimiter, example.continuation),)


def gold_of(example: Example) -> int:
    """Index of the right option."""
    return 0 if isinstance(example, LanguageModeling) else example.gold


def solved(example: Example, delimiter: str, cutter: Cutter) -> Pieces:
    """The example with its right answer, as others show it: a blank line follows."""
    stem, ending = stems_and_endings(example, delimiter)[gold_of(example)]
    return cutter(stem, ending + BETWEEN_EXAMPLES)


def prompts(example: Example, shots: Iterable[Pieces], delimiter: str, cutter: Cutter) -> list[list[str]]:
    """The pieces of each prompt: one prompt per option; for language modelling the prompt without its continuation, then with it.

    The prompt without continuation is trimmed as a whole, since white space before a word belongs to the word's token.
    """
    before = list(shots)
    options = stems_and_endings(example, delimiter)
    asked = [joined([*before, cutter(stem, ending)]) for stem, ending in options]
    if not isinstance(example, LanguageModeling):
        return asked
    return [trimmed(joined([*before, cutter(options[0][0], "")])), *asked]
