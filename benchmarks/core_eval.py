"""Our CORE evaluator beside nanochat's: examples per second of both on the same weights, in turn on the same cores, and every outcome.

    python -m benchmarks.core_eval --nanochat ../nanochat --core ../shared/core --limit 40
    python -m benchmarks.core_eval --nanochat ../nanochat --core ../shared/core --limit 40 --pretrained model.gguf

Without `--pretrained` the model is one of depth `--depth` with random weights, in both implementations, and GPT-2's merges up to 32,768
tokens. nanochat evaluates with all cores in one process, as it does; ours with the servers that `speedrun eval` would start, probes
and all. Both times begin with the examples as text. Starting our servers is reported apart: it happens once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
import torch
from torch import Tensor

from baseline.checkpoint import write_weights
from baseline.config import Dial, TrainConfig
from baseline.data.durable import whole_file
from baseline.loop import build_model, initialise
from baseline.recipe import load_recipe
from benchmarks.environment import environment
from benchmarks.nanochat_head import _apart, nanochat_name, open_clone
from benchmarks.nanochat_head import build_model as build_nanochat
from harness.environment import usable_cores
from harness.evaluate.checkpoints import PRETRAINED_TOLERANCE
from harness.evaluate.core.bundle import Bundle, open_bundle
from harness.evaluate.core.prepare import prepare
from harness.evaluate.core.tasks import CORE_TASKS, Task, select
from harness.evaluate.core.tokenizer import TiktokenTokenizer, Tokenizer
from harness.evaluate.core_run import Subject, capacity_for
from harness.evaluate.core_scores import CoreRows, CoreScores
from harness.evaluate.crew import Crew
from harness.evaluate.model_server import Capacity, ModelServer, Place, ServedModel
from harness.evaluate.pretrained import open_pretrained
from harness.evaluate.probes import TOLERANCE, Prober
from harness.launch import child_environment

VOCAB = 32_768
SEQUENCE_LEN = 2048
HANDS = 4
NOISE = 0.02
"""Added to every weight: as they are initialised, most say nothing."""
ROOM = Capacity(tokens=2**14, positions=2**12)
"""Longest row and most positions that a server can hold; what is asked at once is the crew's usual capacity."""

Logits = Callable[[Tensor], Tensor]
"""tokens (B, T) -> logits (B, T, V)."""


@dataclass(frozen=True, slots=True)
class Contest:
    """One model for both: as nanochat calls it, and as our servers find it."""

    logits: Logits
    subject: Subject
    model_bytes: int
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """One task's examples by both evaluators."""

    label: str
    examples: int
    ours_s: float
    nanochat_s: float
    different: tuple[int, ...]
    """Examples on which the two do not agree."""


# ---------------------------------------------------------------------- the model, twice


def random_contest(nanochat: Path, depth: int, scratch: Path) -> Contest:
    config = TrainConfig.from_depth(depth, Dial(VOCAB, SEQUENCE_LEN, tokens_per_parameter=8.0))
    device = torch.device("cpu")
    ours = build_model(load_recipe(config, None, device), device)
    initialise(ours, 0, device)
    theirs = build_nanochat(open_clone(nanochat, config.dtype), config, device, 0)
    generator, parameters = torch.Generator().manual_seed(1), dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.add_(NOISE * torch.randn(parameter.shape, generator=generator))
            parameters[nanochat_name(name)].copy_(parameter.view_as(parameters[nanochat_name(name)]))
    (scratch / "config.json").write_text(json.dumps(config.to_dict()))
    write_weights(ours, scratch / "weights.safetensors")
    served = ServedModel.trained(scratch / "config.json", None, scratch / "weights.safetensors", VOCAB)
    subject = Subject(served, cut_gpt2(), TOLERANCE[config.dtype], None)
    return Contest(theirs.eval(), subject, (scratch / "weights.safetensors").stat().st_size, {"depth": depth})


def cut_gpt2() -> TiktokenTokenizer:
    """GPT-2's tokenizer with its first merges only, so that it has as many tokens as the tracks' models."""
    whole = tiktoken.get_encoding("gpt2")
    ranks = {token: rank for token, rank in whole._mergeable_ranks.items() if rank < VOCAB - 1}
    encoding = tiktoken.Encoding("gpt2-cut", pat_str=whole._pat_str, mergeable_ranks=ranks, special_tokens={"<|bos|>": VOCAB - 1})
    return TiktokenTokenizer(encoding, VOCAB - 1)


