"""Price tables: one CSV per month in `prices/`, never changed after it was used, one row per offer.

Each row names the catalogue file and commit that its price was read from; `date` is the month of reading. Spot rows hold
the cheapest zone listed for the region, at one instant: spot prices of one machine type differ fivefold between zones.
Billing units: AWS 1 s and Lambda 60 s by their announcements and documentation, Nebius 1 s by its pricing pages.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.errors import UsageProblem

PRICES = Path(__file__).parent / "prices"

Market = Literal["on-demand", "spot"]
Text = Annotated[str, Field(min_length=1)]


class Offer(BaseModel):
    """One machine type of one provider in one region and market."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Text
    sku: Text
    accelerator: str
    """Such as `H100`; empty for a machine without."""
    gpus: Annotated[int, Field(ge=0)]
    region: Text
    market: Market
    usd_per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """For the whole machine."""
    billing_unit_s: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(lambda text: None if text == "" else text)]
    """Rented seconds are rounded up to a multiple of this; None (empty) where the provider's unit is not known."""
    source: Annotated[str, Field(pattern=r"^https://")]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}(-\d{2})?$")]


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All offers of one file."""

    id: str
    """File stem and the first 8 hex digits of the file's SHA-256: `2026-08-1a2b3c4d`."""
    offers: tuple[Offer, ...]

    def offers_for(self, accelerator: str, gpus: int, market: Market | None = None) -> list[Offer]:
        """Offers of exactly this machine, cheapest first; `accelerator` is empty and `gpus` 0 for a machine without."""
        fitting = [o for o in self.offers if (o.accelerator, o.gpus) == (accelerator, gpus) and market in (None, o.market)]
        return sorted(fitting, key=lambda offer: (offer.usd_per_hour, offer.provider, offer.region))


def load_price_table(path: Path) -> PriceTable:
    """Read one CSV. Raises UsageProblem for a row that does not fit `Offer`, or a table without rows."""
    content = path.read_bytes()
    offers = []
    for line, row in enumerate(csv.DictReader(content.decode().splitlines()), start=2):
        try:
            offers.append(Offer.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise UsageProblem(first["msg"], where=f"{path.name}, line {line}, {field}", mend="correct that row") from None
    if not offers:
        raise UsageProblem("the table has no rows", where=path.name, mend="add an offer")
    return PriceTable(id=f"{path.stem}-{hashlib.sha256(content).hexdigest()[:8]}", offers=tuple(offers))


def newest_price_table() -> PriceTable:
    """The table of the latest month in the repository."""
    return load_price_table(max(PRICES.glob("*.csv"), key=lambda path: path.stem))
