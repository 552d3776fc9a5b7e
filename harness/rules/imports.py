"""R02 and R08: what a slot may import, and what of a run is the track's alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from baseline.config_types import FIXED_FIELDS
from harness.rules.registry import Breach, Example, rule
from harness.rules.source import SourceFile, is_within

ROOMS = ("baseline", "kernels", "submission")
ALLOWED_PACKAGES = (
    *("torch", "math", "typing", "dataclasses", "functools", "itertools", "collections", "contextlib", "abc", "enum", "__future__"),
    *ROOMS,
)
KERNEL_PACKAGES = ("triton",)
"""Packages that kernels.py may import besides."""

_PROCESSES = "an entry starts no processes or threads, and talks to nobody"
_FILES = "an entry reads and writes no files; the loop hands it what it may see"
_DYNAMIC = "code that assembles or inspects code cannot be reviewed by reading"
_CLOCK = "the parent process holds the clock; an entry has no use for the time"
_MACHINE = "an entry must do the same on every machine and in every run, and not look where it is"
REASONS: dict[str, str] = {
    **dict.fromkeys(
        ("subprocess", "multiprocessing", "threading", "concurrent", "asyncio", "signal", "_thread", "socket", "ssl"), _PROCESSES
    ),
    **dict.fromkeys(("http", "urllib", "requests", "httpx", "select", "selectors", "huggingface_hub"), _PROCESSES),
    **dict.fromkeys(("io", "pathlib", "shutil", "tempfile", "glob", "mmap", "fcntl", "zipfile", "sqlite3", "safetensors"), _FILES),
    **dict.fromkeys(("pickle", "marshal", "shelve", "dill", "cloudpickle"), _FILES),
    **dict.fromkeys(("ctypes", "cffi", "importlib", "builtins", "inspect", "gc", "types", "ast", "code", "runpy", "site"), _DYNAMIC),
    **dict.fromkeys(("base64", "zlib", "lzma", "bz2", "gzip", "binascii", "struct", "codecs"), "packed data cannot be reviewed by reading"),
    **dict.fromkeys(("time", "timeit", "datetime", "sched"), _CLOCK),
    **dict.fromkeys(("os", "sys", "platform", "psutil", "pynvml", "resource", "getpass", "atexit", "logging", "warnings"), _MACHINE),
    **dict.fromkeys(("random", "numpy", "secrets", "uuid"), "randomness comes from the generator that the trainer hands over"),
    **dict.fromkeys(("harness", "leaderboard"), "the harness judges an entry and is none of its business"),
}
"""Package -> why a slot may not have it."""

ESCAPES = frozenset(
    ("os", "sys", "subprocess", "ctypes", "importlib", "builtins", "pickle", "socket", "threading", "inspect", "gc", "shutil")
)
"""Modules that must not be reached through another package's namespace either, as in `torch.os`."""

OPEN_BASELINE = (
    *("config", "contract", "model", "generate", "optimizer", "adamw", "muon", "buckets", "shards", "roles", "schedule"),
    *("ops", "attention", "flash", "fp8", "fused_cpu"),
)
"""Modules of the baseline that a slot may build on: those behind the slots. The rest is fixed."""


@rule(
    "R02",
    "Imports come from a short list",
    f"""A slot imports {", ".join(f"`{name}`" for name in ALLOWED_PACKAGES)}, and `kernels.py` also `triton`; `submission` is its own
    folder. The list is short because the rest gives access to files, processes, the network, the clock or the interpreter, none of
    which training needs. Reaching such a module through another one (`torch.os`) is the same as importing it.""",
    allowed=(
        Example("import math\nimport torch.nn.functional as F\nfrom baseline.model import GPT\n"),
        Example("import triton\nimport triton.language as tl\n", "kernels.py"),
        Example("from submission.kernels import fused\n"),
    ),
    refused=(
        Example("import os\n"),
        Example("from harness.track import load_track\n"),
        Example("import time as t\n"),
        Example("import numpy as np\n"),
        Example("import triton\n"),
        Example("from . import optimizer\n"),
        Example("from torch import *\n"),
        Example("import torch\nplace = torch.os.environ\n"),
        Example("import contextlib\nloaded = contextlib.sys.modules\n"),
    ),
)
def imports_allowed(source: SourceFile) -> Iterator[Breach]:
    allowed = ALLOWED_PACKAGES + (KERNEL_PACKAGES if source.slot == "kernels" else ())
    for line, dotted, _ in source.imports:
        package = dotted.split(".")[0]
        if not package:
            yield line, "relative imports have no meaning here; write `from submission.<slot> import …`"
        elif dotted.endswith(".*"):
            yield line, f"`from {dotted[:-2]} import *` hides what is used; name it"
        elif package not in allowed:
            reason = REASONS.get(package, "it is not on the list of packages that every machine has")
            hint = " outside kernels.py" if package in KERNEL_PACKAGES else ""
            yield line, f"{package} may not be imported{hint}: {reason if not hint else 'kernels live in the kernels slot'}"
    for line, dotted in source.references():
        hidden = [part for part in dotted.split(".")[1:] if part.lstrip("_") in ESCAPES]
        if hidden:
            yield line, f"{dotted} reaches the module {hidden[0].lstrip('_')}; it may not be used"


@rule(
    "R08",
    "Data, tokenizer and loop are the track's",
    """Rows come packed, in the track's order, and every entry trains on the same ones; the tokenizer is pinned. So `vocab_size` and
    `sequence_len` stay as the track sets them, and a slot builds only on those modules of the baseline that stand behind slots, not
    on the loop, the rows, the checkpoint or the conversation with the harness. How many rows a batch has, and how many steps there
    are, is the entry's choice.""",
    allowed=(
        Example("def configure(config):\n    return config.with_(batch_tokens=2 * config.batch_tokens)\n", "config.py"),
        Example("from baseline.model import GPT, Block\nfrom baseline import ops\n"),
    ),
    refused=(
        Example("def configure(config):\n    return config.with_(vocab_size=256)\n", "config.py"),
        Example("from dataclasses import replace\n\ndef configure(config):\n    return replace(config, sequence_len=64)\n", "config.py"),
        Example("from baseline.data.rows import RowReader\n"),
        Example("from baseline import loop\n"),
        Example("import baseline.control as c\n"),
    ),
)
def data_untouched(source: SourceFile) -> Iterator[Breach]:
    for line, dotted, _ in source.imports:
        module = dotted.split(".")[1] if is_within(dotted, "baseline") and "." in dotted else None
        if module and module not in OPEN_BASELINE:
            yield line, f"baseline.{module} is fixed; build on " + ", ".join(sorted(OPEN_BASELINE))
    if source.slot == "config":
        for node in source.nodes:
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    if keyword.arg in FIXED_FIELDS:
                        yield node.lineno, f"{keyword.arg} is the track's; leave it as it is"
