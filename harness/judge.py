"""From runs to verdicts: which runs count, and what they say about validity, superiority and cost.

Every finished run of the entry counts for validity. For superiority, a pair counts when both its runs finished and were
scored. Void runs (preempted, out of memory, a rank died) count for neither, but are listed, and their seconds are paid for.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from harness.cost import ReferencePrice, run_usd, verify_usd
from harness.errors import UsageProblem
from harness.record import Cost, Run, Superiority, Validity, ValidityWord, Verdict
from harness.ruleset import Ruleset
from harness.statistics import judge_ratios, judge_target

Metric = Literal["val_bpb", "core"]
LOWER_IS_BETTER: dict[Metric, bool] = {"val_bpb": True, "core": False}


@dataclass(frozen=True, slots=True)
class Pair:
    """What an entry run and a reference run, one after the other on the same machine, say about each other."""

    index: int
    ratio: float
    """Entry seconds over reference seconds."""
    bpb_difference: float
    """Val bpb of the entry minus that of the reference."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one set of runs says. A part is None where the runs do not suffice to compute it."""

    ruleset: Ruleset
    entry_runs: tuple[Run, ...]
    reference_runs: tuple[Run, ...]
    validity: Validity | None
    superiority: Superiority | None
    cost: Cost | None
    disqualified: str | None
    """The run that makes the entry `not valid` whatever the mean, in words: it failed by its own doing, has no score, or failed a probe."""

    @property
    def pairs(self) -> list[Pair]:
        """Complete pairs, in the order run."""
        return complete_pairs(self.entry_runs, self.reference_runs)


def judge(
    entry_runs: Sequence[Run],
    reference_runs: Sequence[Run],
    *,
    ruleset: Ruleset,
    metric: Metric,
    target: float,
    sigma: float,
    against: str,
    price: ReferencePrice,
    final: bool,
) -> Judgement:
    """Judge an entry's runs against the track's target, and against the reference runs interleaved with them.

    `target` and `sigma` are the track's, in units of `metric`; `against` is the entry id of the reference; `final` says
    that the planned number of runs is complete, so that an interval across 1 reads `not better`, no longer `undecided`.
    Raises UsageProblem if two finished runs of one program claim the same pair.
    """
    in_order = sorted(entry_runs, key=lambda run: (run.seed_index, run.started_at))
    disqualified = next((reason for reason in (_disqualifying(run, metric) for run in in_order) if reason), None)
    return Judgement(
        ruleset=ruleset,
        entry_runs=tuple(entry_runs),
        reference_runs=tuple(reference_runs),
        validity=_validity(in_order, disqualified, ruleset, metric, target, sigma),
        superiority=_superiority(complete_pairs(entry_runs, reference_runs), ruleset, against, final),
        cost=_cost(entry_runs, reference_runs, price),
        disqualified=disqualified,
    )


def verdict_of(
    judgement: Judgement,
    *,
    id: str,
    kind: Literal["submit", "verify", "calibrate"],
    decided_at: datetime,
    by: str,
    outcome: Literal["reproduced", "refuted", "undecided"] | None = None,
    note: str = "",
) -> Verdict:
    """The record of a judgement: ids of all runs considered, the means of the finished ones, and what was judged.

    Without a note of its own it notes what disqualified the entry.
    """
    runs = [*judgement.entry_runs, *judgement.reference_runs]
    return Verdict(
        id=id,
        kind=kind,
        decided_at=decided_at,
        ruleset=judgement.ruleset.id,
        runs=tuple(run.id for run in runs),
        void_runs=tuple(run.id for run in runs if run.state == "void"),
        mean_val_bpb=_mean(_bpb(run) for run in judgement.entry_runs),
        mean_timed_s=_mean(run.timed_s for run in _finished(judgement.entry_runs)),
        reference_mean_val_bpb=_mean(_bpb(run) for run in judgement.reference_runs),
        reference_mean_timed_s=_mean(run.timed_s for run in _finished(judgement.reference_runs)),
        validity=judgement.validity,
        superiority=judgement.superiority,
        cost=judgement.cost,
        outcome=outcome,
        note=note or judgement.disqualified or "",
        by=by,
    )


def complete_pairs(entry_runs: Sequence[Run], reference_runs: Sequence[Run]) -> list[Pair]:
    """Pairs whose two runs finished and were scored, by ascending index.

    Raises UsageProblem if a pair has two finished runs of one program.
    """
    entries, references = _halves(entry_runs), _halves(reference_runs)
    return [_pair(index, entries[index], references[index]) for index in sorted(entries.keys() & references.keys())]


# ---------------------------------------------------------------------- the three parts


