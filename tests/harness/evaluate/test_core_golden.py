"""The table of tasks and the prompts, as golden facts: by hand for small tasks, by digest for the real ones.

The digests were written down while `test_core_nanochat` held on every example of every task, in GPT-2 tokens.
"""

from __future__ import annotations

import hashlib

import pytest

from harness.errors import UsageProblem
from harness.evaluate.core.bundle import open_bundle
from harness.evaluate.core.cuts import uncut
from harness.evaluate.core.examples import parse_examples
from harness.evaluate.core.prompts import draw_shots, in_order, prompts, solved
from harness.evaluate.core.rows import tokenize_task
from harness.evaluate.core.tasks import CORE_TASKS, Task, select
from tests.harness.evaluate.core_samples import (
    CHOICES,
    PASSAGES,
    REAL_BUNDLE,
    SCHEMAS,
    Rows,
    content_of,
    learned_tokenizer,
    needs_real_bundle,
    public_tokenizer,
    task_of,
)

TASKS = [
    ("hellaswag_zeroshot", "multiple_choice", 0, " ", 10042, 25, 25),
    ("jeopardy", "language_modeling", 10, "\nAnswer: ", 2117, 0, 0),
    ("bigbench_qa_wikidata", "language_modeling", 10, " ", 20321, 0, 0),
    ("arc_easy", "multiple_choice", 10, "\nAnswer: ", 2376, 25, 25),
    ("arc_challenge", "multiple_choice", 10, "\nAnswer: ", 1172, 25, 25),
    ("copa", "multiple_choice", 0, " ", 100, 50, 50),
    ("commonsense_qa", "multiple_choice", 10, " ", 1221, 20, 40.3),
    ("piqa", "multiple_choice", 10, "\nAnswer: ", 1838, 50, 50),
    ("openbook_qa", "multiple_choice", 0, " ", 500, 25, 25),
    ("lambada_openai", "language_modeling", 0, " ", 5153, 0, 0),
    ("hellaswag", "multiple_choice", 10, " ", 10042, 25, 25),
    ("winograd", "schema", 0, " ", 273, 50, 50),
    ("winogrande", "schema", 0, " ", 1267, 50, 50),
    ("bigbench_dyck_languages", "language_modeling", 10, " ", 1000, 0, 0),
    ("agi_eval_lsat_ar", "multiple_choice", 3, " ", 230, 20, 25),
    ("bigbench_cs_algorithms", "language_modeling", 10, " ", 1320, 0, 0),
    ("bigbench_operators", "language_modeling", 10, " ", 210, 0, 0),
    ("bigbench_repeat_copy_logic", "language_modeling", 10, " ", 32, 0, 0),
    ("squad", "language_modeling", 10, " ", 10570, 0, 0),
    ("coqa", "language_modeling", 0, " ", 7983, 0, 0),
    ("boolq", "multiple_choice", 10, "\nAnswer: ", 3270, 62, 62),
    ("bigbench_language_identification", "multiple_choice", 10, " ", 10000, 9.1, 25),
]
"""label, kind, shots, delimiter, examples, historical baseline, corrected baseline (percent)."""


def test_the_table_is_the_historical_one() -> None:
    table = [
        (task.label, task.kind, task.shots, task.delimiter, task.rows, task.random_baseline, task.corrected_baseline) for task in CORE_TASKS
    ]
    assert table == TASKS


def test_there_are_22_tasks_of_91037_examples_in_21_files() -> None:
    assert (len(CORE_TASKS), sum(task.rows for task in CORE_TASKS), len({task.file for task in CORE_TASKS})) == (22, 91_037, 21)


def test_selected_tasks_keep_the_tables_order() -> None:
    assert [task.label for task in select(["squad", "copa"])] == ["copa", "squad"]


def test_an_unknown_task_is_named_with_those_that_exist() -> None:
    with pytest.raises(UsageProblem, match=r"--tasks: CORE has no task copacabana; one of: hellaswag_zeroshot, .*language_identification"):
        select(["copa", "copacabana"])


