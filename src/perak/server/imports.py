"""Import the exchange's libraries for less: at a restart under load the imports are nearly all of the wait.

Some 2 s of processor time on a slow core go into a thousand modules. What is saved here changes nothing that
the exchange does; decision 0064 has the figures.
"""

from __future__ import annotations

import gc
import sys
import warnings


def lighten() -> None:
    """Call it before the first heavy import; `settle` ends it."""
    gc.disable()  # Modules and classes stay: looking for garbage among them again and again finds none.
    _structlog_without_rich()
    # FastAPI has dozens of models of an OpenAPI document; they are built when somebody asks for one.
    from pydantic import BaseModel
    from pydantic.warnings import UnsupportedFieldAttributeWarning

    BaseModel.model_config["defer_build"] = True
    # FastAPI ignores it too, where it builds; it is about how FastAPI marks a request's body.
    warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)


def settle() -> None:
    """What is loaded by now stays for good: collections leave it out, and pages stay shared."""
    gc.freeze()
    gc.enable()


def _structlog_without_rich() -> None:
    """structlog imports rich, where there is one, for tracebacks that ours don't look like."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # what the import system takes for "there is none"
    try:
        import structlog  # noqa: F401 - all of this is for its side effect
    finally:
        del sys.modules["rich"]
