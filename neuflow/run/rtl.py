"""The judge *rtl*: the grid's Verilog under Verilator, with a memory model around it.

It executes the device section alone; see ``sim/harness.cpp`` for the exact memory model.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuflow.errors import HardwareError, InputError, ToolError
from neuflow.grid import MemoryConfig
from neuflow.ir import Program, Result, Words
from neuflow.run import build, frames, measure, stats
from neuflow.run.measure import PAGE, Placement, placement
from neuflow.run.stats import Measured


def run(
    program: Program,
    inputs: Mapping[str, Words],
    memory: MemoryConfig | None = None,
    seed: int | None = None,
    waves: Path | str | None = None,
    max_cycles: int | None = None,
    fault: int | None = None,
) -> Result:
    """Run ``program`` on words int64 [N, C, H, W] by name; return outputs and statistics.

    Parameters
    ----------
    memory : memory model; default: the grid's own.
    seed : when given, every channel of the bus stalls at random by this seed.
    waves : ``.fst`` or ``.vcd`` file to write; builds a slower simulator.
    max_cycles : stop with ``HardwareError`` after so many cycles; default: the watchdog alone.
    fault : byte address whose bursts the memory answers with an error (for tests).

    Raises ``HardwareError`` naming the error code when the grid stops, ``ToolError`` when the
    simulator cannot be built.
    """
    last = {"last_window": 1}  # of the timeline, which an error names
    outputs, measured = simulate(
        program, inputs, memory, seed, waves, max_cycles, fault, options=last
    )
    images = frames.image_count(program, inputs)
    return Result(outputs, stats.assemble(program, images, measured, memory, judge="rtl"))


def simulate(
    program: Program,
    inputs: Mapping[str, Words],
    memory: MemoryConfig | None = None,
    seed: int | None = None,
    waves: Path | str | None = None,
    max_cycles: int | None = None,
    fault: int | None = None,
    executable: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Words], Measured]:
    """As :func:`run`, but return all that was measured, the activity over time included.

    ``executable``: another simulator than that of the program's grid, for tests. ``options``: more
    arguments of the harness, such as those of its logs.
    """
    measure.check_seed(seed)
    images = frames.image_count(program, inputs)
    packed = frames.pack(program, inputs)
    place = placement(program, len(packed))
    arguments = _memory_arguments(memory or program.grid.memory)
    arguments |= _start_arguments(place, len(packed))
    arguments["seed"] = 0 if seed is None else seed + 1
    optional = {"max_cycles": max_cycles, "fault": fault}
    arguments |= {key: value for key, value in optional.items() if value is not None}
    arguments |= options or {}
    executable = executable or build.simulator(program.grid, _waves_format(waves))
    with (
        tempfile.TemporaryDirectory(prefix="neuflow-") as directory,
        _beside(waves) as trace,
    ):
        work = Path(directory)
        if trace is not None:
            arguments["trace"] = str(trace)
        (work / "program.bin").write_bytes(program.device)
        (work / "inputs.bin").write_bytes(packed.astype("<i2").tobytes())
        words = [f"{key}={value}" for key, value in arguments.items()]
        words += [f"load={place.program}:program.bin", f"load={place.inputs}:inputs.bin"]
        size = 2 * len(packed) * program.output_words
        words.append(f"dump={place.outputs}:{size}:outputs.bin")
        _execute(executable, words, work)
        report = json.loads((work / "report.json").read_text(encoding="utf-8"))
        raw = np.fromfile(work / "outputs.bin", "<i2").reshape(len(packed), program.output_words)
    return frames.unpack(program, raw, images), measure.measured(program, report)


def _waves_format(waves: Path | str | None) -> str:
    if waves is None:
        return ""
    suffix = Path(waves).suffix.removeprefix(".")
    if suffix not in build.TRACE_FLAGS or not suffix:
        raise InputError(f"waves {str(waves)!r}: the name must end in .fst or .vcd")
    return suffix


@contextlib.contextmanager
def _beside(waves: Path | str | None) -> Iterator[Path | None]:
    """Yield where waves are written before they are moved to ``waves``; None: there are none.

    A run that the grid ends with an error leaves them, for they may say why; one that is
    interrupted leaves nothing.
    """
    if waves is None:
        yield None
        return
    path = Path(waves).resolve()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as work:
        place = Path(work) / path.name
        try:
            yield place
        except HardwareError:
            if place.is_file():
                os.replace(place, path)
            raise
        os.replace(place, path)


def _start_arguments(place: Placement, count: int) -> dict[str, Any]:
    return {
        "memory_bytes": place.size,
        "program": place.program // PAGE,
        "input": place.inputs // PAGE,
        "output": place.outputs // PAGE,
        "frames": count,
        "ring": 0,
        "watchdog": measure.WATCHDOG_CYCLES,
        "report": "report.json",
    }


def _memory_arguments(memory: MemoryConfig) -> dict[str, Any]:
    return {
        "tokens": memory.tokens,
        "tokens_per_beat": memory.tokens_per_beat,
        "shared": int(memory.shared),
        "read_latency": memory.read_latency,
        "write_latency": memory.write_latency,
        "outstanding": memory.outstanding,
    }


def _execute(executable: Path, words: list[str], work: Path) -> None:
    try:
        done = subprocess.run(
            [str(executable), *words], cwd=work, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise ToolError(f"{executable} does not start: {error.strerror}; remove it") from None
    if done.returncode:
        message = done.stderr.strip().splitlines()
        cause = message[-1] if message else f"exit code {done.returncode}"
        raise HardwareError(f"simulation stopped: {cause}")
