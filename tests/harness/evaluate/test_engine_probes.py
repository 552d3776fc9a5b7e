"""CORE's probes on real servers: each known trick is caught by the probe that is meant for it, and an honest model by none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.evaluate.asked import AskedRow
from harness.evaluate.core_scores import CoreRows, CoreScores
from harness.evaluate.model_server import ModelServer, serve
from harness.evaluate.probes import TOLERANCE, Agreement, Prober, draw, following
from harness.record import Probe
from tests.harness.evaluate.engine_models import CAPACITY, entry, examples, place, served, written

ALONE = {"causality", "batch_independence", "unchanged_parameters", "fresh_process", "decoding"}
"""Probes that ask about rows on their own, so that a model which looks at their company fails them all."""
TASKS = examples(each=16)


def probed(server: ModelServer, fresh: ModelServer, seed: int = 0) -> tuple[Probe, ...]:
    """Score all examples with the probes among them."""
    rows, rng = CoreRows.of(TASKS), np.random.default_rng(seed)
    prober = Prober(rows.draw_probed_rows(rng), rng, TOLERANCE["float32"])
    CoreScores(rows).score([server], CAPACITY, prober)
    prober.look_back("fresh_process", fresh)
    return prober.probes()


def failed(probes: tuple[Probe, ...]) -> set[str]:
    return {probe.name for probe in probes if not probe.passed}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModelServer, ModelServer, Path]]:
    """Two servers that answer with the expression in the file, one of them for the probe of fresh processes."""
    folder = tmp_path_factory.mktemp("tricks")
    answer = folder / "answer"
    code = f"return eval(open({str(answer)!r}).read())(self, honest, tokens, cache, wanted)"
    model = written(folder, entry(folder / "entry", code))
    with serve(model, CAPACITY, place(folder / "one")) as one, serve(model, CAPACITY, place(folder / "fresh")) as fresh:
        yield one, fresh, answer


HONEST = "honest(tokens, None, cache, wanted)"
TRICKS = {
    "sees the next token": (
        "honest(torch.cat([tokens[:, 1:], tokens[:, :1]], 1), None, cache, wanted)",
        {"causality", "decoding"},
    ),
    "sees the next token in long rows only": (
        f"{HONEST} if tokens.shape[1] < 20 else honest(torch.roll(tokens, -1, 1), None, cache, wanted)",
        {"causality"},
    ),
    "raises the likelihood of the token that follows": (
        f"{HONEST} + 3 * torch.nn.functional.one_hot(torch.roll(tokens, -1, 1)[wanted], 300)",
        {"causality"},
    ),
    "looks at the other rows of the batch": (f"{HONEST} + 0.01 * len(tokens)", {"batch_independence"}),
    "compares with the row above": (
        f"{HONEST} + 0.1 * torch.roll(tokens, 1, 0)[wanted][:, None] / 300",
        {"batch_independence"},
    ),
    "remembers what it was asked before": (
        f"(setattr(self, 'seen', getattr(self, 'seen', 0.0) + 0.01), {HONEST} + self.seen * torch.arange(300) / 300)[1]",
        {"unchanged_parameters", "fresh_process"},
    ),
    "goes by what it was asked first": (
        f"(setattr(self, 'first', getattr(self, 'first', tokens.float().mean())), {HONEST} + self.first * torch.arange(300) / 3e4)[1]",
        {"fresh_process"},
    ),
    "answers by chance": (f"{HONEST} + torch.rand(())", {"determinism"}),
    "answers with an infinity": (f"{HONEST}.index_fill(1, torch.tensor([7]), float('-inf'))", {"finite_logits"}),
    "answers without numbers": (f"{HONEST} * float('nan')", {"finite_logits"}),
}


@pytest.mark.parametrize(("answer", "caught_by"), TRICKS.values(), ids=TRICKS.keys())
def test_a_model_is_caught_that(answer: str, caught_by: set[str], pair: tuple[ModelServer, ModelServer, Path]) -> None:
    one, fresh, file = pair
    file.write_text(f"lambda self, honest, tokens, cache, wanted: ({answer})")
    assert caught_by <= failed(probed(one, fresh))


@pytest.mark.parametrize("harmless", [HONEST, f"{HONEST} + 1000", f"{HONEST} - 5 * {HONEST}.logsumexp(-1, keepdim=True)"])
def test_what_the_evaluators_own_softmax_removes_is_no_fault(harmless: str, pair: tuple[ModelServer, ModelServer, Path]) -> None:
    one, fresh, file = pair
    file.write_text(f"lambda self, honest, tokens, cache, wanted: ({harmless})")
    probes = probed(one, fresh)
    assert failed(probes) == set()
    assert {probe.name for probe in probes} == ALONE | {"determinism", "finite_logits"}


def test_a_trick_in_a_tenth_of_the_rows_is_caught_sooner_or_later(pair: tuple[ModelServer, ModelServer, Path]) -> None:
    one, fresh, file = pair
    sees_ahead = "honest(torch.roll(tokens, -1, 1), None, cache, wanted)"
    file.write_text(
        f"lambda self, honest, tokens, cache, wanted: ({sees_ahead} if int(tokens.sum()) % 10 == 0 and cache is None else {HONEST})"
    )
    assert any(failed(probed(one, fresh, seed)) for seed in range(6))


def test_a_cheat_that_is_honest_while_alone_is_caught(tmp_path: Path) -> None:
    """It answers single rows, which is what most probes ask, as it should. What it is compared with are the scored logits."""
    forward = (
        "looks = len(tokens) > 1 and cache is None\n"
        "        return honest(torch.roll(tokens, -1, 1) if looks else tokens, targets, cache, wanted)"
    )
    with served(tmp_path, forward, count=2) as (one, fresh):
        assert "causality" in failed(probed(one, fresh))


def test_a_model_that_changes_its_weights_is_caught(tmp_path: Path) -> None:
    with served(tmp_path, "self.lm_head.mul_(1.001); return honest(tokens, targets, cache, wanted)", count=2) as (one, fresh):
        assert {"unchanged_parameters", "fresh_process"} <= failed(probed(one, fresh))


# ---------------------------------------------------------------------- how far apart


def logits(rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((rows, 9)).astype(np.float32)


def test_rounding_is_no_disagreement_and_a_small_leak_in_one_direction_is() -> None:
    """Each difference lies within the tolerance; the leak always favours the token that follows."""
    rng, tokens, rows = np.random.default_rng(1), np.arange(400) % 9, logits(400)
    rounding, leak = Agreement(), Agreement()
    rounding.add(rows, rows + rng.uniform(-0.3, 0.3, rows.shape).astype(np.float32), tokens)
    favoured = np.zeros_like(rows)
    favoured[np.arange(len(rows)), tokens] = 0.2
    leak.add(rows + favoured, rows, tokens)
    assert rounding.result("causality", 1.0).passed
    assert not leak.result("causality", 1.0).passed
    assert "shifted by 0.2" in leak.result("causality", 1.0).evidence


def test_one_comparison_that_is_no_number_spoils_all() -> None:
    agreement = Agreement()
    agreement.add(logits(1) * np.nan, logits(1), np.array([0]))
    agreement.add(logits(1), logits(1), np.array([0]))
    assert not agreement.result("causality", 1e9).passed


def test_each_probe_gets_as_many_rows_as_asked_for_and_there_are() -> None:
    due = draw(np.random.default_rng(0), range(5), {"causality": 3, "determinism": 9})
    names = [name for chosen in due.values() for name in chosen]
    assert (names.count("causality"), names.count("determinism")) == (3, 5)
    assert draw(np.random.default_rng(0), [], {"causality": 3}) == {}


def test_what_follows_are_the_rows_next_tokens_and_its_first_ending() -> None:
    assert following(AskedRow(0, np.array([9, 1, 2, 3], np.int32), 1, (7, 8))).tolist() == [2, 3, 7]
