"""The compiled loops of clearing: arrays in, arrays out. `perak.domain.market.auction` says what they are
for.

Compiled by numba at their first call and cached; nothing that starts quickly imports them.
"""

from perak.domain.market.kernels.at_once import instant
from perak.domain.market.kernels.bidding import auction, promising
from perak.domain.market.kernels.bounding import dual, nearest
from perak.domain.market.kernels.edges import BINS, class_capacity, find_edges
from perak.domain.market.kernels.search import anneal, settle_all
from perak.domain.market.kernels.trading import trade

__all__ = [
    "BINS",
    "anneal",
    "auction",
    "class_capacity",
    "dual",
    "find_edges",
    "instant",
    "nearest",
    "promising",
    "settle_all",
    "trade",
]
