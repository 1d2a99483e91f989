"""How the loops are compiled.

That takes a minute, so they assign no array to a slice: numba would compile for it how a text is joined and
written, ten seconds of it, for the words of an error that is never raised.

Numba keeps what it compiled until the function's own file changes; what that took from others stays as it
was. `make setup` forgets what is older than any of them.
"""

from __future__ import annotations

from functools import partial

from numba import njit

inner = partial(
    njit, cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", _nrt=False
)
"""For what compiled code alone calls, and what makes no arrays.

What Python would call it through is half of the time that compiling takes. Numba counts references to each
array that a named group gives out, atomically, which was three quarters of a search's time and half of its
code; with `_nrt` off, as numba has it for functions of its own, it counts none: whoever called from Python
has the arrays. By numpy's rules divisions by zero raise nothing, so that none needs a path to an error.
"""
making = partial(njit, cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For what compiled code alone calls, and what makes arrays."""
