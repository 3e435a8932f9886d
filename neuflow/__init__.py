"""neuflow: an open ConvNet accelerator, its compiler and its simulators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuflow.api import Program, Run, compile, load
    from neuflow.errors import NeuflowError
    from neuflow.grid import PRESETS, GridConfig

__version__ = "0.1.0"

_HOME = {
    "GridConfig": "grid",
    "NeuflowError": "errors",
    "PRESETS": "grid",
    "Program": "api",
    "Run": "api",
    "compile": "api",
    "load": "api",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that ``import neuflow`` is quick."""
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module 'neuflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"neuflow.{_HOME[name]}"), name)
    globals()[name] = value
    return value


__all__ = ["PRESETS", "GridConfig", "NeuflowError", "Program", "Run", "compile", "load"]
