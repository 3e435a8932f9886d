"""The judge *cycle*: values from the functional interpreter, times from the machine of this package.

It takes the same program, inputs, memory settings and seed as the judge *rtl*, and gives the same
words, the same cycles and the same counters.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow import layout
from neuflow.blocks.registers import constants
from neuflow.cycle import machine
from neuflow.cycle.figures import COUNTS, WINDOWS
from neuflow.cycle.program import decode
from neuflow.grid import GridConfig, MemoryConfig
from neuflow.ir import Program, Result, Words
from neuflow.layout import MAC_CAUSES, Activity, Cause
from neuflow.run import device, frames, measure, stats
from neuflow.run.stats import Measured

_MAX_COUNT = 0xFFFF_FFFF
_MAX_CYCLES = 1 << 62

_COUNTERS = {
    "CONFIG_WORDS": "config_words",
    "CONFIG_STALLS": "config_stalls",
    "FENCE_STALLS": "fence_stalls",
    "READ_BEATS": "read_beats",
    "WRITE_BEATS": "write_beats",
    "CONFIG_HIDDEN": "config_hidden",
}
"""Register -> field of ``control.COUNTERS``."""

def run(
    program: Program,
    inputs: Mapping[str, Words],
    memory: MemoryConfig | None = None,
    seed: int | None = None,
    max_cycles: int | None = None,
) -> Result:
    """Run ``program`` on words int64 [N, C, H, W] by name; return outputs and statistics.

    Parameters are those of :func:`neuflow.run.rtl.run`, and so are the errors.
    """
    images = frames.image_count(program, inputs)
    # The machine runs compiled and lets go of the interpreter's lock, so both have a core.
    with ThreadPoolExecutor(1) as pool:
        words = pool.submit(device.run, program, inputs)
        measured = simulate(program, images, memory, seed, max_cycles, timeline=False)
        outputs = words.result().outputs
    return Result(outputs, stats.assemble(program, images, measured, memory, judge="cycle"))


def simulate(
    program: Program,
    images: int,
    memory: MemoryConfig | None = None,
    seed: int | None = None,
    max_cycles: int | None = None,
    trace: NDArray[np.uint32] | None = None,
    plain: bool = False,
    timeline: bool = True,
) -> Measured:
    """Return what the grid's counters and the bench around it would show for ``images`` images.

    Times do not depend on words, so none are needed. ``trace`` uint32 [cycles, columns] is filled
    with the activity (``layout.ACTIVITY``) of the first cycles. With ``plain`` every part is moved in
    every cycle, for tests of what is otherwise left out. Without ``timeline`` there is none, which
    takes less time.
    """
    measure.check_seed(seed)
    grid, count = program.grid, frames.frame_count(program, images)
    place = measure.placement(program, count)
    decoded = decode(program.device, grid.columns)
    made = machine.new_machine(grid, memory or grid.memory, place.size, seed, plain)
    if not timeline:
        made[0]["figures"]["width"] = _MAX_CYCLES  # one window
        made[0]["history"]["on"] = seed is None and trace is None and not plain
    host = made[0]["sequencer"]
    for name, value in (
        ("program", place.program // measure.PAGE), ("input", place.inputs // measure.PAGE),
        ("output", place.outputs // measure.PAGE), ("frames", count), ("ring", 0),
    ):  # fmt: skip
        host[f"host_{name}"] = value
    made[0]["counters"]["host_watchdog"] = measure.WATCHDOG_CYCLES

    write_done = np.zeros((grid.columns, max(1, int(decoded.writes.max()) * count)), np.int64)
    write_causes = np.zeros((*write_done.shape, len(Cause)), np.int64)
    windows = np.zeros((WINDOWS if timeline else 1, grid.columns, COUNTS), np.int64)
    if trace is None:
        trace = np.zeros((0, grid.columns), np.uint32)
    begin = time.perf_counter()
    machine.run(
        made, decoded.code, decoded.bus, decoded.packets, write_done, write_causes, windows,
        trace, max_cycles or _MAX_CYCLES,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    report = _report(grid, made[0], write_done, write_causes, windows, seconds)
    if not timeline and not _succeeds(made[0]):
        # Once more, for what the error says of the end.
        return simulate(program, images, memory, seed, max_cycles, trace, plain)
    measured = measure.measured(program, report)
    return measured if timeline else dataclasses.replace(measured, timeline=())


def _succeeds(m: np.void) -> bool:
    """Whether the program has ended, without an error."""
    return not m["sequencer"]["busy"] and not m["sequencer"]["error"]


def _report(
    grid: GridConfig,
    m: np.void,
    write_done: NDArray[np.int64],
    write_causes: NDArray[np.int64],
    timeline: NDArray[np.int64],
    seconds: float,
) -> dict[str, Any]:
    """Return what the harness would have written."""
    sequencer, counters, figures = m["sequencer"], m["counters"], m["figures"]
    cycles, busy = int(counters["cycles"]), int(sequencer["busy"])
    late = machine.LATE
    values = {
        "CYCLES": cycles & _MAX_COUNT,
        "CYCLES_HIGH": cycles >> 32,
        "STATUS": busy | (1 - busy) << 1 | int(sequencer["error"]) << 8,
        "FRAMES_DONE": int(sequencer["frames_done"]),
        "PROGRAM_COUNTER": int(sequencer["program_counter"]),
    }
    values |= {name: constants(grid)[name] for name in ("ID", "GRID_HASH")}
    values |= {name: int(counters[field]) for name, field in _COUNTERS.items()}
    values["MAC_CYCLES"] = min(int(timeline[:, :, Activity.MAC].sum()), _MAX_COUNT)
    values |= _cause_registers(grid, figures["causes"])
    addresses = {register.name: str(register.address) for register in layout.REGISTERS}
    return {
        "finished": not busy,
        "seconds": seconds,
        "registers": {addresses[name]: value for name, value in values.items()},
        "observed_cycles": cycles + late,
        "causes": figures["causes"].tolist(),
        "window_cycles": int(figures["width"]),
        "timeline": timeline[: int(figures["windows"])].tolist(),
        "write_done": [
            (write_done[c, : figures["writes"][c]] + late).tolist() for c in range(grid.columns)
        ],
        "write_causes": [write_causes[c, : figures["writes"][c]] for c in range(grid.columns)],
    }


def _cause_registers(grid: GridConfig, causes: NDArray[np.int64]) -> dict[str, int]:
    """Return the counters of the causes; the cycles before the grid is busy are not in them."""
    values: dict[str, int] = {}
    for cause in Cause:
        count = int(causes[cause])
        if cause in MAC_CAUSES:
            values |= {cause.name: count & _MAX_COUNT, f"{cause.name}_HIGH": count >> 32}
            continue
        before = machine.LATE * grid.columns if cause == Cause.IDLE_TILE else 0
        values[cause.name] = min(count // (grid.maps * grid.pixels) - before, _MAX_COUNT)
    return values
