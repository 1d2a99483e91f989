"""How the loops are compiled."""

from __future__ import annotations

from functools import partial

from numba import njit

inner = partial(njit, cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For what compiled code alone calls: what Python would call it through is half of the time that compiling
takes."""
