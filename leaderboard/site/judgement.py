"""Verdicts in words, with the numbers that they rest on."""

from __future__ import annotations

from dataclasses import dataclass

from harness.record import Cost, Superiority, Validity, Verdict
from leaderboard.site import wording
from leaderboard.site.archive import Archive
from leaderboard.site.page import Link, entry_link

_KINDS = {"submit": "Judged at submission", "verify": "Verified by somebody else's runs", "calibrate": "Judged at a calibration"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict as its entry's page shows it."""

    id: str
    heading: str
    decided: str
    by: str
    ruleset: str
    runs: str
    outcome: str
    """Of a verification; empty otherwise."""
    validity: str
    """The verdict in one word or two."""
    validity_words: tuple[str, ...]
    superiority: str
    superiority_words: tuple[str, ...]
    against: Link | None
    cost_words: tuple[str, ...]
    note: str


def judgement(archive: Archive, verdict: Verdict) -> Judgement:
    considered = wording.count(len(verdict.runs), "run")
    void = f", {len(verdict.void_runs)} of them void" if verdict.void_runs else ""
    return Judgement(
        id=verdict.id,
        heading=_KINDS[verdict.kind],
        decided=wording.minute(verdict.decided_at),
        by=verdict.by,
        ruleset=verdict.ruleset,
        runs=considered + void,
        outcome=verdict.outcome or "",
        validity=verdict.validity.verdict if verdict.validity else "not judged",
        validity_words=_validity(verdict.validity) if verdict.validity else ("Too few runs finished to judge.",),
        superiority=verdict.superiority.verdict if verdict.superiority else "not judged",
        superiority_words=_superiority(verdict.superiority) if verdict.superiority else ("There were no interleaved pairs to compare.",),
        against=entry_link(archive, verdict.superiority.against) if verdict.superiority else None,
        cost_words=_cost(verdict.cost) if verdict.cost else (),
        note=verdict.note,
    )


def _validity(test: Validity) -> tuple[str, ...]:
    name, scale = wording.metric_name(test.metric), test.metric
    distance = test.mean - test.target if test.metric == "core" else test.target - test.mean
    side = "beyond" if distance >= 0 else "short of"
    needs = {
        "valid": f"Valid needs z ≥ {test.bound:.3f} at this look",
        "undecided": f"Valid needs z ≥ {test.bound:.3f} at this look; more runs may get there",
        "not valid": f"Valid needs z ≥ {test.bound:.3f} at this look",
    }[test.verdict]
    return (
        f"Mean {name} over {wording.count(test.runs, 'run')} is {wording.metric(scale, test.mean)}, "
        f"{wording.metric(scale, abs(distance))} {side} the target {test.target:g}.",
        f"With the pinned sigma of {test.sigma:g} that is z = {test.z:.2f} ({wording.p_value(test.p_value)}). {needs}.",
        f"Method: {test.method}.",
    )


def _superiority(test: Superiority) -> tuple[str, ...]:
    words = [
        f"In {wording.count(test.pairs, 'interleaved pair')} it took {wording.ratio(test.ratio)} of the reference's time: "
        f"{wording.faster(test.ratio)}. The {wording.percent(test.level)} interval is {wording.interval(test.low, test.high)}.",
    ]
    if test.detectable is not None:
        words.append(f"A ratio of {wording.ratio(test.detectable)} would have been seen four times in five.")
    guard = "passed" if test.guard_passed else "not passed"
    words.append(f"Guard on val bpb: entry minus reference is {wording.signed(test.guard_delta_bpb, 5)}, {guard}.")
    words.append(f"Method: {test.method}.")
    return tuple(words)


def _cost(cost: Cost) -> tuple[str, ...]:
    return (
        f"One run costs {wording.usd(cost.run_usd)} at {wording.usd(cost.reference_usd_per_hour)} an hour.",
        f"All runs of this judgement together, with staging and evaluation, cost {wording.usd(cost.verify_usd)}.",
        f"Price table: {cost.price_table}.",
    )
