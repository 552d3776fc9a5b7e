"""R03 and R04: an entry adds its own code; it does not change other code, and does not make code at run time."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.rules.registry import Breach, Example, rule
from harness.rules.source import SourceFile, is_within

MUTATORS = frozenset(("append", "extend", "insert", "update", "setdefault", "pop", "popitem", "clear", "remove", "add", "discard", "sort"))
INTERCEPTORS = (
    *("torch.overrides", "torch.utils._python_dispatch", "torch._C", "torch._ops", "torch._tensor"),
    *("torch.library.Library", "torch.library.impl", "torch.library.define", "torch.library.fallthrough_kernel"),
    *("torch.nn.modules.module.register_module_forward_hook", "torch.nn.modules.module.register_module_forward_pre_hook"),
    *("torch.nn.modules.module.register_module_full_backward_hook", "torch.nn.modules.module.register_module_module_registration_hook"),
)
"""Ways in which torch lets one piece of code change what another does."""

REFUSED_BUILTINS = {
    **dict.fromkeys(("exec", "eval", "compile", "__import__"), "makes code at run time"),
    **dict.fromkeys(("globals", "locals", "vars", "dir"), "reaches variables by name"),
    **dict.fromkeys(("open", "input"), "reads or writes outside the program"),
    **dict.fromkeys(("breakpoint", "exit", "quit", "help"), "stops the program"),
}
OPEN_DUNDERS = (
    *("__init__", "__call__", "__name__", "__doc__", "__all__", "__post_init__", "__repr__", "__len__", "__getitem__", "__setitem__"),
    *("__iter__", "__enter__", "__exit__", "__eq__", "__hash__", "__getattr__", "__setattr__"),
)
FRAME_ATTRIBUTES = frozenset(
    ("gi_frame", "cr_frame", "ag_frame", "tb_frame", "f_back", "f_globals", "f_locals", "f_builtins", "gi_code", "cr_code", "f_code")
)

SUBCLASS = """
from baseline.model import GPT

class Mine(GPT):
    def embed(self, tokens, cache=None):
        return super().embed(tokens, cache) * 2

def build_model(config, ops):
    model = Mine(config, ops)
    model.note = "an attribute of one's own object"
    return model
