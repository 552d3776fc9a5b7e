"""What it costs not to trust the model: CORE by a model server, with probes, beside the same requests answered in one process.

    taskset -c 0 python -m benchmarks.core_trust --core ../shared/core --limit 100 --tasks hellaswag_zeroshot,arc_easy,coqa

One server of one thread; everything on the same cores, with the same settings of the allocator. In one process there is no shared memory,
no second process, no probe, and the losses are torch's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from baseline.checkpoint import read_weights
from baseline.config import Dial, TrainConfig
from baseline.data.durable import whole_file
from baseline.loop import build_model
from baseline.recipe import load_recipe
from baseline.serve import TrainedModel
from benchmarks.core_eval import SEQUENCE_LEN, VOCAB, cut_gpt2
from benchmarks.core_gpu import place, random_checkpoint
from benchmarks.environment import environment
from harness.evaluate.asked import Request, targets_of
from harness.evaluate.core.bundle import open_bundle
from harness.evaluate.core.prepare import prepare
from harness.evaluate.core.tasks import CORE_TASKS, select
from harness.evaluate.core_run import capacity_for
from harness.evaluate.core_scores import CoreRows, CoreScores
from harness.evaluate.crew import ON_CPU, Crew
from harness.evaluate.model_server import KEEP_FREED_MEMORY, Capacity, ModelServer
from harness.evaluate.probes import TOLERANCE, Prober


def by_server(rows: CoreRows, server: ModelServer, capacity: Capacity) -> float:
    """Seconds for all rows."""
    began, rng = time.perf_counter(), np.random.default_rng()
    prober = Prober(rows.draw_probed_rows(rng), rng, TOLERANCE["float32"])
    CoreScores(rows).score([server], capacity, prober)
    assert all(probe.passed for probe in prober.probes())
    return time.perf_counter() - began


@torch.inference_mode()
def in_one_process(rows: CoreRows, model: TrainedModel, capacity: Capacity) -> float:
    """Seconds for all rows."""
    began = time.perf_counter()
    for request in rows.requests(capacity, True):
        logits = answered(request, model)
        positions, targets = (torch.from_numpy(indices) for indices in targets_of(request.rows))
        torch.nn.functional.cross_entropy(logits[positions], targets, reduction="none")
        (logits.argmax(-1)[positions] == targets).tolist()
    return time.perf_counter() - began


def answered(request: Request, model: TrainedModel) -> torch.Tensor:
    """The request's logits, from tensors that only this process knows."""
    tokens, wanted = np.zeros(request.cells, np.int32), np.zeros(request.cells, np.uint8)
    request.fill(tokens, wanted)
    given, shape = torch.from_numpy(tokens.astype(np.int64)), (len(request.rows), request.length)
    marks = torch.from_numpy(wanted[: shape[0] * shape[1]].astype(bool)).view(shape)
    if not request.start:
        return model.rows(given.view(shape), marks)
    sizes = [request.prefixes * request.start, shape[0] * shape[1], shape[0]]
    prefixes, cells, prefix_of = torch.split(given, sizes)
    return model.shared(prefixes.view(request.prefixes, request.start), prefix_of, cells.view(shape), marks)


def main() -> None:
    parser = argparse.ArgumentParser(description="The price of a model server and its probes.")
    parser.add_argument("--core", type=Path, required=True, help="folder or zip of CORE's examples")
    parser.add_argument("--depth", type=int, default=4, help="of the model with random weights (default 4)")
    parser.add_argument("--limit", type=int, default=100, help="examples of each task (default 100)")
    parser.add_argument("--tasks", help="some of the tasks, by label, with commas between (default all)")
    parser.add_argument("--rounds", type=int, default=5, help="of both (default 5)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks", "results"), help="folder for core_trust.json")
    args = parser.parse_args()
    if not KEEP_FREED_MEMORY.items() <= os.environ.items():  # read when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.core_trust", *sys.argv[1:]], {**os.environ, **KEEP_FREED_MEMORY})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="core-trust-") as name, ExitStack() as stack:
        folder, device = Path(name), torch.device("cpu")
        config = TrainConfig.from_depth(args.depth, Dial(VOCAB, SEQUENCE_LEN, tokens_per_parameter=8.0))
        served, recipe = random_checkpoint(config, folder), load_recipe(config, None, device)
        model = build_model(recipe, device)
        read_weights(model, folder / "weights.safetensors")
        tasks = select(args.tasks.split(",")) if args.tasks else CORE_TASKS
        prepared = prepare(open_bundle(args.core), tasks, cut_gpt2(), limit=args.limit, cache=folder / "prepared")
        rows, capacity = CoreRows.of(prepared), capacity_for(prepared, ON_CPU)
        (server,) = stack.enter_context(Crew(1, 1, False).start(served, capacity, place(folder / "servers")))
        trained = TrainedModel(model.eval(), device, recipe.ops.attention)
        seconds = compared(rows, server, trained, capacity, args.rounds)
    costs = [theirs / ours - 1 for theirs, ours in zip(*seconds, strict=True)]
    print(f"{len(rows.rows)} rows: by a server {statistics.median(seconds[0]):.1f} s, in one process {statistics.median(seconds[1]):.1f} s")
    print(f"cost {statistics.median(costs):+.1%}, from {min(costs):+.1%} to {max(costs):+.1%} in {args.rounds} rounds")
    with whole_file(args.results / "core_trust.json") as file:
        facts = {"depth": args.depth, "limit": args.limit, "tasks": [task.label for task in tasks], "environment": environment()}
        file.write(json.dumps({**facts, "by_server_s": seconds[0], "in_one_process_s": seconds[1]}, indent=1).encode() + b"\n")


def compared(
    rows: CoreRows, server: ModelServer, model: TrainedModel, capacity: Capacity, rounds: int
) -> tuple[Sequence[float], Sequence[float]]:
    """Seconds of both in turn, after one round that does not count."""
    turns = [(by_server(rows, server, capacity), in_one_process(rows, model, capacity)) for _ in range(rounds + 1)][1:]
    return [one for one, _ in turns], [other for _, other in turns]


if __name__ == "__main__":
    main()
