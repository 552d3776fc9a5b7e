"""Which runs count, and what a judgement and a verification say of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from harness.cost import ReferencePrice
from harness.errors import UsageProblem
from harness.judge import Judgement, judge, verdict_of
from harness.record import Environment, Event, Probe, Run, RunDigests, RunRole, Scores, Verdict
from harness.ruleset import Ruleset
from harness.verification import judge_verification

TARGET, SIGMA = 2.0, 0.01
START = datetime(2026, 8, 1, tzinfo=UTC)
PRICE = ReferencePrice(table_id="2026-08-00000000", usd_per_hour=36.0)
RULESET = Ruleset(
    id="test-1",
    looks=(3, 5, 10),
    validity_alpha=0.01,
    validity_bound=2.645,
    validity_futility=(-0.5, 0.25),
    spread_guard_p=0.01,
    superiority_alpha=0.05,
    superiority_level=0.9593,
    guard_delta_bpb=0.02,
)
ENVIRONMENT = Environment(
    hostname_digest="0" * 16,
    os="Linux",
    cpu="a processor",
    cpu_cores=2,
    memory_bytes=2**33,
    accelerators=(),
    python="3.11.7",
    packages={},
    git_commit=None,
    git_dirty=None,
)
DIGESTS = RunDigests(submission="0" * 64, baseline="0" * 64, train_rows="0" * 64, val_rows="0" * 64, tokenizer="0" * 64)


def events(timed_s: float) -> tuple[Event, ...]:
    """A run with 10 s before `go` and 5 s after `done`."""
    go, done = 10.0, 10.0 + timed_s
    marks = {"start": 0.0, "hello": 1, "ready": 8, "go": go, "done": done, "evaluate": done + 1, "evaluated": done + 4, "end": done + 5}
    return tuple(Event(name=name, at_ns=round(at * 1e9)) for name, at in marks.items())


def run(pair: int | None, timed_s: float = 100.0, bpb: float = 1.97, *, role: RunRole = "entry", core: float | None = None) -> Run:
    """A finished run that passed its probe."""
    index = 0 if pair is None else pair
    return Run(
        id=f"{role}-{index}",
        track="nano",
        track_version="nano-1",
        submission="idea",
        role=role,
        pair=pair,
        seed_index=index,
        nonce="n",
        seed=1,
        started_at=START + timedelta(hours=index),
        state="finished",
        world_size=2,
        steps=10,
        tokens=1000,
        events=events(timed_s),
        scores=Scores(val_bpb=bpb, val_tokens=10, val_bytes=40, core=core, probes=(Probe(name="causality", passed=True, evidence="0"),)),
        digests=DIGESTS,
        sandbox="none",
        environment=ENVIRONMENT,
        peak_memory_bytes=None,
        parameters=None,
        flops_per_token=None,
    )


def void(run_: Run, *, after: str) -> Run:
    """The same run, broken off after the event of this name."""
    kept = [event.name for event in run_.events].index(after) + 1
    return run_.model_copy(update={"state": "void", "void_reason": "preempted", "scores": None, "events": run_.events[:kept]})


def leaky(run_: Run) -> Run:
    """The same run, whose model was caught reading ahead."""
    scores = Scores(val_bpb=None, val_tokens=0, val_bytes=0, probes=(Probe(name="causality", passed=False, evidence="moved by 3.1"),))
    return run_.model_copy(update={"scores": scores})


def series(times: list[float], bpb: float = 1.97, role: RunRole = "entry") -> list[Run]:
    return [run(pair, timed_s, bpb, role=role) for pair, timed_s in enumerate(times)]


def judged(entry: list[Run], reference: list[Run] | None = None, *, final: bool = True, ruleset: Ruleset = RULESET) -> Judgement:
    references = series([100.0] * len(entry), bpb=1.98, role="reference") if reference is None else reference
    return judge(
        entry,
        references,
        ruleset=ruleset,
        metric="val_bpb",
        target=TARGET,
        sigma=SIGMA,
        against="baseline-00000000",
        price=PRICE,
        final=final,
    )


def verdict(judgement: Judgement) -> Verdict:
    return verdict_of(judgement, id="v-1", kind="submit", decided_at=START, by="somebody")


def words(judgement: Judgement) -> tuple[str | None, str | None]:
    validity, superiority = judgement.validity, judgement.superiority
    return validity.verdict if validity else None, superiority.verdict if superiority else None


# ---------------------------------------------------------------------- judge


def test_a_faster_entry_that_reaches_the_target_is_valid_and_better() -> None:
    judgement = judged(series([90.0, 90.5, 89.5]))
    assert words(judgement) == ("valid", "better")
    assert judgement.superiority is not None
    assert judgement.superiority.ratio == pytest.approx(0.9, abs=1e-4)
    assert judgement.superiority.against == "baseline-00000000"
    assert judgement.superiority.level == 0.9593
    assert judgement.superiority.guard_delta_bpb == pytest.approx(-0.01)


def test_an_untouched_copy_of_the_baseline_is_not_better() -> None:
    assert words(judged(series([99.5, 100.7, 100.1]))) == ("valid", "not better")


def test_the_same_copy_is_undecided_while_more_pairs_are_to_come() -> None:
    assert words(judged(series([99.5, 100.7, 100.1]), final=False)) == ("valid", "undecided")


def test_a_faster_entry_that_misses_the_target_is_better_but_not_valid() -> None:
    references = series([100.0] * 3, bpb=2.01, role="reference")
    assert words(judged(series([90.0, 90.5, 89.5], bpb=2.01), references)) == ("not valid", "better")


def test_core_is_judged_upwards() -> None:
    entry = [run(pair, core=score) for pair, score in enumerate((0.264, 0.266, 0.268))]
    judgement = judge(entry, [], ruleset=RULESET, metric="core", target=0.256525, sigma=0.0056, against="baseline", price=PRICE, final=True)
    assert judgement.validity is not None
    assert (judgement.validity.verdict, judgement.validity.metric) == ("valid", "core")
    assert judgement.superiority is None


def test_runs_are_judged_in_the_order_of_their_seeds_whatever_the_order_given() -> None:
    entry = [run(pair, bpb=bpb) for pair, bpb in enumerate((1.97, 1.98, 1.98, 2.5))]
    forth, back = judged(entry), judged(entry[::-1])
    assert forth.validity == back.validity
    assert forth.validity is not None
    assert forth.validity.mean == pytest.approx((1.97 + 1.98 + 1.98) / 3)


def test_a_void_run_is_listed_and_paid_for_but_not_judged() -> None:
    entry = [*series([90.0, 90.5, 89.5]), void(run(3, timed_s=50.0, bpb=9.9), after="go")]
    judgement = judged(entry, series([100.0] * 4, role="reference"))
    assert words(judgement) == ("valid", "better")
    record = verdict(judgement)
    assert record.void_runs == ("entry-3",)
    assert "entry-3" in record.runs
    assert record.mean_timed_s == pytest.approx(90.0)
    assert record.mean_val_bpb == pytest.approx(1.97)
    assert judgement.cost is not None
    assert judgement.cost.verify_usd == pytest.approx((3 * 15 + 270 + 4 * 115 + 10) / 100)


def test_a_pair_whose_reference_is_void_is_left_out_of_superiority_only() -> None:
    references = series([100.0] * 4, role="reference")
    references[1] = void(references[1], after="go")
    judgement = judged(series([90.0, 90.5, 89.5, 90.1]), references)
    assert [pair.index for pair in judgement.pairs] == [0, 2, 3]
    assert judgement.superiority is not None
    assert judgement.superiority.pairs == 3
    assert judgement.validity is not None
    assert judgement.validity.runs == 3


def test_pairs_are_matched_by_their_index_not_by_their_place() -> None:
    entry = series([90.0, 180.0, 270.0])
    references = series([100.0, 200.0, 300.0], role="reference")[::-1]
    assert [pair.ratio for pair in judged(entry, references).pairs] == pytest.approx([0.9, 0.9, 0.9])


def test_two_finished_runs_of_one_pair_are_an_error_that_names_them() -> None:
    twin = run(1).model_copy(update={"id": "twin"})
    with pytest.raises(UsageProblem, match="entry-1 and twin both finished as pair 1"):
        judged([*series([90.0] * 3), twin])


def test_a_single_pair_has_no_interval() -> None:
    assert words(judged(series([90.0]))) == ("undecided", None)


def test_without_a_finished_run_nothing_is_judged() -> None:
    judgement = judged([void(run(0), after="go")])
    assert (judgement.validity, judgement.superiority, judgement.cost) == (None, None, None)
    assert verdict(judgement).mean_timed_s is None


def test_an_entry_worse_than_the_guard_is_never_better() -> None:
    entry = series([90.0, 90.5, 89.5], bpb=1.97)
    judgement = judged(entry, series([100.0] * 3, bpb=1.94, role="reference"))
    assert words(judgement) == ("valid", "not better")
    assert judgement.superiority is not None
    assert not judgement.superiority.guard_passed
    assert "val bpb is worse than the reference by 0.0300, guard 0.02" in judgement.superiority.method


def test_without_a_guard_a_loss_of_val_bpb_does_not_matter() -> None:
    unguarded = RULESET.model_copy(update={"guard_delta_bpb": None})
    judgement = judged(series([90.0, 90.5, 89.5]), series([100.0] * 3, bpb=1.90, role="reference"), ruleset=unguarded)
    assert words(judgement) == ("valid", "better")


def test_a_finished_run_without_a_score_makes_the_entry_not_valid() -> None:
    entry = series([90.0] * 4)
    entry[3] = entry[3].model_copy(update={"scores": None})
    judgement = judged(entry)
    assert judgement.validity is not None
    assert judgement.validity.verdict == "not valid"
    assert judgement.validity.method.startswith("run entry-3 finished without a val_bpb score")


def test_a_failed_probe_makes_the_entry_not_valid() -> None:
    judgement = judged([run(0), leaky(run(1)), run(2), run(3)])
    assert judgement.validity is not None
    assert judgement.validity.verdict == "not valid"
    assert judgement.validity.method.startswith("run entry-1 failed the causality probe")
    assert [pair.index for pair in judgement.pairs] == [0, 2, 3]


def test_an_entry_none_of_whose_runs_has_a_score_is_disqualified() -> None:
    judgement = judged([leaky(run(0)), leaky(run(1))])
    assert (judgement.validity, judgement.disqualified) == (None, "run entry-0 failed the causality probe")
    assert verdict(judgement).note == "run entry-0 failed the causality probe"


def test_breaking_off_the_evaluation_of_a_trained_run_cannot_make_an_entry_valid() -> None:
    entry = [*series([90.0] * 3), void(run(3), after="evaluate")]
    judgement = judged(entry)
    assert judgement.validity is not None
    assert judgement.validity.verdict == "undecided"
    assert judgement.validity.method.startswith("run entry-3 was void after its training had ended")


def test_the_longest_explanation_fits_its_field() -> None:
    entry = [run(pair, bpb=bpb) for pair, bpb in enumerate((0.2, 0.9, 1.4, 0.2, 0.9, 1.4))]
    entry[5] = void(entry[5].model_copy(update={"id": "x" * 100}), after="done")
    validity = judged(entry, ruleset=RULESET.model_copy(update={"validity_bound": 0.5})).validity
    assert validity is not None
    assert "x" * 100 in validity.method
    assert "t-test" in validity.method


def test_cost_is_the_mean_timed_seconds_and_everything_that_ran() -> None:
    cost = judged(series([90.0, 110.0, 100.0])).cost
    assert cost is not None
    assert cost.run_usd == pytest.approx(1.0), "100 s at $36 an hour"
    assert cost.verify_usd == pytest.approx(6 * 1.15), "six runs of 100 timed and 15 other seconds"
    assert cost.price_table == "2026-08-00000000"


def test_a_verdict_survives_its_own_json() -> None:
    record = verdict(judged(series([90.0, 90.5, 89.5])))
    assert Verdict.model_validate_json(record.model_dump_json()) == record
    assert record.ruleset == "test-1"
    assert record.reference_mean_timed_s == pytest.approx(100.0)
    assert record.reference_mean_val_bpb == pytest.approx(1.98)


# ---------------------------------------------------------------------- verification


FAST = [90.0, 90.5, 89.5]
LEVEL = [99.5, 100.7, 100.1]
CLAIM = verdict(judged(series(FAST)))


def test_a_claim_that_is_valid_and_better_again_is_reproduced() -> None:
    verification = judge_verification(CLAIM, judged(series([91.0, 90.2, 90.9]), final=False))
    assert (verification.outcome, verification.reason) == ("reproduced", "valid again and better again")


def test_a_claim_that_is_better_again_by_less_is_still_reproduced() -> None:
    assert judge_verification(CLAIM, judged(series([96.0, 96.1, 95.9]), final=False)).outcome == "reproduced"


def test_a_claim_that_misses_the_target_is_refuted() -> None:
    verification = judge_verification(CLAIM, judged(series(FAST, bpb=2.02), final=False))
    assert verification.outcome == "refuted"
    assert verification.reason == "not valid: mean val_bpb 2.02000 of 3 runs against the target 2"


def test_a_claim_whose_model_fails_a_probe_is_refuted() -> None:
    verification = judge_verification(CLAIM, judged([leaky(run(0))], final=False))
    assert (verification.outcome, verification.reason) == ("refuted", "run entry-0 failed the causality probe")


def test_a_claim_of_speed_that_is_not_seen_again_is_refuted() -> None:
    verification = judge_verification(CLAIM, judged(series(LEVEL), final=False))
    assert verification.outcome == "refuted"
    assert verification.reason.startswith("slower than claimed: time ratio 1.0010")


def test_a_claim_that_trips_the_guard_is_refuted() -> None:
    fresh = judged(series(FAST), series([100.0] * 3, bpb=1.94, role="reference"), final=False)
    assert judge_verification(CLAIM, fresh).outcome == "refuted"


def test_a_wide_interval_around_the_claimed_ratio_reproduces_nothing() -> None:
    verification = judge_verification(CLAIM, judged(series([80.0, 90.0, 101.0]), final=False))
    assert verification.outcome == "undecided"
    assert verification.more_pairs == 7, "at that spread only ten pairs may show a ratio of 0.9"
    assert "do not show it faster yet; 7 more pairs may decide" in verification.reason


def test_a_narrower_interval_asks_for_fewer_pairs() -> None:
    verification = judge_verification(CLAIM, judged(series([91.0, 95.0, 99.5]), final=False))
    assert (verification.outcome, verification.more_pairs) == ("undecided", 2)


def test_too_few_runs_are_undecided_until_the_first_look() -> None:
    verification = judge_verification(CLAIM, judged(series([90.0]), final=False))
    assert (verification.outcome, verification.more_pairs) == ("undecided", 2)


def test_a_score_near_the_target_asks_for_the_next_look() -> None:
    verification = judge_verification(CLAIM, judged(series(FAST, bpb=1.99), final=False))
    assert (verification.outcome, verification.more_pairs) == ("undecided", 2)
    assert verification.reason.startswith("the runs do not reach the target yet")


def test_after_the_last_look_an_open_question_stays_open() -> None:
    fresh = judged(series([80.0, 106.0] * 5), final=False)
    verification = judge_verification(CLAIM, fresh)
    assert fresh.superiority is not None
    assert fresh.superiority.low < 0.905 < 1 < fresh.superiority.high
    assert (verification.outcome, verification.more_pairs) == ("undecided", None)
    assert verification.reason.endswith("the last look is taken")


def test_a_valid_claim_that_was_not_better_is_reproduced_by_being_valid() -> None:
    claim = verdict(judged(series(LEVEL)))
    verification = judge_verification(claim, judged(series([100.3, 99.9, 100.2]), final=False))
    assert (verification.outcome, verification.reason) == ("reproduced", "valid again")


def test_a_valid_claim_that_was_not_better_is_refuted_by_being_slower() -> None:
    claim = verdict(judged(series(LEVEL)))
    assert judge_verification(claim, judged(series([120.0, 120.5, 119.5]), final=False)).outcome == "refuted"


def test_a_claim_that_was_not_valid_leaves_nothing_to_reproduce() -> None:
    claim = verdict(judged(series(FAST, bpb=2.05)))
    verification = judge_verification(claim, judged(series(FAST), final=False))
    assert (verification.outcome, verification.more_pairs) == ("undecided", None)