# ---------------------------------------------------------------------- prompts by hand


def texts_of(task: Task, rows: Rows, position: int, shown: list[int]) -> list[str]:
    """The prompts of one example of the file's order after some others."""
    examples = parse_examples(task, content_of(rows), "here")
    before = [solved(examples[at], task.delimiter, uncut) for at in shown]
    return ["".join(pieces) for pieces in prompts(examples[position], before, task.delimiter, uncut)]


def test_multiple_choice_prompts() -> None:
    task = task_of("multiple_choice", CHOICES, delimiter="\nAnswer: ")
    assert texts_of(task, CHOICES, 0, [1, 3]) == [
        "Which one is warm?\nAnswer: the sun\n\n Who, said: «nein»?\nAnswer: er selbst\n\nWhere do fish live?\nAnswer: in water",
        "Which one is warm?\nAnswer: the sun\n\n Who, said: «nein»?\nAnswer: er selbst\n\nWhere do fish live?\nAnswer: in trees",
    ]


def test_schema_prompts() -> None:
    assert texts_of(task_of("schema", SCHEMAS), SCHEMAS, 1, [2]) == [
        "A dog saw a cat and the dog barked at it\n\nAnn thanked Eve as Ann had helped",
        "A dog saw a cat and the dog barked at it\n\nAnn thanked Eve as Eve had helped",
    ]


def test_language_modelling_prompts_trim_contexts_but_not_continuations() -> None:
    assert texts_of(task_of("language_modeling", PASSAGES), PASSAGES, 0, [1]) == [
        "The opposite of up is down  \n\nOne, two, three,",
        "The opposite of up is down  \n\nOne, two, three, four",
    ]


def test_examples_are_shuffled_and_shots_drawn_as_python_random_does_it() -> None:
    """The same in Python 3.6 to 3.13. Were another version to draw otherwise, its CORE would be another number."""
    rows: Rows = [{"context": str(number), "continuation": "x"} for number in range(30)]
    task = task_of("language_modeling", rows, shots=10)
    kept = in_order(task, parse_examples(task, content_of(rows), "here"), 12)
    assert [example.line - 1 for example in kept] == ORDER
    assert draw_shots(12, 0, 10) == SHOTS_0
    assert draw_shots(12, 7, 10) == SHOTS_7


ORDER = [4, 7, 28, 0, 2, 24, 3, 15, 27, 8, 14, 13]
SHOTS_0 = [8, 2, 1, 10, 7, 5, 9, 6, 4, 11]
SHOTS_7 = [10, 11, 8, 3, 2, 6, 1, 9, 5, 0]


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_fewer_examples_than_the_shots_need_are_refused(limit: int) -> None:
    """The historical evaluator ends in a ValueError of Python's `sample` here."""
    task = task_of("multiple_choice", CHOICES, shots=3)
    with pytest.raises(
        UsageProblem, match=rf"--limit: tiny asks each question after 3 other examples, and there are {limit} in all; .* 4$"
    ):
        in_order(task, parse_examples(task, content_of(CHOICES), "here"), limit)


def test_a_limit_beyond_the_examples_keeps_them_all() -> None:
    task = task_of("multiple_choice", CHOICES, shots=3)
    examples = parse_examples(task, content_of(CHOICES), "here")
    assert in_order(task, examples, 99) == in_order(task, examples, None)
    assert {example.line for example in in_order(task, examples, 99)} == {1, 2, 3, 4}


# ---------------------------------------------------------------------- the real prompts, by digest

