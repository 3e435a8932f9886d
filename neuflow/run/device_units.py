"""What the units of operator and mapper tiles make of whole packets, under a configuration's fields."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neuflow.blocks.alu_model import alu
from neuflow.blocks.mapper_model import arguments
from neuflow.blocks.window_model import WindowSpec, memory_words, window
from neuflow.grid import GridConfig
from neuflow.ir import MapTable
from neuflow.layout import SEGMENTS, AluOp, WindowOp
from neuflow.run import device_kernel
from neuflow.run.device_memory import DeviceFault, Packet

Fields = Mapping[str, int]
_SEGMENT_FIELDS = [[f"{name}{i}" for i in range(SEGMENTS)] for name in ("min", "b", "a", "q")]


def combined(fields: Fields, a: Packet, b: Packet | None) -> Packet:
    """Return what a term-by-term operator (layout.ALU) makes of one packet or two."""
    if b is not None and len(a) != len(b):
        raise DeviceFault(f"operands of {len(a)} and {len(b)} words")
    shifts = {name: fields[name] for name in ("shift_a", "shift_b", "shift")}
    return alu(AluOp(fields["op"]), a, b, bits=8 if fields["narrow"] else 16, **shifts)


def reduced(grid: GridConfig, fields: Fields, packet: Packet) -> Packet:
    """Return what the window unit (layout.WINDOW) makes of rows (y, map, x)."""
    f = fields
    if len(packet) != f["height"] * f["maps"] * f["width"]:
        raise DeviceFault(f"a packet of {len(packet)} words")
    sizes = (f["kernel_y"], f["stride_y"], f["height_out"], f["maps"], f["width"])
    if memory_words(*sizes, grid.lanes) > grid.window_words:
        raise DeviceFault("its rows overflow the window memory")
    spec = WindowSpec(
        op=WindowOp(f["op"]), kernel=(f["kernel_y"], f["kernel_x"]),
        stride=(f["stride_y"], f["stride_x"]), pad=(f["pad_y"], f["pad_x"]),
        out=(f["height_out"], f["width_out"]), m=f["m"], s=f["s"], zero=f["zero"],
        bits=8 if f["narrow"] else 16,
    )  # fmt: skip
    image = packet.reshape(f["height"], f["maps"], f["width"]).transpose(1, 0, 2)
    return window(spec, image).transpose(1, 0, 2).reshape(-1)


def mapped(fields: Fields, packet: Packet) -> Packet:
    """Return what the mapper (layout.MAPPER) makes of a packet."""
    low, b, a, q = (tuple([fields[name] for name in names]) for names in _SEGMENT_FIELDS)
    odd, even = bool(fields["odd"]), bool(fields["even"])
    table = MapTable(low, b, a, q, fields["shift"], fields["square"], odd, even)
    words = np.ascontiguousarray(packet, np.int64)
    high = 0x7F if fields["narrow"] else 0x7FFF
    return np.asarray(device_kernel.mapped(*arguments(table), words, -high - 1, high))


__all__ = ["combined", "mapped", "reduced"]
