"""R07, R09, R10 and R12: which parts of torch are closed to entries, because they reach beyond the model and its training."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from harness.rules.patching import INTERCEPTORS
from harness.rules.registry import Breach, Example, rule
from harness.rules.source import SourceFile, is_within

SETTINGS = (
    *("torch._inductor", "torch._dynamo", "torch._functorch", "torch.compiler.config", "torch.compiler.set_stance", "torch.backends"),
    *("torch.set_num_threads", "torch.set_num_interop_threads", "torch.set_float32_matmul_precision", "torch.set_flush_denormal"),
    *("torch.set_default_dtype", "torch.set_default_device", "torch.set_default_tensor_type", "torch.set_warn_always"),
    *("torch.use_deterministic_algorithms", "torch.set_deterministic_debug_mode", "torch.utils.deterministic"),
    *("torch.autograd.set_detect_anomaly", "torch.autograd.set_multithreading_enabled", "torch.cuda.set_sync_debug_mode"),
    *(
        "torch.cuda.set_per_process_memory_fraction",
        "torch.cuda.memory.change_current_allocator",
        "torch.cuda.memory.CUDAPluggableAllocator",
    ),
    *("torch.cuda.change_current_allocator", "torch.cuda.CUDAPluggableAllocator", "torch.cuda.set_device", "torch.__config__"),
)
"""Switches of the whole process: threads, precision, compiler, allocator."""

OUTSIDE = (
    *("torch.load", "torch.save", "torch.from_file", "torch.serialization", "torch.package", "torch.hub", "torch.storage"),
    *("torch.jit", "torch.export", "torch.onnx", "torch.UntypedStorage", "torch.TypedStorage", "torch.ops.load_library", "torch.classes"),
    *("torch.multiprocessing", "torch.futures", "torch.profiler", "torch.monitor", "torch.cuda.profiler", "torch.utils.cpp_extension"),
    *("torch.utils.data", "torch.utils.model_zoo", "torch.utils.tensorboard", "torch.utils.dlpack", "torch.utils.collect_env"),
    *("torch.utils.bottleneck", "torch.utils.file_baton", "torch.utils.show_pickle", "torch.distributed.rpc", "torch.distributed.run"),
    *("torch.distributed.launch", "torch.distributed.launcher", "torch.distributed.elastic", "torch.distributed.checkpoint"),
    *("torch.distributed.init_process_group", "torch.distributed.destroy_process_group", "torch.distributed.TCPStore"),
    *("torch.distributed.FileStore", "torch.distributed.HashStore", "torch.distributed.PrefixStore", "torch.distributed.rendezvous"),
    *("torch.distributed.distributed_c10d", "triton.runtime", "triton.compiler", "triton.backends", "triton.testing", "triton.profiler"),
)
"""Parts of torch and Triton that read files, start processes, load compiled code or open connections."""

FILE_METHODS = frozenset(("tofile", "fromfile", "from_file", "share_memory_", "read_text", "write_text", "read_bytes", "write_bytes"))

SEEDING = (
    *("torch.manual_seed", "torch.seed", "torch.initial_seed", "torch.random", "torch.get_rng_state", "torch.set_rng_state"),
    *("torch.default_generator", "torch.cuda.random", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"),
    *("torch.cuda.seed", "torch.cuda.seed_all", "torch.cuda.initial_seed", "torch.cuda.get_rng_state", "torch.cuda.set_rng_state"),
)
SEEDING_METHODS = frozenset(("manual_seed", "manual_seed_all", "initial_seed", "seed", "set_state", "get_state"))


def _line(line: str, imports: str = "import torch") -> Example:
    return Example(f"{imports}\n{line}\n")


def _uses_of(source: SourceFile, closed: Iterable[str], why: str) -> Iterator[Breach]:
    """A breach for each line that names something closed, once."""
    seen: set[tuple[int, str]] = set()
    for line, dotted in source.references():
        name = next((name for name in closed if is_within(dotted, name)), None)
        if name and (line, name) not in seen:
            seen.add((line, name))
            yield line, f"{name} {why}"


@rule(
    "R07",
    "Settings of the process are the harness's",
    """Threads, precision modes, compiler and allocator settings, environment variables: the harness sets them, the same for the entry
    and for what it is compared with. What an entry may choose about its execution is in `TrainConfig` (`dtype`, `fp8`, `compile`,
    `attention_backend`, `rows_per_forward`); `torch.compile` on a function is fine, without `options`.""",
    allowed=(
        _line("torch.compile(ops.linear, dynamic=False)"),
        _line("sdpa_kernel([])", "from torch.nn.attention import sdpa_kernel"),
        Example("def configure(config):\n    return config.with_(compile=True)\n", "config.py"),
    ),
    refused=(
        _line("torch.set_num_threads(1)"),
        _line("torch.set_float32_matmul_precision('high')"),
        _line("config.max_autotune = True", "from torch._inductor import config"),
        Example("import torch._dynamo\n"),
        _line("torch.backends.cuda.enable_flash_sdp(False)"),
        _line("torch.compile(ops.linear, options={'max_autotune': True})"),
    ),
)
def no_settings(source: SourceFile) -> Iterator[Breach]:
    yield from _uses_of(source, SETTINGS, "changes the whole process; the harness sets it, the same for all entries")
    for node in source.nodes:
        if not (isinstance(node, ast.Call) and source.dotted(node.func) == "torch.compile"):
            continue
        if any(keyword.arg in ("options", None) for keyword in node.keywords):
            yield node.lineno, "torch.compile takes no `options` here; compiler settings are the same for all entries"


@rule(
    "R09",
    "No files, processes or connections",
    """An entry computes on tensors that the loop hands it. It does not load or save anything, start anything, or open anything, by
    torch's own means either: no `torch.load`, no `torch.hub`, no extensions compiled on the spot, no process groups of its own
    making. Collectives of `torch.distributed` on the group that exists are the optimizer's tools and are fine.""",
    allowed=(
        Example(
            "import torch.distributed as dist\n\ndef build_optimizer(model, config, ops, world):\n    dist.all_reduce(model.x)\n",
            "optimizer.py",
        ),
        _line("torch.softmax(torch.ones(3), dim=0)"),
    ),
    refused=(
        _line("torch.load('weights.pt')"),
        _line("torch.hub.load('a', 'b')"),
        Example("from torch.utils.cpp_extension import load_inline\n"),
        _line("torch.ops.load_library('x.so')"),
        _line("torch.ones(3).numpy().tofile('x')"),
        _line("spawn", "from torch.multiprocessing import spawn"),
    ),
)
def no_outside_world(source: SourceFile) -> Iterator[Breach]:
    yield from _uses_of(source, OUTSIDE, "reaches beyond the training process; an entry computes on what it is handed")
    for node in source.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FILE_METHODS:
            yield node.lineno, f".{node.func.attr} reads or writes outside the program; an entry has no files"


