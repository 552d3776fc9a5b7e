"""What runs cost, from a dated price table in the repository: nothing here asks the network for a price.

table   offers of cloud providers, read from `prices/<month>.csv`
spend   seconds and prices to dollars
"""

from harness.cost.spend import ReferencePrice, billed_usd, record_usd, run_usd, seconds_to_usd, verify_usd
from harness.cost.table import Offer, PriceTable, load_price_table, newest_price_table

__all__ = [
    "Offer",
    "PriceTable",
    "ReferencePrice",
    "billed_usd",
    "load_price_table",
    "newest_price_table",
    "record_usd",
    "run_usd",
    "seconds_to_usd",
    "verify_usd",
]