def _validity(
    in_order: Sequence[Run], disqualified: str | None, ruleset: Ruleset, metric: Metric, target: float, sigma: float
) -> Validity | None:
    """The z-test's verdict over the scores, unless a run is held against it; None without a single score."""
    scores = [score for score in (_score(run, metric) for run in _finished(in_order)) if score is not None]
    if not scores:
        return None
    test = judge_target(scores, target=target, sigma=sigma, lower_is_better=LOWER_IS_BETTER[metric], plan=ruleset.target_plan)
    verdict: ValidityWord = "not valid" if disqualified else test.verdict
    objection = disqualified
    if verdict == "valid" and (withheld := _withheld(in_order)):
        verdict, objection = "undecided", withheld
    return Validity(
        verdict=verdict,
        metric=metric,
        target=target,
        runs=test.runs,
        mean=test.mean,
        sigma=test.sigma,
        z=test.z,
        bound=test.bound,
        p_value=test.p_value,
        method=f"{objection}; {test.method}" if objection else test.method,
    )


def _superiority(pairs: Sequence[Pair], ruleset: Ruleset, against: str, final: bool) -> Superiority | None:
    """None below two complete pairs. An entry that trips the val bpb guard is never `better`."""
    if len(pairs) < 2:
        return None
    test = judge_ratios([pair.ratio for pair in pairs], plan=ruleset.ratio_plan, final=final)
    delta = statistics.fmean(pair.bpb_difference for pair in pairs[: test.pairs])
    guarded = ruleset.guard_delta_bpb is None or delta <= ruleset.guard_delta_bpb
    looks = ", ".join(str(look) for look in ruleset.looks)
    method = f"t interval on paired log time ratios at level {test.level:g}; looks at {looks} pairs, {test.pairs} of {len(pairs)} judged"
    return Superiority(
        verdict="not better" if test.verdict == "better" and not guarded else test.verdict,
        against=against,
        pairs=test.pairs,
        ratio=test.ratio,
        low=test.low,
        high=test.high,
        level=test.level,
        detectable=test.detectable,
        guard_delta_bpb=delta,
        guard_passed=guarded,
        method=method if guarded else f"val bpb is worse than the reference by {delta:.4f}, guard {ruleset.guard_delta_bpb}; {method}",
    )


def _cost(entry_runs: Sequence[Run], reference_runs: Sequence[Run], price: ReferencePrice) -> Cost | None:
    """None before the first finished run."""
    mean_timed_s = _mean(run.timed_s for run in _finished(entry_runs))
    if mean_timed_s is None:
        return None
    return Cost(
        price_table=price.table_id,
        reference_usd_per_hour=price.usd_per_hour,
        run_usd=run_usd(mean_timed_s, price),
        verify_usd=verify_usd((_wall_s(run) for run in (*entry_runs, *reference_runs)), price),
    )


# ---------------------------------------------------------------------- single runs


def _finished(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.state == "finished"]


def _score(run: Run, metric: Metric) -> float | None:
    """The score that the target is stated in; None where the run has none."""
    if run.scores is None:
        return None
    return run.scores.val_bpb if metric == "val_bpb" else run.scores.core


def _disqualifying(run: Run, metric: Metric) -> str | None:
    """What this run has against its entry, in words; None if nothing, as for a run that the machine made void."""
    if run.state == "void":
        return f"run {run.id} failed by its own doing: {run.void_reason}" if run.fault == "entry" else None
    failed = next((probe.name for probe in run.scores.probes if not probe.passed), None) if run.scores else None
    if failed:
        return f"run {run.id} failed the {failed} probe"
    return f"run {run.id} finished without a {metric} score" if _score(run, metric) is None else None


def _withheld(runs: Iterable[Run]) -> str | None:
    """The first run that was void after its training had ended, in words.

    Such a run leaves the entry `undecided` at best: else bad results could be dropped by breaking off their evaluation.
    """
    for run in runs:
        if run.state == "void" and run.at_s("done") is not None:
            return f"run {run.id} was void after its training had ended"
    return None


@dataclass(frozen=True, slots=True)
class _Half:
    """One program's run of a pair."""

    run_id: str
    timed_s: float
    val_bpb: float


def _halves(runs: Sequence[Run]) -> dict[int, _Half]:
    """Finished and scored runs by the index of their pair."""
    halves: dict[int, _Half] = {}
    for run in _finished(runs):
        timed_s, val_bpb = run.timed_s, _bpb(run)
        if run.pair is None or timed_s is None or val_bpb is None:
            continue
        if run.pair in halves:
            both = f"runs {halves[run.pair].run_id} and {run.id} both finished as pair {run.pair}"
            raise UsageProblem(both, mend="a pair has one run of each program: judge the runs of one series at a time")
        halves[run.pair] = _Half(run.id, timed_s, val_bpb)
    return halves


def _pair(index: int, entry: _Half, reference: _Half) -> Pair:
    return Pair(index, entry.timed_s / reference.timed_s, entry.val_bpb - reference.val_bpb)


def _bpb(run: Run) -> float | None:
    return run.scores.val_bpb if run.state == "finished" and run.scores else None


def _wall_s(run: Run) -> float:
    """Seconds to the last event: what a run occupied the machine for, also one that broke off."""
    return max((event.at_ns for event in run.events), default=0) / 1e9


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present else None
