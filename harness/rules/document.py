"""Writes RULES.md: the hand-written introduction, then every rule with its examples. `python -m harness.rules.document`."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import fill

from harness.rules import RULES, Rule
from harness.rules.registry import Example

INTRODUCTION = Path(__file__).with_name("introduction.md")
DOCUMENT = Path(__file__).resolve().parents[2] / "RULES.md"
ANY_FILE = "model.py"
"""Examples in this file stand for every slot; the others name theirs."""
MAX_SHOWN_CHARACTERS = 600
"""Examples that consist of filling, such as a thousand digits, are cut in the document."""


def render() -> str:
    """The whole text of RULES.md."""
    rules = "\n".join(_section(RULES[id]) for id in sorted(RULES))
    return f"{INTRODUCTION.read_text(encoding='utf-8').rstrip()}\n\n{rules}"


def _section(rule: Rule) -> str:
    """One rule as Markdown."""
    refused = "Refused" if rule.severity == "refuse" else "Shown as a warning, and run all the same"
    return (
        f"### {rule.id} · {rule.title}\n\n{fill(rule.paragraph, 130)}\n\n"
        f"Allowed:\n\n{_blocks(rule.allowed)}\n{refused}:\n\n{_blocks(rule.refused)}"
    )


def _blocks(examples: tuple[Example, ...]) -> str:
    """Examples as one code block for each file."""
    files = dict.fromkeys(example.file for example in examples)
    codes = {file: "\n\n".join(_shown(e.code) for e in examples if e.file == file) for file in files}
    return "\n".join(f"```python\n{'' if file == ANY_FILE else f'# {file}' + chr(10)}{code}\n```\n" for file, code in codes.items())


def _shown(code: str) -> str:
    """The code without `import torch`, with invisible characters spelled out, and cut where it is mere filling."""
    code = re.sub(r"^import torch\n(?=\S)", "", code)
    visible = "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in code.strip("\n"))
    return visible if len(visible) <= MAX_SHOWN_CHARACTERS else f"{visible[:60]}…\n# … and so on"


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