DIGESTS: dict[str, tuple[str, str]] = {
    "hellaswag_zeroshot": ("ddf40c7785674ef7", "376d9415d3d3aee8"),
    "jeopardy": ("fc98e732c4fee40c", "f452768623ed8a95"),
    "bigbench_qa_wikidata": ("c5853ee0ef142fda", "3809a07384226666"),
    "arc_easy": ("d09be19a157a6f3a", "825f31e6368f593d"),
    "arc_challenge": ("30f99bdd7a57ddf9", "07f948a6ba32cae7"),
    "copa": ("7a768320661e199c", "4c938f76df2d0de5"),
    "commonsense_qa": ("d55e6bf7a53f6aa0", "4fd8d03467a9bdc5"),
    "piqa": ("a4131bc092929340", "998c4249f9fdd241"),
    "openbook_qa": ("3491379e6944f4d6", "e4a936d8be14a269"),
    "lambada_openai": ("e442ab5d9da3565e", "159fbcf65009b189"),
    "hellaswag": ("d7b190a1c17b81e5", "cbf6a1167fd2e7d9"),
    "winograd": ("3220edea1c870f95", "a23850660f99aaa5"),
    "winogrande": ("2576a4f54d9b2ad4", "4024804940d9cf3d"),
    "bigbench_dyck_languages": ("14ee5587f8d21e37", "a9b9cfd375d77fe9"),
    "agi_eval_lsat_ar": ("40d37e843e545b96", "8a8c50cfdcfa204c"),
    "bigbench_cs_algorithms": ("bd0d28717580051b", "cfa2709f2d58f7c3"),
    "bigbench_operators": ("ed0bb88ee6e61362", "8c2971308c287315"),
    "bigbench_repeat_copy_logic": ("02de535b4e3c965a", "ef3c1129ded8cfdf"),
    "squad": ("443d55b1e53380f1", "ee383dabc31ab133"),
    "coqa": ("ea3a8a8363e51c15", "0ac1c54c5a851b0e"),
    "boolq": ("c48745e4aa51f267", "25cc36e72a12599d"),
    "bigbench_language_identification": ("149f8ead7652bf67", "2b01aa6ee44693c0"),
}
"""label -> `text_digest`, `row_digest`."""


def text_digest(task: Task, examples: int = 32) -> str:
    """Over the prompts of the first scored examples, their shots drawn among all."""
    kept = in_order(task, open_bundle(REAL_BUNDLE).examples(task), None)
    sha256 = hashlib.sha256()
    for position in range(examples):
        shots = [solved(kept[at], task.delimiter, uncut) for at in draw_shots(len(kept), position, task.shots)]
        for pieces in prompts(kept[position], shots, task.delimiter, uncut):
            sha256.update("".join(pieces).encode() + b"\0")
    return sha256.hexdigest()[:16]


def row_digest(task: Task, limit: int = 24) -> str:
    """Over the GPT-2 tokens and regions of a limited evaluation's rows."""
    tokenizer = public_tokenizer("gpt2")
    made = tokenize_task(task, open_bundle(REAL_BUNDLE).examples(task), tokenizer, limit=limit)
    return hashlib.sha256(b"".join(row.key for item in made for row in item.rows)).hexdigest()[:16]


@needs_real_bundle
@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_the_real_prompts(task: Task) -> None:
    assert text_digest(task) == DIGESTS[task.label][0]


@needs_real_bundle
@pytest.mark.parametrize("task", CORE_TASKS, ids=lambda task: task.label)
def test_the_real_rows_in_gpt2_tokens(task: Task) -> None:
    assert row_digest(task) == DIGESTS[task.label][1]


@needs_real_bundle
def test_piqa_has_choices_without_a_scored_token() -> None:
    """One of them begins the other: 4 such rows under GPT-2's tokens, where the historical mean loss is NaN."""
    (task,) = select(["piqa"])
    made = tokenize_task(task, open_bundle(REAL_BUNDLE).examples(task), public_tokenizer("gpt2"))
    assert made.quirks.unscored_rows == 4
    assert made.quirks.merged_boundaries == made.quirks.cropped_rows == 0


def test_a_learned_tokenizer_is_cut() -> None:
    assert learned_tokenizer().splits_before_spaces
