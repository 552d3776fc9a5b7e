"""R05 and R06: a slot is code that a person can read, not a container for data."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator

from harness.rules.registry import Breach, Example, rule
from harness.rules.source import SourceFile

MAX_LITERAL_CHARACTERS = 1_000
"""Of one string or bytes literal that is no docstring."""
MAX_DOCSTRING_CHARACTERS = 6_000
MAX_DIGITS = 40
MAX_NUMBERS = 1_000
"""Numeric literals in one file. The baseline's model has fewer than a hundred."""

CODING_COOKIE = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
"""PEP 263: a comment in the first two lines that would make Python read the bytes in another encoding than the reviewer."""
HIDDEN_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of characters that have no shape of their own: controls, direction marks, zero-width joiners."""


@rule(
    "R05",
    "No weights in code",
    f"""Training starts from random weights. A slot file has at most 64 KiB; a string that is no docstring at most
    {MAX_LITERAL_CHARACTERS:,} characters; a whole number at most {MAX_DIGITS} digits; a file at most {MAX_NUMBERS:,} numbers. Nothing
    learned elsewhere may come in by another way either: the loss before the first step must be near ln(vocabulary), and the initial
    weights must follow from the seed.""",
    allowed=(
        Example("COEFFICIENTS = (3.4445, -4.7750, 2.0315)\n"),
        Example(f'"""{"A long explanation. " * 100}"""\n'),
    ),
    refused=(
        Example(f"WEIGHTS = '{'A' * 1_001}'\n"),
        Example(f"WEIGHTS = b'{'A' * 1_001}'\n"),
        Example(f"WEIGHTS = 1{'0' * 40}\n"),
        Example(f"WEIGHTS = 0x{'f' * 40}\n"),
        Example(f"WEIGHTS = ({'1, ' * 1_001})\n"),
    ),
)
def no_weights(source: SourceFile) -> Iterator[Breach]:
    docstrings = {id(text) for text in _docstrings(source)}
    numbers = 0
    for node in source.nodes:
        if not isinstance(node, ast.Constant):
            continue
        if isinstance(node.value, (str, bytes)):
            limit = MAX_DOCSTRING_CHARACTERS if id(node) in docstrings else MAX_LITERAL_CHARACTERS
            if len(node.value) > limit:
                yield node.lineno, f"a text of {len(node.value):,} characters, {limit:,} are allowed; compute it, or explain in README.md"
        elif isinstance(node.value, (int, float, complex)) and not isinstance(node.value, bool):
            numbers += 1
            if isinstance(node.value, int) and node.value >= 10**MAX_DIGITS:
                yield node.lineno, f"a whole number of more than {MAX_DIGITS} digits; compute it"
    if numbers > MAX_NUMBERS:
        yield 1, f"{numbers:,} numbers in one file, {MAX_NUMBERS:,} are allowed; compute them"


def _docstrings(source: SourceFile) -> Iterator[ast.expr]:
    """Constants that stand alone as statements: docstrings, and texts below a constant."""
    return (node.value for node in source.nodes if isinstance(node, ast.Expr))


@rule(
    "R06",
    "What is read is what runs",
    """Slot files are UTF-8 with line feeds, without control characters, without characters that turn the direction of writing or have
    no width, without a coding declaration, and with names in ASCII. A reviewer then sees the program that Python sees.""",
    allowed=(
        Example("# √, · and “quotes” are fine in comments\nlr = 0.1  # η\n"),
        Example("# -*- coding: utf-8 -*-\n"),
    ),
    refused=(
        Example("# \u202e txet desrever\n"),
        Example("# a\u200bb\n"),
        Example("x = 1  # \x1b[2K\n"),
        Example("# coding: utf-7\n"),
        Example("l\u0430yer = 1  # the second letter is Cyrillic\n"),
        Example("width = 768\r\nheads = 6\r\n"),
    ),
)
def readable_text(source: SourceFile) -> Iterator[Breach]:
    lines = source.text.split("\n")
    for number, line in enumerate(lines, start=1):
        hidden = next((c for c in line if unicodedata.category(c) in HIDDEN_CATEGORIES and c != "\t"), None)
        if hidden == "\r":
            yield number, "a carriage return; save the file with line feeds alone"
        elif hidden:
            yield number, f"the invisible character U+{ord(hidden):04X} ({unicodedata.name(hidden, 'control')}); delete it"
    for number, line in enumerate(lines[:2], start=1):
        cookie = CODING_COOKIE.match(line)
        if cookie and cookie[1].lower().replace("_", "-") not in ("utf-8", "utf8"):
            yield number, f"declares the coding {cookie[1]!r}; delete the declaration, files are UTF-8"
    for node in source.nodes:
        name = _name_of(node)
        if name and not name.isascii():
            yield getattr(node, "lineno", 1), f"the name {name!r} has letters beyond ASCII, which can look like others; rename it"


def _name_of(node: ast.AST) -> str | None:
    """The identifier that a node introduces or uses."""
    for field in ("id", "attr", "arg", "name", "asname"):
        value = getattr(node, field, None)
        if isinstance(value, str):
            return value
    return None
