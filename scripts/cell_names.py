"""Where a cell of the flattened netlist lies in the grid, by its name."""

from __future__ import annotations

import re

TILES = ("convolver tile", "operator tile", "mapper tile")
"""Rows of a column, north to south; FIFO tiles follow."""

INSERTED = "nextpnr"
"""Block of cells that stand in no netlist: nextpnr puts them at the ends of carry chains and at pins."""

_CELL_SUFFIX = re.compile(
    r"(_(LUT4|CCU2C|TRELLIS_|PFUMX|L6MUX21|MULT18X18D|ALU54B|DP16KD|PDPW16KD|copy\d+$)|\$).*"
)


def split_name(cell: str) -> tuple[str, str]:
    """Return (block, signal) of a flattened cell: where it lies in the grid, what it drives.

    A memory belongs to the block that places it; what nextpnr put in, whose name begins with $, to
    ``INSERTED``.
    """
    if cell.startswith("$"):
        return INSERTED, "carry" if "CCU2" in cell else cell[1:]
    path = [re.sub(r"\$\d+$", "", part) for part in cell.split(".") if part]
    signal = _CELL_SUFFIX.sub("", path[-1]) or path[-1]
    if path[0] != "core":
        return "harness", signal
    inside = path[1:-1]
    if "memory" in inside:
        inside, signal = inside[: inside.index("memory")], "memory"
    while inside and inside[-1] == "ram":
        inside.pop()
    return readable(inside), signal


def readable(path: list[str]) -> str:
    """Return a block's name: the tile if it lies in one, then the way down from there."""
    tile = re.fullmatch(r"column(\d+)_row(\d+)", path[1]) if len(path) > 1 else None
    if tile is None:
        return ".".join(path) or "core"
    row = int(tile[2])
    kind = TILES[row] if row < len(TILES) else f"FIFO tile {row - len(TILES)}"
    return f"column {tile[1]} {' '.join([kind, '.'.join(path[2:])]).rstrip()}"
