"""How the loops are compiled.

That takes a minute, so they assign no array to a slice: numba would compile for it how a text is joined and
written, ten seconds of it, for the words of an error that is never raised.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from numba import njit


def forget_what_is_older(folder: Path) -> None:
    """Numba looks at a loop's own file alone, and would go on with the constants that others had once."""
    newest = max(each.stat().st_mtime for each in folder.glob("*.py"))
    for index in folder.glob("__pycache__/*.nbi"):
        with suppress(OSError):  # Another process was first, or the folder is not ours.
            if index.stat().st_mtime < newest:
                index.unlink()


forget_what_is_older(Path(__file__).parent)

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
