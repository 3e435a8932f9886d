"""A convolver's exit in the interpreter: sums become rows, or partial sums; see docs/machine.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.fixed import requantise
from neuflow.grid import GridConfig
from neuflow.run.device_memory import DeviceFault

Fields = Mapping[str, int]
Packet = NDArray[np.signedinteger[Any]]


def leave(
    grid: GridConfig, drain: Fields, parameters: Packet, sums: Packet, partial: Packet | None
) -> Packet:
    """Return the packet that leaves: rows requantised (y, map, x), or partial sums.

    Parameters
    ----------
    parameters : bias, m, s and zero [4, maps of all blocks].
    sums : int64 [maps of all blocks, groups * pixels].
    partial : packet of partial sums that are added, where ``drain`` takes any.
    """
    p, q = grid.maps, grid.pixels
    blocks, groups = drain["blocks"], drain["groups"]
    shape = (groups, blocks, q, 3, p)
    if drain["partial_in"]:
        if partial is None or partial.size != np.prod(shape):
            raise DeviceFault("partial sums do not have the size of the pass")
        low, middle, high = np.moveaxis(partial.reshape(shape), 3, 0)
        added = (low & 0xFFFF) + ((middle & 0xFFFF) << 16) + (high << 32)
        sums = sums + added.transpose(1, 3, 0, 2).reshape(blocks * p, groups * q)
    if np.abs(sums).max(initial=0) >= 1 << 47:
        raise DeviceFault("a sum overflows the accumulator")
    if drain["partial_out"]:
        words = sums.reshape(blocks, p, groups, q).transpose(2, 0, 3, 1)
        parts = np.stack([words & 0xFFFF, words >> 16 & 0xFFFF, words >> 32 & 0xFFFF], 3)
        return ((parts ^ 0x8000) - 0x8000).reshape(-1)
    _check_reorder(grid, drain)
    bias, m, s, zero = (values[:, None] for values in parameters)
    out = requantise(sums, bias, m, s, zero, 8 if drain["narrow"] else 16)
    y, x = np.divmod(np.arange(groups * q), drain["pitch"])
    kept = out[: drain["maps"], (y < drain["height"]) & (x < drain["width"])]
    if kept.size != drain["maps"] * drain["height"] * drain["width"]:
        raise DeviceFault("the groups do not cover the output")
    return kept.reshape(-1, drain["height"], drain["width"]).transpose(1, 0, 2).reshape(-1)


def _check_reorder(grid: GridConfig, drain: Fields) -> None:
    q = grid.pixels
    first = np.arange(drain["groups"]) * q
    last = np.minimum((first + q - 1) // drain["pitch"], drain["height"] - 1)
    touched = int((last - first // drain["pitch"]).max()) + 1
    padded = -(-drain["maps"] // grid.maps) * grid.maps
    if drain["slots"] < touched:
        raise DeviceFault(f"{drain['slots']} reorder slots, a group touches {touched} rows")
    if drain["map_step"] < drain["slots"] * drain["width"]:
        raise DeviceFault("maps overlap in the reorder buffer")
    if drain["map_step"] % grid.maps != 1 % grid.maps:
        raise DeviceFault("map_step is not 1 modulo the lanes")
    if padded * drain["map_step"] > grid.reorder_words:
        raise DeviceFault("the reorder buffer overflows")
    if drain["blocks"] != (drain["maps"] if drain["by_tap"] else padded // grid.maps):
        raise DeviceFault("maps and blocks do not agree")
