"""What the judges with a clock share: where a program lies in memory, and what is read off a run.

The judge *rtl* fills a report from its harness, the judge *cycle* one of the same form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuflow import layout
from neuflow.errors import HardwareError, InputError
from neuflow.grid import GridConfig
from neuflow.ir import Program
from neuflow.run.stats import Measured

PAGE = 4096  # bytes: unit of the address registers
WATCHDOG_CYCLES = 200_000
"""Cycles without progress after which the grid itself stops with error HANG."""

SEEDS = (1 << 64) - 1
"""Seeds of random stalls: 0 to this, less one; the next number, which is kept in 64 bits, is not 0."""

# The program is placed here and not at 0, so that an address that nobody relocated shows.
_PROGRAM = 16 * PAGE


@dataclass(frozen=True)
class Placement:
    """Byte addresses of a program's parts in memory, all multiples of 4 KB, and its size."""

    program: int
    inputs: int
    outputs: int
    size: int


def check_seed(seed: int | None) -> None:
    """Refuse a seed of random stalls that the judges' generators do not hold; None: no stalls."""
    if seed is not None and not 0 <= seed < SEEDS:
        raise InputError(f"seed {seed}: give a number from 0 to {SEEDS - 1}")


def placement(program: Program, count: int) -> Placement:
    """Lay out device section, work memory, and rings of ``count`` frames, one behind the other."""
    work = _page(_PROGRAM + len(program.device)) + 2 * program.work_words
    inputs = _page(work)
    outputs = _page(inputs + 2 * count * program.input_words)
    size = _page(outputs + 2 * count * program.output_words)
    if size > 1 << 32:
        raise InputError(
            f"{count} frames need {size >> 20} MB, and addresses reach 4096 MB; give fewer images"
        )
    return Placement(_PROGRAM, inputs, outputs, size)


def _page(address: int) -> int:
    return -(-address // PAGE) * PAGE


def measured(program: Program, report: Mapping[str, Any]) -> Measured:
    """Check that the grid finished without an error, and return what was measured."""
    names = {register.address: register.name for register in layout.REGISTERS}
    registers = {names[int(k)]: value for k, value in report["registers"].items()}
    if registers["GRID_HASH"] != int(program.grid.hash()[:8], 16):
        raise HardwareError("the simulator was built for another grid; clear its cache directory")
    code = registers["STATUS"] >> 8 & 0xFF
    if code or not report["finished"]:
        where = origin(program, registers["PROGRAM_COUNTER"])
        known = {error.value for error in layout.Error}
        name = layout.Error(code).name if code in known else f"code {code}"
        cause = f"error {name}" if code else "no end within the cycles allowed"
        raise HardwareError(
            f"the grid stopped with {cause} after {registers['CYCLES']} cycles, frame "
            f"{registers['FRAMES_DONE']}, program word {registers['PROGRAM_COUNTER']} ({where}); "
            f"at the end {last_activity(report['timeline'])}"
        )
    cycles = registers["CYCLES"] | registers["CYCLES_HIGH"] << 32
    # The harness counts from the write to CONTROL, the grid from the start bit inside it: in
    # between no tile has work.
    late = max(0, report["observed_cycles"] - cycles)
    before = np.zeros(len(layout.Cause), np.int64)
    before[layout.Cause.IDLE_TILE] = late * program.grid.macs
    return Measured(
        cycles=cycles,
        registers=registers,
        write_done=[[max(0, t - late) for t in times] for times in report["write_done"]],
        causes=causes_of(program.grid, registers),
        write_causes=[
            np.maximum(np.reshape(rows, (-1, len(before))) - before, 0).tolist()
            for rows in report["write_causes"]
        ],
        window_cycles=report["window_cycles"],
        timeline=report["timeline"],
        seconds=report["seconds"],
    )


def causes_of(grid: GridConfig, registers: Mapping[str, int]) -> list[int]:
    """Return the MACs of each ``layout.Cause``, from the counters."""
    column = grid.maps * grid.pixels
    return [
        registers[cause.name] | registers[f"{cause.name}_HIGH"] << 32
        if cause in layout.MAC_CAUSES
        else registers[cause.name] * column
        for cause in layout.Cause
    ]


def last_activity(timeline: Sequence[Sequence[Sequence[int]]]) -> str:
    """Return what each column did in the last window, such as ``column 0: WAIT_ROWS``."""
    columns = [
        f"column {number}: {'+'.join(a.name for a in layout.Activity if counts[a]) or 'nothing'}"
        for number, counts in enumerate(timeline[-1])
    ]
    return ", ".join(columns)


def origin(program: Program, word: int) -> str:
    """Return what the device word (32 bit) at ``word`` belongs to, such as ``conv1/column3``."""
    found = "start"
    for first, name in program.origins:
        if first > word:
            break
        found = name
    return found
