"""How the judge is compiled: numba, kept on disk under the user's cache directory of neuflow."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.extending import intrinsic

from neuflow.run.build import cache_directory, writable

_F = TypeVar("_F", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
_PACKAGE = Path(__file__).resolve().parents[1]


def part(function: _F) -> _F:
    """Compile a function that is called from compiled functions only; it becomes part of them."""
    return cast(_F, numba.njit(forceinline=True, **_OPTIONS)(function))


def called(function: _F) -> _F:
    """Compile a ``part`` that is called, not copied: a long one with more than one caller."""
    return cast(_F, numba.njit(**_OPTIONS)(function))


def kernel(function: _F) -> _F:
    """Compile a function that Python calls, once for all processes.

    numba knows a compiled function by the file that it stands in, and would not see that a part
    or a constant of a block has changed; so the directory is named after all of those sources.
    Where it cannot write there it would keep the function beside its source, and that is refused.
    """
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(writable(cache_directory()) / f"cycle-{_source_hash()}")
    try:
        return cast(_F, numba.njit(cache=True, **_OPTIONS)(function))
    finally:
        config.CACHE_DIR = before


@intrinsic
def lowest(_context: Any, _bits: Any) -> Any:
    """The place of the lowest bit that is set in a number; there is one (the processor counts them)."""

    def zeros_below(context: Any, builder: Any, _: Any, numbers: Any) -> Any:
        return builder.cttz(numbers[0], context.get_constant(numba.boolean, True))

    return numba.int64(numba.int64), zeros_below


@functools.cache
def _source_hash() -> str:
    files = [*_PACKAGE.glob("cycle/*.py"), *_PACKAGE.glob("blocks/*.py"), _PACKAGE / "layout.py"]
    digest = hashlib.sha256(numba.__version__.encode())
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:24]
