"""R01 and R11: a slot file defines its slot's function, and does nothing else when it is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.rules.registry import Breach, Example, rule
from harness.rules.source import SourceFile
from harness.submission import SLOT_FILES, SLOT_FUNCTION

PARAMETERS = {
    "config": ("config",),
    "model": ("config", "ops"),
    "optimizer": ("model", "config", "ops", "world"),
    "schedule": ("step", "config"),
    "kernels": ("ops", "config"),
}
"""Slot -> parameter names of its function, as in `baseline.contract` (which needs torch to import)."""

CONFIGURE = """
from baseline.config import TrainConfig

def configure(config: TrainConfig) -> TrainConfig:
    return config.with_(softcap=0.0)
"""


@rule(
    "R01",
    "An entry overrides slots, and nothing else",
    """A submission changes the baseline in five places: `config`, `model`, `optimizer`, `schedule`, `kernels`. Each is one file that
    defines one function, with the name and the parameters that `baseline/contract.py` gives it. Everything else (rows, loop, clock,
    checkpoint, evaluation) is the same for all entries, so that a difference between two entries is a difference between their slots.""",
    allowed=(
        Example(CONFIGURE, "config.py"),
        Example("from baseline.optimizer import build_optimizer\n", "optimizer.py"),
    ),
    refused=(
        Example("def train(config):\n    return config\n", "config.py"),
        Example("def build_model(config):\n    return None\n"),
        Example("def build_model(config, ops)\n    return None\n"),
    ),
)
def overrides_its_slot(source: SourceFile) -> Iterator[Breach]:
    if source.name not in SLOT_FILES:
        return
    name, parameters = SLOT_FUNCTION[SLOT_FILES[source.name]], PARAMETERS[source.slot]
    wanted = f"`def {name}({', '.join(parameters)})`"
    if name not in _bound_names(source.tree):
        yield 1, f"the function {name} is missing; write {wanted}"
    for node in source.tree.body:
        if isinstance(node, ast.AsyncFunctionDef) and node.name == name:
            yield node.lineno, f"{name} is async; write {wanted}"
        if isinstance(node, ast.FunctionDef) and node.name == name:
            given = node.args
            names = tuple(a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs))
            if names != parameters or given.vararg or given.kwarg or given.kwonlyargs:
                yield node.lineno, f"{name} takes other parameters than the contract's; write {wanted}"


@rule(
    "R11",
    "A slot file only defines",
    """Importing a slot file happens before the clock starts, so nothing may be computed there. At the top level stand imports,
    functions, classes and constants; the work is done in the slot's function, when the trainer calls it.""",
    allowed=(
        Example("import torch\n\nSCALE = 0.5\n\ndef build_model(config, ops):\n    return torch.nn.Linear(1, 1)\n"),
        Example(
            "try:\n    import triton\nexcept ImportError:\n    triton = None\n\ndef replace_ops(ops, config):\n    return ops\n",
            "kernels.py",
        ),
    ),
    refused=(
        Example("import torch\n\ntorch.ones(3).sum()\n\ndef build_model(config, ops):\n    return None\n"),
        Example("for i in range(10):\n    pass\n\ndef build_model(config, ops):\n    return None\n"),
        Example("while True:\n    pass\n\ndef build_model(config, ops):\n    return None\n"),
    ),
)
def only_defines(source: SourceFile) -> Iterator[Breach]:
    for node in source.tree.body:
        for statement in _statements(node):
            if isinstance(statement, DEFINITIONS) or _is_text(statement):
                continue
            yield statement.lineno, f"a {type(statement).__name__.lower()} statement runs at import; move it into the slot's function"


DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Pass)
"""Statements that a slot file may have at its top level."""


def _statements(node: ast.stmt) -> Iterator[ast.stmt]:
    """The statement itself, or those inside an `if` or `try` around it."""
    if isinstance(node, (ast.If, ast.Try)):
        for inner in (*node.body, *node.orelse):
            yield from _statements(inner)
        if isinstance(node, ast.Try):
            for inner in (*node.finalbody, *(statement for handler in node.handlers for statement in handler.body)):
                yield from _statements(inner)
    else:
        yield node


def _is_text(statement: ast.stmt) -> bool:
    """Whether it is a docstring, or a text that explains the constant before it."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


def _bound_names(tree: ast.Module) -> set[str]:
    """Names that the module's top level binds."""
    names: set[str] = set()
    for node in tree.body:
        for statement in _statements(node):
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(statement.name)
            elif isinstance(statement, (ast.Import, ast.ImportFrom)):
                names.update(alias.asname or alias.name for alias in statement.names)
            elif isinstance(statement, ast.Assign):
                names.update(target.id for target in statement.targets if isinstance(target, ast.Name))
    return names