@rule(
    "R10",
    "The harness draws the seeds",
    """Seeds follow from the entry's digest, the ruleset and a nonce that is drawn when a series of runs begins, so nobody can pick a
    lucky one. `init_weights` takes all its randomness from the generator it is given, and no slot sets, reads or replaces a seed or
    the state of a generator. Random numbers during training come from torch's default generator, which is seeded too.""",
    allowed=(
        Example(
            "import torch\n\nclass Net(torch.nn.Module):\n    def init_weights(self, generator):\n"
            "        self.w.normal_(generator=generator)\n\nbuild_model = Net\n"
        ),
        _line("torch.randn(3)"),
    ),
    refused=(
        _line("torch.manual_seed(1234)"),
        _line("torch.Generator().manual_seed(7)"),
        Example("def build_model(config, ops):\n    return ops.generator.manual_seed(7)\n"),
        _line("torch.initial_seed()"),
        _line("torch.random.fork_rng()"),
    ),
)
def no_seeds(source: SourceFile) -> Iterator[Breach]:
    yield from _uses_of(source, SEEDING, "is for the harness; draw from the generator that is handed over")
    for call in (node for node in source.nodes if isinstance(node, ast.Call)):
        if source.dotted(call.func) == "torch.Generator":
            yield call.lineno, "a generator of the entry's own; draw from the one that is handed over"
        elif isinstance(call.func, ast.Attribute) and call.func.attr in SEEDING_METHODS and not source.dotted(call.func):
            yield call.lineno, f".{call.func.attr} sets or reads a generator's state; draw from the generator that is handed over"


@rule(
    "R12",
    "Private parts of torch may break",
    """Names of torch that begin with an underscore change without notice. They are allowed where no rule above closes them, because
    some operations (`torch._scaled_mm`) have no other name, but an entry that uses them may stop working with the next version.""",
    severity="warn",
    allowed=(_line("torch.nn.functional.relu"),),
    refused=(_line("torch._scaled_mm"),),
)
def private_torch(source: SourceFile) -> Iterator[Breach]:
    closed = (*SETTINGS, *OUTSIDE, *SEEDING, *INTERCEPTORS)
    names = {dotted for _, dotted in source.references() if dotted.startswith("torch.")}
    private = {name for name in names if any(part.startswith("_") and not part.startswith("__") for part in name.split("."))}
    open_ones = sorted(name for name in private if not any(is_within(name, prefix) for prefix in closed))
    yield from _uses_of(source, open_ones, "is private to torch and may change; use its public name where there is one")
