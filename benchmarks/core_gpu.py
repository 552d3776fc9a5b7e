"""Whole CORE on this machine's cards, or on its CPU: seconds of each part, and the probes' largest differences.

    python -m benchmarks.core_gpu --core ../shared/core --depth 12               # every example; the aim is two minutes on one card
    python -m benchmarks.core_gpu --core ../shared/core --depth 2 --limit 20     # the same code at toy size

The weights are random, which costs what trained ones cost. Rows are prepared twice: the first time reads the bundle and tokenizes it with
all cores, the second finds the result on disk, as every evaluation after the first does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from baseline.checkpoint import write_weights
from baseline.config import Dial, TrainConfig
from baseline.data.durable import whole_file
from baseline.loop import build_model, initialise
from baseline.recipe import load_recipe
from benchmarks.core_eval import NOISE, SEQUENCE_LEN, VOCAB, cut_gpt2
from benchmarks.environment import environment
from harness.evaluate.core.bundle import open_bundle
from harness.evaluate.core.prepare import prepare
from harness.evaluate.core.tasks import CORE_TASKS
from harness.evaluate.core_run import CoreQuestions, Subject, evaluate_core
from harness.evaluate.crew import Crew
from harness.evaluate.model_server import Place, ServedModel
from harness.evaluate.probes import TOLERANCE
from harness.launch import child_environment

TIMEOUT_S = 600.0


def random_checkpoint(config: TrainConfig, folder: Path) -> ServedModel:
    """Weights on disk, made on the CPU: this process leaves the cards to the servers."""
    device = torch.device("cpu")
    model = build_model(load_recipe(config.with_(attention_backend="sdpa"), None, device), device)
    initialise(model, 0, device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(NOISE * torch.randn_like(parameter))
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    write_weights(model, folder / "weights.safetensors")
    return ServedModel.trained(folder / "config.json", None, folder / "weights.safetensors", config.vocab_size)


def place(folder: Path) -> Place:
    folder.mkdir()
    return Place(child_environment(folder, 1), folder, folder / "console", TIMEOUT_S, 2**40)


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a whole CORE evaluation on this machine.")
    parser.add_argument("--core", type=Path, required=True, help="folder or zip of CORE's examples")
    parser.add_argument("--depth", type=int, default=12, help="of the model (default 12)")
    parser.add_argument("--limit", type=int, help="examples of each task (default all)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks", "results"), help="folder for core_gpu.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="core-gpu-") as name:
        folder = Path(name)
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
        config = TrainConfig.from_depth(args.depth, Dial(VOCAB, SEQUENCE_LEN, tokens_per_parameter=8.0), dtype=dtype)
        subject = Subject(random_checkpoint(config, folder), cut_gpt2(), TOLERANCE[dtype], None)
        questions = CoreQuestions(open_bundle(args.core), CORE_TASKS, args.limit, folder / "prepared")
        began = time.perf_counter()
        prepare(questions.bundle, CORE_TASKS, subject.tokenizer, limit=args.limit, cache=questions.cache)
        prepare_s, crew = time.perf_counter() - began, Crew.of_this_machine((folder / "weights.safetensors").stat().st_size)
        began = time.perf_counter()
        found = evaluate_core(subject, questions, crew, place(folder / "servers"), place(folder / "fresh"))
        seconds = time.perf_counter() - began
    tasks = found.result.tasks if found.result else ()
    scoring_s = sum(task.seconds for task in tasks)
    for task in tasks:
        print(f"{task.label:34} {task.examples:>6} {task.seconds:>8.2f} s")
    for probe in found.probes:
        print(f"{probe.name:22} {'passed' if probe.passed else 'FAILED'}: {probe.evidence}")
    print(
        f"depth {args.depth}, {asdict(crew)}: tokenizing {prepare_s:.1f} s; evaluation {seconds:.1f} s, of which scoring {scoring_s:.1f} s"
    )
    result = {"config": config.to_dict(), "crew": asdict(crew), "limit": args.limit, "environment": environment()}
    times = {"tokenizing_s": prepare_s, "evaluation_s": seconds, "tasks": [asdict(task) for task in tasks]}
    with whole_file(args.results / "core_gpu.json") as file:
        file.write(json.dumps({**result, **times, "probes": [probe.model_dump() for probe in found.probes]}, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
