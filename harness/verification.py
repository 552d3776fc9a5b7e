"""Does a claim hold up? Compares a published verdict with fresh runs of the same entry, made by somebody else.

Refuting is as grave as accepting, so it takes evidence: a failed validity test, or a fresh interval that lies wholly
above the claimed one (simulated: that refutes at most 1.2 % of honest claims, though claims are the lucky ones). A claim of
being faster is reproduced only by being shown faster again: a wide interval that merely contains the claimed ratio shows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.judge import Judgement
from harness.record import Superiority, Verdict
from harness.statistics import log_ratio_sd, look_after, pairs_needed


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of `judge_verification`."""

    outcome: Literal["reproduced", "refuted", "undecided"]
    reason: str
    more_pairs: int | None
    """Pairs of fresh runs, beyond those made, after which to expect a decision; None if decided or if the plan's looks are used up."""


def judge_verification(claim: Verdict, fresh: Judgement) -> Verification:
    """Judge fresh runs, interleaved with the claim's own reference, against the claim.

    `refuted` if a fresh run is disqualified, if they are not valid, trip the guard of a claim of being better, or are slower than claimed
    (the fresh interval lies wholly above the claimed one) without being better again.
    `reproduced` if they are valid and, where the claim was `better`, better again.
    `undecided` otherwise, also where the claim itself was not valid: then there is nothing to reproduce.
    """
    if claim.validity is None or claim.validity.verdict != "valid":
        return Verification("undecided", "the claim itself was not shown to be valid: there is nothing to reproduce", None)
    claimed_better = claim.superiority is not None and claim.superiority.verdict == "better"
    better_again = fresh.superiority is not None and fresh.superiority.verdict == "better"
    refutation = _refutation(claim, fresh, claimed_better, better_again)
    if refutation:
        return Verification("refuted", refutation, None)
    valid_again = fresh.validity is not None and fresh.validity.verdict == "valid"
    if valid_again and (better_again or not claimed_better):
        return Verification("reproduced", "valid again" + (" and better again" if claimed_better else ""), None)
    more = max(_pairs_for_validity(fresh), _pairs_for_superiority(claim, fresh) if claimed_better and not better_again else 0)
    missing = "reach the target" if not valid_again else "show it faster"
    if more == 0:
        return Verification("undecided", f"the runs do not {missing}, nor rule it out, and the last look is taken", None)
    return Verification("undecided", f"the runs do not {missing} yet; {more} more pairs may decide", more)


def _refutation(claim: Verdict, fresh: Judgement, claimed_better: bool, better_again: bool) -> str | None:
    """The evidence against the claim, in words; None if there is none."""
    if fresh.disqualified:
        return fresh.disqualified
    if fresh.validity is not None and fresh.validity.verdict == "not valid":
        mean, target = fresh.validity.mean, fresh.validity.target
        return f"not valid: mean {fresh.validity.metric} {mean:.5f} of {fresh.validity.runs} runs against the target {target:g}"
    if fresh.superiority is None or claim.superiority is None:
        return None
    if claimed_better and not fresh.superiority.guard_passed:
        return f"val bpb is worse than the reference's by {fresh.superiority.guard_delta_bpb:.4f}, beyond the guard"
    if not better_again and fresh.superiority.low > claim.superiority.high:
        return f"slower than claimed: time ratio {_interval(fresh.superiority)} against {_interval(claim.superiority)} claimed"
    return None


def _interval(superiority: Superiority) -> str:
    return f"{superiority.ratio:.4f} ({superiority.low:.4f} to {superiority.high:.4f})"


def _pairs_for_validity(fresh: Judgement) -> int:
    """Entry runs to the next look of an undecided validity test; 0 if decided, or if no look is left."""
    if fresh.validity is not None and fresh.validity.verdict != "undecided":
        return 0
    finished = sum(run.state == "finished" for run in fresh.entry_runs)
    return (look_after(fresh.ruleset.looks, finished) or finished) - finished


def _pairs_for_superiority(claim: Verdict, fresh: Judgement) -> int:
    """Pairs to the look that would show the claimed ratio with 80 % power at the spread seen; 0 if no look is left.

    With fewer than two pairs, or if no look has that power: to the next look, or to the last.
    """
    ratios = [pair.ratio for pair in fresh.pairs]
    following = look_after(fresh.ruleset.looks, len(ratios))
    if following is None:
        return 0
    if len(ratios) < 2 or claim.superiority is None:
        return following - len(ratios)
    needed = pairs_needed(claim.superiority.ratio, log_ratio_sd(ratios), fresh.ruleset.ratio_plan) or fresh.ruleset.looks[-1]
    return max(needed, following) - len(ratios)
