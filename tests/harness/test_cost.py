"""Price tables and what runs cost."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cost import Offer, ReferencePrice, billed_usd, load_price_table, newest_price_table, record_usd, run_usd, verify_usd
from harness.cost.table import PRICES
from harness.errors import UsageProblem

HEADER = "provider,sku,accelerator,gpus,region,market,usd_per_hour,billing_unit_s,source,date\n"
ROW = "acme,big,H100,8,north,on-demand,24.00,60,https://example.org/prices,2026-08\n"


def offer(usd_per_hour: float, billing_unit_s: float | None) -> Offer:
    return Offer(
        provider="acme",
        sku="big",
        accelerator="H100",
        gpus=8,
        region="north",
        market="spot",
        usd_per_hour=usd_per_hour,
        billing_unit_s=billing_unit_s,
        source="https://example.org",
        date="2026-08",
    )


@pytest.mark.parametrize(
    ("provider", "market", "cheapest"),
    [
        ("aws", "on-demand", 55.04),
        ("aws", "spot", 10.18),
        ("lambda", "on-demand", 23.92),
        ("nebius", "on-demand", 23.60),
        ("nebius", "spot", 10.00),
        ("verda", "on-demand", 15.92),
        ("verda", "spot", 7.96),
    ],
)
def test_the_table_holds_the_published_prices_of_eight_h100(provider: str, market: str, cheapest: float) -> None:
    prices = [
        o.usd_per_hour
        for o in load_price_table(PRICES / "2026-08.csv").offers_for("H100", 8)
        if (o.provider, o.market) == (provider, market)
    ]
    assert min(prices) == cheapest


def test_offers_come_cheapest_first_and_only_for_the_machine_asked_for() -> None:
    table = newest_price_table()
    offers = table.offers_for("H100", 8, "spot")
    assert [o.usd_per_hour for o in offers] == sorted(o.usd_per_hour for o in offers)
    assert {(o.accelerator, o.gpus, o.market) for o in offers} == {("H100", 8, "spot")}
    assert [o.sku for o in table.offers_for("", 0)] == ["cpu-e2_2vcpu-8gb"]


def test_every_offer_names_its_source_at_a_fixed_commit() -> None:
    assert all("/blob/" in o.source and len(o.source.split("/blob/")[1].split("/")[0]) == 40 for o in newest_price_table().offers)


def test_a_table_is_identified_by_its_month_and_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "2026-08.csv"
    path.write_text(HEADER + ROW)
    assert load_price_table(path).id == f"2026-08-{hashlib.sha256((HEADER + ROW).encode()).hexdigest()[:8]}"
    path.write_text(HEADER + ROW.replace("24.00", "24.01"))
    assert load_price_table(path).id != f"2026-08-{hashlib.sha256((HEADER + ROW).encode()).hexdigest()[:8]}"


@pytest.mark.parametrize(
    ("good", "bad", "field"),
    [
        ("24.00", "-1", "usd_per_hour"),
        ("24.00", "", "usd_per_hour"),
        ("on-demand", "reserved", "market"),
        ("https://", "http://", "source"),
        (",60,", ",0,", "billing_unit_s"),
        ("acme", "", "provider"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(tmp_path: Path, good: str, bad: str, field: str) -> None:
    path = tmp_path / "2026-09.csv"
    path.write_text(HEADER + ROW + ROW.replace(good, bad))
    with pytest.raises(UsageProblem, match=rf"2026-09\.csv, line 3, {field}"):
        load_price_table(path)


def test_a_table_without_rows_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "2026-09.csv"
    path.write_text(HEADER)
    with pytest.raises(UsageProblem, match="no rows"):
        load_price_table(path)


def test_an_unknown_billing_unit_is_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "2026-09.csv"
    path.write_text(HEADER + ROW.replace(",60,", ",,"))
    assert load_price_table(path).offers[0].billing_unit_s is None


def test_a_run_of_99_minutes_costs_what_was_published() -> None:
    """1.65 hours at Lambda's $23.92 and at AWS's $55.04."""
    assert run_usd(99 * 60, ReferencePrice("t", 23.92)) == pytest.approx(39.47, abs=0.005)
    assert run_usd(99 * 60, ReferencePrice("t", 55.04)) == pytest.approx(90.82, abs=0.005)


def test_verifying_costs_the_wall_seconds_of_all_runs() -> None:
    assert verify_usd([1800, 1800, 3600], ReferencePrice("t", 24.0)) == pytest.approx(48.0)


def test_a_rental_is_rounded_up_to_the_billing_unit_once() -> None:
    assert billed_usd(61, offer(36.0, 60)) == pytest.approx(1.20)
    assert billed_usd(60, offer(36.0, 60)) == pytest.approx(0.60)
    assert billed_usd(61, offer(36.0, None)) == pytest.approx(0.61)
    assert record_usd(3, 100, 101, offer(36.0, 60)) == pytest.approx(6.60), "603 s are 11 minutes"


@given(st.floats(0, 1e6), st.floats(0.01, 100), st.floats(1, 3600))
def test_a_bill_never_falls_short_of_the_seconds_nor_exceeds_them_by_a_unit(seconds: float, price: float, unit: float) -> None:
    exact, billed = billed_usd(seconds, offer(price, None)), billed_usd(seconds, offer(price, unit))
    assert exact * (1 - 1e-9) <= billed <= exact + unit / 3600 * price * (1 + 1e-6)