"""


def _line(line: str, imports: str = "import torch") -> Example:
    return Example(f"{imports}\n{line}\n")


@rule(
    "R03",
    "No patching",
    """An entry must not change what other code does: no assignment to attributes or items of anything imported, no `setattr` on it,
    no torch hooks that intercept everybody's calls. Subclass, wrap, or replace an op through `replace_ops`. A patched library would
    change the baseline it is compared with, and no reader could tell from the slot what runs.""",
    allowed=(
        Example(SUBCLASS),
        _line("setattr(config, 'x', 1)"),
    ),
    refused=(
        _line("torch.nn.functional.relu = None"),
        _line("F.relu = None", "import torch.nn.functional as F"),
        _line("GPT.forward = None", "from baseline.model import GPT"),
        _line("setattr(torch, 'matmul', None)"),
        _line("t = torch; t.matmul = None"),
        _line("CHOICES['dtype'] = ()", "from baseline.config import CHOICES"),
        _line("CHOICES.update(dtype=())", "from baseline.config import CHOICES"),
        _line("del torch.Tensor.__add__"),
        _line("Library('aten', 'IMPL')", "from torch.library import Library"),
        Example("from torch.overrides import TorchFunctionMode\n"),
    ),
)
def no_patching(source: SourceFile) -> Iterator[Breach]:
    for node in source.nodes:
        for target in _targets(node):
            changed = source.dotted(target) if isinstance(target, ast.Attribute) else _container(source, target)
            if changed:
                yield target.lineno, f"changes {changed}, which is not this entry's; subclass or wrap it"
        if isinstance(node, ast.Call):
            yield from _patching_call(source, node)
    for line, dotted in source.references():
        if any(is_within(dotted, name) for name in INTERCEPTORS):
            yield line, f"{dotted} changes what other code does; use torch.library.custom_op, or replace_ops"


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    """What a statement binds or deletes, tuples taken apart."""
    if isinstance(node, (ast.Assign, ast.Delete)):
        stack = list(node.targets)
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.For, ast.comprehension)):
        stack = [node.target]
    elif isinstance(node, ast.withitem) and node.optional_vars:
        stack = [node.optional_vars]
    else:
        return
    while stack:
        target = stack.pop()
        if isinstance(target, (ast.Tuple, ast.List)):
            stack.extend(target.elts)
        elif isinstance(target, ast.Starred):
            stack.append(target.value)
        else:
            yield target


def _container(source: SourceFile, target: ast.expr) -> str | None:
    """The imported thing whose item is assigned."""
    return source.dotted(target.value) if isinstance(target, ast.Subscript) else None


def _patching_call(source: SourceFile, call: ast.Call) -> Iterator[Breach]:
    if isinstance(call.func, ast.Name) and call.func.id in ("setattr", "delattr") and call.args:
        changed = source.dotted(call.args[0])
        if changed:
            yield call.lineno, f"{call.func.id} on {changed}, which is not this entry's; subclass or wrap it"
    if isinstance(call.func, ast.Attribute) and call.func.attr in MUTATORS:
        changed = source.dotted(call.func.value)
        if changed and changed.count(".") >= 2:
            yield call.lineno, f"changes {changed}, which is not this entry's; copy it first"


@rule(
    "R04",
    "What runs is what is written",
    """No `exec`, `eval`, `compile`, `__import__`, `open`, `globals` and the like; no attributes with double underscores beyond the
    ordinary ones (`super().__init__`), no frames, no `getattr` on a module with a computed name. Such code does something else than
    it says. The one exception is `getattr(torch, config.dtype)`, the baseline's own way to name a dtype.""",
    allowed=(
        _line("getattr(config, 'depth')"),
        _line("getattr(torch, config.dtype)"),
        _line("torch.compile(ops.linear)"),
        Example(
            "import torch\n\nclass Layer(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n\n"
            + "build_model = Layer\n"
        ),
    ),
    refused=(
        _line("exec('pass')"),
        _line("eval('1')"),
        _line("run = eval"),
        _line("open('/etc/passwd')"),
        _line("__builtins__"),
        _line("().__class__.__base__.__subclasses__()"),
        _line("ops.linear.__globals__"),
        _line("getattr(torch, 'o' + 's')"),
        _line("getattr(config, '__class__')"),
    ),
)
def no_dynamic_code(source: SourceFile) -> Iterator[Breach]:
    for node in source.nodes:
        if isinstance(node, ast.Name) and node.id not in source.aliases:
            if node.id in REFUSED_BUILTINS:
                yield node.lineno, f"{node.id} {REFUSED_BUILTINS[node.id]}; write what is meant"
            elif _is_closed_dunder(node.id):
                yield node.lineno, f"{node.id} belongs to the interpreter; an entry has no use for it"
        elif isinstance(node, ast.Attribute) and (_is_closed_dunder(node.attr) or node.attr in FRAME_ATTRIBUTES):
            yield node.lineno, f".{node.attr} belongs to the interpreter; an entry has no use for it"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "delattr"):
            yield from _computed_attribute(source, node)


def _is_closed_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in OPEN_DUNDERS


def _computed_attribute(source: SourceFile, call: ast.Call) -> Iterator[Breach]:
    """`getattr` and its kin with a name that a reader cannot see, or should not."""
    if len(call.args) < 2 or not isinstance(call.func, ast.Name):
        return
    target, name = call.args[0], call.args[1]
    if isinstance(name, ast.Constant):
        if isinstance(name.value, str) and _is_closed_dunder(name.value):
            yield call.lineno, f"{name.value} belongs to the interpreter; an entry has no use for it"
    elif source.dotted(target) and not (source.dotted(target) == "torch" and isinstance(name, ast.Attribute) and name.attr == "dtype"):
        yield call.lineno, f"{call.func.id} on {source.dotted(target)} with a computed name; write the name"
