"""How the loops are compiled.

That takes a minute, so they assign no array to a slice: numba would compile for it how a text is joined and
written, ten seconds of it, for the words of an error that is never raised.
"""

from __future__ import annotations

from functools import partial

from numba import njit

inner = partial(njit, cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For what compiled code alone calls: what Python would call it through is half of the time that compiling
takes."""
