"""AXI4 and AXI4-Lite: the signatures of the two ports to the outside.

Only what varies is a member. The constants of AXI4 (size = a whole beat, burst = INCR, cache, prot,
lock, qos) are added by ``rtl/neuflow_top.v``.
"""

from __future__ import annotations

from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import bits_for

from neuflow.grid import GridConfig

ADDRESS_BITS = 32
"""Byte addresses of the memory."""

OKAY = 0
SLVERR = 2
"""Responses: bit 1 set means an error."""


def read_ports(grid: GridConfig) -> int:
    """Return the number of read ports: three of each column, then the program fetch."""
    return 3 * grid.columns + 1


def id_bits(grid: GridConfig) -> int:
    """Return the width of an ID, which is the number of a port."""
    return bits_for(read_ports(grid) - 1)


def beat_bits(grid: GridConfig) -> int:
    """Return the width of a beat address: a byte address without the bits within a beat."""
    return ADDRESS_BITS - bits_for(grid.bus_bits // 8 - 1)


def _channel(**members: int) -> Signature:
    outs = {name: Out(width) for name, width in members.items()}
    return Signature({"valid": Out(1), "ready": In(1), **outs})


def axi4(grid: GridConfig) -> Signature:
    """Return AXI4 as the master sees it. ``len`` = beats - 1; addresses in bytes."""
    number, bits = id_bits(grid), grid.bus_bits
    return Signature(
        {
            "ar": Out(_channel(addr=ADDRESS_BITS, id=number, len=8)),
            "r": In(_channel(data=bits, id=number, resp=2, last=1)),
            "aw": Out(_channel(addr=ADDRESS_BITS, id=number, len=8)),
            "w": Out(_channel(data=bits, strb=bits // 8, last=1)),
            "b": In(_channel(id=number, resp=2)),
        }
    )


LITE_ADDRESS_BITS = 12
"""Byte addresses of the register slave: one page of 4 KB."""


def axi4_lite() -> Signature:
    """Return AXI4-Lite as the master sees it, 32 bit."""
    return Signature(
        {
            "ar": Out(_channel(addr=LITE_ADDRESS_BITS)),
            "r": In(_channel(data=32, resp=2)),
            "aw": Out(_channel(addr=LITE_ADDRESS_BITS)),
            "w": Out(_channel(data=32, strb=4)),
            "b": In(_channel(resp=2)),
        }
    )
