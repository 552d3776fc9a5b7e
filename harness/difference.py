"""How a submission differs from its parent, for people, and by how much from the baseline, as one number."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from pathlib import Path

from harness.record import SlotName
from harness.submission import SLOT_FUNCTION, SLOTS, Submission

BASELINE_FOLDER = Path(__file__).resolve().parent.parent / "baseline"

IDENTITY: dict[SlotName, str] = {
    "config": "def configure(config: TrainConfig) -> TrainConfig:\n    return config\n",
    "kernels": "def replace_ops(ops: Ops, config: TrainConfig) -> Ops:\n    return ops\n",
}
"""What the baseline does in the slots where it has no function: nothing."""


@dataclass(frozen=True, slots=True)
class SlotDifference:
    """One slot in which a submission and what it builds on differ."""

    slot: SlotName
    against: str
    """What the old side is, such as `baseline/model.py, build_model`."""
    diff: str
    """Unified diff, with the file names in its head."""


def differences(submission: Submission, parent: Submission | None) -> tuple[SlotDifference, ...]:
    """Slot by slot against the parent; against the baseline where the parent overrides nothing, or is None."""
    found = []
    for slot in SLOTS:
        old_label, old = _slot_source(slot, parent, like=submission)
        new_label, new = _slot_source(slot, submission, like=parent)
        if old != new:
            lines = unified_diff(old.splitlines(), new.splitlines(), old_label, new_label, lineterm="")
            found.append(SlotDifference(slot, old_label, "\n".join(lines) + "\n"))
    return tuple(found)


def diff_lines(submission: Submission) -> int:
    """Lines of code added and removed against the baseline in the overridden slots: the submission's complexity.

    Comments, docstrings, imports and layout do not count. A file is compared with the baseline's function of its slot, or
    with the baseline's whole file if it is nearer to that.
    """
    return sum(_least_changed(slot, _text(submission, slot)) for slot in submission.slots)


# ---------------------------------------------------------------------- sources


def _slot_source(slot: SlotName, submission: Submission | None, like: Submission | None) -> tuple[str, str]:
    """(label, source) of what stands in a slot: the submission's file, else the form of the baseline nearest to `like`'s file."""
    if submission and slot in submission.slots:
        return f"{submission.name}/{slot}.py", _text(submission, slot)
    if like is None or slot not in like.slots:
        return f"baseline {slot}", ""
    return min(_baseline_sources(slot).items(), key=lambda item: changed_lines(item[1], _text(like, slot)))


def _text(submission: Submission, slot: SlotName) -> str:
    return submission.files[f"{slot}.py"].decode("utf-8")


def _baseline_sources(slot: SlotName) -> dict[str, str]:
    """Label -> source: the baseline's function of the slot, and the file that holds it."""
    function = SLOT_FUNCTION[slot]
    if slot in IDENTITY:
        return {f"baseline, {function}": IDENTITY[slot]}
    text = (BASELINE_FOLDER / f"{slot}.py").read_text(encoding="utf-8")
    node = next(n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == function)
    return {f"baseline/{slot}.py, {function}": (ast.get_source_segment(text, node) or "") + "\n", f"baseline/{slot}.py": text}


# ---------------------------------------------------------------------- counting


def _least_changed(slot: SlotName, text: str) -> int:
    return min(changed_lines(code_only(old), code_only(text)) for old in _baseline_sources(slot).values())


def changed_lines(old: str, new: str) -> int:
    """Lines that a line-by-line diff removes, and lines that it adds, together."""
    before, after = old.splitlines(), new.splitlines()
    kept = sum(block.size for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks())
    return len(before) + len(after) - 2 * kept


def code_only(text: str) -> str:
    """The program without comments, texts that stand alone, imports and layout; text that is not Python as it is."""
    try:
        tree = ast.parse(text)
        for node in ast.walk(tree):
            for name in ("body", "orelse", "finalbody"):
                statements = getattr(node, name, None)
                if isinstance(statements, list):
                    setattr(node, name, [s for s in statements if not _is_prose(s)])
        return ast.unparse(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text


def _is_prose(statement: ast.stmt) -> bool:
    lone_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    return lone_text or isinstance(statement, (ast.Import, ast.ImportFrom))
