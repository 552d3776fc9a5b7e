"""A slot file as the rules see it: its text, its syntax tree, and which imported thing each name stands for."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


class UnreadableSource(Exception):  # noqa: N818 - a finding in the making, not a failure of the program
    """Text that is not Python. Carries the line and what to say of it."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True)
class SourceFile:
    """One file of a submission. The tree raises UnreadableSource when it is first asked for, if the text is not Python."""

    name: str
    text: str

    @property
    def slot(self) -> str:
        return self.name.removesuffix(".py")

    @cached_property
    def tree(self) -> ast.Module:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an invalid escape is the entrant's affair
                return ast.parse(self.text)
        except SyntaxError as error:
            raise UnreadableSource(error.lineno or 1, f"{error.msg}; mend the syntax") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise UnreadableSource(1, "nested too deeply, or not text that Python reads; write plain code") from error

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All nodes of the tree, outer ones first."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def imports(self) -> tuple[tuple[int, str, str], ...]:
        """(line, dotted name, name that it is bound to) of everything that the file imports, at any depth."""
        return tuple(found for node in self.nodes for found in _imported(node))

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Name in this file -> dotted name of the import behind it; `t` -> `torch` also for `t = torch`."""
        found = {bound: dotted for _, dotted, bound in self.imports}
        for node in self.nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                named = _resolve(node.value, found)
                if named:
                    found.setdefault(node.targets[0].id, named)
        return found

    def dotted(self, node: ast.AST) -> str | None:
        """The imported thing that an expression names, such as `torch.nn.functional.relu` for `F.relu`; None for anything else."""
        return _resolve(node, self.aliases)

    def references(self) -> Iterator[tuple[int, str]]:
        """(line, dotted name) wherever the file names something imported, imports themselves among them."""
        yield from ((line, name) for line, name, _ in self.imports)
        for node in self.nodes:
            if isinstance(node, (ast.Attribute, ast.Name)):
                dotted = self.dotted(node)
                if dotted:
                    yield node.lineno, dotted


def _imported(node: ast.AST) -> Iterator[tuple[int, str, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            bound = alias.asname or alias.name.split(".")[0]
            yield node.lineno, alias.name, bound
            if not alias.asname:
                yield node.lineno, bound, bound
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            yield node.lineno, f"{module}.{alias.name}" if node.module else module + alias.name, alias.asname or alias.name


def _resolve(node: ast.AST, aliases: dict[str, str]) -> str | None:
    """Dotted name of a chain of attributes that starts at an alias."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in aliases:
        return None
    return ".".join([aliases[node.id], *reversed(parts)])


def is_within(dotted: str, parent: str) -> bool:
    """Whether `dotted` is `parent` or something in it."""
    return dotted == parent or dotted.startswith(parent + ".")
