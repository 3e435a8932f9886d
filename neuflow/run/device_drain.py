"""A convolver's exit in the interpreter: sums become rows, or partial sums; see docs/machine.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.fixed import ACC_BITS
from neuflow.grid import GridConfig
from neuflow.run.device_kernel import requantised
from neuflow.run.device_memory import DeviceFault

Fields = Mapping[str, int]
Packet = NDArray[np.signedinteger[Any]]


def leave(
    grid: GridConfig, drain: Fields, parameters: Packet, sums: NDArray[Any], partial: Packet | None
) -> Packet:
    """Return the packet that leaves: rows requantised (y, map, x), or partial sums.

    Parameters
    ----------
    parameters : bias, m, s and zero [4, maps of all blocks].
    sums : exact, [maps of all blocks, rows, positions of a row] (rows of the output, or of lanes),
        or [maps of all blocks, groups * pixels].
    partial : packet of partial sums that are added, where ``drain`` takes any.
    """
    if drain["partial_in"] or drain["partial_out"]:
        sums = _lanes(grid, drain, sums)
    if drain["partial_in"]:
        sums = sums + _added(grid, drain, partial)
    if drain["partial_out"]:
        _check_sums(sums)
        p, q = grid.maps, grid.pixels
        words = sums.reshape(drain["blocks"], p, drain["groups"], q).transpose(2, 0, 3, 1)
        parts = np.stack([words & 0xFFFF, words >> 16 & 0xFFFF, words >> 32 & 0xFFFF], 3)
        return ((parts ^ 0x8000) - 0x8000).reshape(-1)
    maps, height, width = drain["maps"], drain["height"], drain["width"]
    if sums.ndim == 2:
        sums = _rows(drain, sums)
    kept = sums[:maps, :height, :width].transpose(1, 0, 2).astype(np.int64, order="C")
    _check_sums(kept)
    bias, m, s, zero = np.ascontiguousarray(parameters[:, :maps, None])
    high = 0x7F if drain["narrow"] else 0x7FFF
    return requantised(kept, bias, m, s, zero, -high - 1, high).reshape(-1)


def _check_sums(sums: NDArray[np.int64]) -> None:
    if sums.size and not (sums.max() < 1 << ACC_BITS - 1 and sums.min() > -1 << ACC_BITS - 1):
        raise DeviceFault("a sum overflows the accumulator")


def _rows(drain: Fields, sums: NDArray[Any]) -> NDArray[Any]:
    """Return sums of lanes as rows (maps, rows, pitch); the last may end with the lanes."""
    lanes, pitch = sums.shape[1], drain["pitch"]
    whole = np.zeros((len(sums), -(-lanes // pitch) * pitch), sums.dtype)
    whole[:, :lanes] = sums
    return whole.reshape(len(sums), -1, pitch)


def _lanes(grid: GridConfig, drain: Fields, sums: NDArray[Any]) -> NDArray[np.int64]:
    """Return sums (maps, groups * pixels) of all lanes."""
    lanes = drain["groups"] * grid.pixels
    if sums.ndim == 3:
        sums = sums[:, :, : drain["pitch"]].reshape(len(sums), -1)[:, :lanes]
    return sums.astype(np.int64)


def _added(grid: GridConfig, drain: Fields, partial: Packet | None) -> NDArray[np.int64]:
    """Return the partial sums that come, (maps, groups * pixels)."""
    p, q, blocks, groups = grid.maps, grid.pixels, drain["blocks"], drain["groups"]
    shape = (groups, blocks, q, 3, p)
    if partial is None or partial.size != np.prod(shape):
        raise DeviceFault("partial sums do not have the size of the pass")
    low, middle, high = np.moveaxis(partial.reshape(shape), 3, 0)
    added = (low & 0xFFFF) + ((middle & 0xFFFF) << 16) + (high << 32)
    return added.transpose(1, 3, 0, 2).reshape(blocks * p, groups * q)


def check_drain(grid: GridConfig, drain: Fields) -> None:
    """Raise ``DeviceFault`` where what leaves is not within the groups, or the reorder buffer."""
    if drain["partial_out"]:
        return
    lanes = drain["groups"] * grid.pixels
    inside = drain["width"] <= drain["pitch"]
    if not inside or (drain["height"] - 1) * drain["pitch"] + drain["width"] > lanes:
        raise DeviceFault("the groups do not cover the output")
    _check_reorder(grid, drain)


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
