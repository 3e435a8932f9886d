"""Host section of a program file: the nouns as JSON, their arrays beside it.

Plain values only; a tuple, an array and a dataclass of ``_NOUNS`` are written as an object with one
key that says so. Nothing that is read can name code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from neuflow.grid import GridConfig, MemoryConfig
from neuflow.ir import HostOp, Layer, MapTable, Node, Port, Program, QuantGraph, Tensor

_NOUNS = {
    cls.__name__: cls
    for cls in (GridConfig, HostOp, Layer, MapTable, MemoryConfig, Node, Port, QuantGraph, Tensor)
}
_INTEGERS = ("<i2", "<i4", "<i8")
_ALIGN = 8


class _Writer:
    """Turns values into JSON; gathers arrays."""

    def __init__(self) -> None:
        self.arrays = bytearray()

    def plain(self, value: Any) -> Any:
        if value is None or isinstance(value, str | bool):
            return value
        if isinstance(value, int | np.integer):
            return int(value)
        if isinstance(value, float | np.floating):
            return float(value)
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, tuple):
            return {"tuple": [self.plain(item) for item in value]}
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        if isinstance(value, Mapping):
            return {"map": [[key, self.plain(item)] for key, item in value.items()]}
        if type(value).__name__ in _NOUNS:
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return {type(value).__name__: {name: self.plain(v) for name, v in fields.items()}}
        raise TypeError(f"a program file cannot hold a {type(value).__name__}")

    def array(self, value: np.ndarray) -> dict[str, Any]:
        """Integers take the narrowest type that holds them: weights are words of 16 bits."""
        if value.dtype.kind not in "iufb":
            raise TypeError(f"a program file cannot hold an array of {value.dtype}")
        own = "<i8" if value.dtype.kind in "iu" else "<f8" if value.dtype.kind == "f" else "|b1"
        kept = own
        if own == "<i8" and value.size:
            kept = next(k for k in _INTEGERS if (value == value.astype(k)).all())
        self.arrays += bytes(-len(self.arrays) % _ALIGN)
        at = len(self.arrays)
        self.arrays += np.ascontiguousarray(value, kept).tobytes()
        return {"array": [at, kept, own, list(value.shape)]}


class _Reader:
    """Inverse of :class:`_Writer`."""

    def __init__(self, arrays: bytes) -> None:
        self.arrays = arrays

    def value(self, plain: Any) -> Any:
        if isinstance(plain, list):
            return [self.value(item) for item in plain]
        if not isinstance(plain, dict):
            return plain
        ((kind, body),) = plain.items()
        if kind == "tuple":
            return tuple(self.value(item) for item in body)
        if kind == "map":
            return {key: self.value(item) for key, item in body}
        if kind == "array":
            return self.array(*body)
        return _NOUNS[kind](**{name: self.value(item) for name, item in body.items()})

    def array(self, at: int, kept: str, own: str, shape: list[int]) -> np.ndarray:
        if not {kept, own} <= {*_INTEGERS, "<f8", "|b1"}:
            raise ValueError(f"array of {kept}, {own}")
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self.arrays, kept, count, at).reshape(shape).astype(own)


def to_host(program: Program) -> tuple[bytes, bytes]:
    """Return the host section (JSON) and the arrays it names."""
    writer = _Writer()
    fields = {f.name for f in dataclasses.fields(program)} - {"device"}
    plain = {name: writer.plain(getattr(program, name)) for name in sorted(fields)}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode(), bytes(writer.arrays)


def from_host(host: bytes, arrays: bytes, device: bytes) -> Program:
    """Inverse of :func:`to_host`."""
    reader = _Reader(arrays)
    plain = json.loads(host)
    return Program(device=device, **{name: reader.value(value) for name, value in plain.items()})


__all__ = ["from_host", "to_host"]