def pretrained_contest(name: str) -> Contest:
    from transformers import AutoModelForCausalLM

    found = open_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(found.name, gguf_file=found.gguf, dtype=torch.float32).eval()
    subject = Subject(ServedModel(found.command, found.vocab_size), found.tokenizer, PRETRAINED_TOLERANCE["float32"], None)
    return Contest(
        lambda tokens: model(input_ids=tokens, use_cache=False).logits, subject, found.loaded_bytes, {"pretrained": Path(name).name}
    )


# ---------------------------------------------------------------------- nanochat


class NanochatTokenizer:
    """Our tokenizer as nanochat calls one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def get_bos_token_id(self) -> int:
        return self._tokenizer.bos_id

    def __call__(self, texts: list[str], prepend: int) -> list[list[int]]:
        return [[prepend, *ids.tolist()] for ids in self._tokenizer.encode_batch(texts)]


def by_nanochat(evaluator: Any, contest: Contest, bundle: Bundle, task: Task, limit: int) -> tuple[list[bool], float]:
    """(each example's verdict, seconds)"""
    began = time.perf_counter()
    data = [json.loads(line) for line in bundle.read(task).splitlines()]
    random.Random(1337).shuffle(data)
    data = data[:limit]
    meta = {"task_type": task.kind, "num_fewshot": task.shots, "continuation_delimiter": task.delimiter}
    tokenizer, device = NanochatTokenizer(contest.subject.tokenizer), torch.device("cpu")
    verdicts = [bool(evaluator.evaluate_example(at, contest.logits, tokenizer, data, device, meta)) for at in range(len(data))]
    return verdicts, time.perf_counter() - began


# ---------------------------------------------------------------------- ours


@contextmanager
def started(contest: Contest, crew: Crew, scratch: Path) -> Iterator[list[ModelServer]]:
    """Servers that are ready."""
    place = Place(child_environment(scratch, 1), scratch, scratch / "console", 3600.0, 2**40)
    with crew.start(contest.subject.served, ROOM, place) as servers:
        for server in servers:
            assert server.shares_prefixes in (True, False)
        yield servers


def by_us(
    contest: Contest, servers: Sequence[ModelServer], usual: Capacity, bundle: Bundle, tasks: Sequence[Task], limit: int, cache: Path
) -> tuple[CoreScores, float]:
    """(all outcomes and each task's time, seconds in all)"""
    began = time.perf_counter()
    prepared = prepare(bundle, tasks, contest.subject.tokenizer, limit=limit, cache=cache)
    rows = CoreRows.of(prepared)
    rng = np.random.default_rng()
    prober = Prober(rows.draw_probed_rows(rng), rng, contest.subject.tolerance)
    scores = CoreScores(rows)
    scores.score(servers, capacity_for(prepared, usual), prober)
    if failed := [probe for probe in prober.probes() if not probe.passed]:
        raise SystemExit(f"the model failed a probe: {failed[0].evidence}")
    return scores, time.perf_counter() - began


# ---------------------------------------------------------------------- side by side


@dataclass(frozen=True, slots=True)
class Hand:
    """Some of the tasks, done by both in turn."""

    tasks: tuple[TaskTimes, ...]
    ours_s: float
    """Everything, also what belongs to no task: reading the examples, planning, looking back."""

    @property
    def nanochat_s(self) -> float:
        return sum(task.nanochat_s for task in self.tasks)


def measure(
    evaluator: Any, contest: Contest, servers: Sequence[ModelServer], usual: Capacity, bundle: Bundle, tasks: Sequence[Task], limit: int
) -> list[Hand]:
    """The tasks, dealt into hands; who goes first changes from hand to hand."""
    hands = []
    for number in range(min(HANDS, len(tasks))):
        dealt = tasks[number::HANDS]
        with tempfile.TemporaryDirectory(prefix="core-eval-") as cache:
            if number % 2:
                theirs = [by_nanochat(evaluator, contest, bundle, task, limit) for task in dealt]
            scores, ours_s = by_us(contest, servers, usual, bundle, dealt, limit, Path(cache))
            if not number % 2:
                theirs = [by_nanochat(evaluator, contest, bundle, task, limit) for task in dealt]
        hands.append(compared(dealt, scores, ours_s, theirs))
        for task in hands[-1].tasks:
            print(line(task), flush=True)
    return hands


def compared(tasks: Sequence[Task], scores: CoreScores, ours_s: float, theirs: Sequence[tuple[list[bool], float]]) -> Hand:
    """Both results of some tasks, example by example."""
    outcomes, seconds = scores.outcomes(), scores.seconds()
    times = []
    for task, (verdicts, nanochat_s) in zip(tasks, theirs, strict=True):
        pairs = zip(outcomes[task.label], verdicts, strict=True)
        different = tuple(outcome.example for outcome, verdict in pairs if outcome.correct != verdict)
        times.append(TaskTimes(task.label, len(verdicts), seconds[task.label], nanochat_s, different))
    return Hand(tuple(times), ours_s)


def line(times: TaskTimes) -> str:
    speeds = f"{times.examples / times.ours_s:>9.2f} {times.examples / times.nanochat_s:>9.2f}"
    return f"{times.label:34} {times.examples:>6} {speeds} {times.nanochat_s / times.ours_s:>7.2f} {len(times.different):>10}"


def whole(hands: Sequence[Hand]) -> TaskTimes:
    """All tasks together, with everything that took time."""
    tasks = [task for hand in hands for task in hand.tasks]
    different = tuple(example for task in tasks for example in task.different)
    ours_s, nanochat_s = sum(hand.ours_s for hand in hands), sum(hand.nanochat_s for hand in hands)
    return TaskTimes("all", sum(task.examples for task in tasks), ours_s, nanochat_s, different)


def main() -> None:
    parser = argparse.ArgumentParser(description="CORE by us and by nanochat: speed and outcomes.")
    parser.add_argument("--nanochat", type=Path, required=True, help="a clone of nanochat")
    parser.add_argument("--core", type=Path, required=True, help="folder or zip of CORE's examples")
    parser.add_argument("--limit", type=int, default=40, help="examples of each task (default 40; above 10, the number of shots)")
    parser.add_argument("--tasks", help="some of the tasks, by label, with commas between")
    parser.add_argument("--depth", type=int, default=4, help="of the model with random weights (default 4)")
    parser.add_argument("--pretrained", help="a folder, a .gguf file or a name on the hub, instead of random weights")
    parser.add_argument("--results", type=Path, default=Path("benchmarks", "results"), help="folder for core_eval.json")
    args = parser.parse_args()
    torch.set_num_threads(usable_cores())
    tasks = select(args.tasks.split(",")) if args.tasks else CORE_TASKS
    clone = open_clone(args.nanochat, "float32")
    with _apart(args.nanochat):
        evaluator = importlib.import_module("nanochat.core_eval")
    with tempfile.TemporaryDirectory(prefix="core-eval-") as folder:
        scratch = Path(folder)
        contest = pretrained_contest(args.pretrained) if args.pretrained else random_contest(args.nanochat, args.depth, scratch)
        crew, began = Crew.of_this_machine(contest.model_bytes), time.perf_counter()
        with started(contest, crew, scratch) as servers:
            start_s, usual = time.perf_counter() - began, crew.capacity(contest.subject.served.vocab_size)
            print(f"{'task':34} {'n':>6} {'ours/s':>9} {'nanochat':>9} {'ratio':>7} {'different':>10}")
            hands = measure(evaluator, contest, servers, usual, open_bundle(args.core), tasks, args.limit)
    total = whole(hands)
    print(line(total))
    facts = {**contest.facts, "nanochat": clone.commit, "cores": usable_cores(), "start_s": start_s, "environment": environment()}
    with whole_file(args.results / "core_eval.json") as file:
        file.write(json.dumps({**facts, "hands": [asdict(hand) for hand in hands], "all": asdict(total)}, indent=1).encode() + b"\n")
    if total.different:
        raise SystemExit(f"{len(total.different)} of {total.examples} outcomes differ")


if __name__ == "__main__":
    main()
