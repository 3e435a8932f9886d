"""One measurement, in a process of its own: ``python -m examples.bench.measure WORK GRID JUDGE``.

Prints JSON: cycles, MACs, efficiency, rooflines, seconds of the judge alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx

from examples.bench.works import WORKS
from neuflow import api

PROGRAMS = Path("build/bench/programs")


def program_of(name: str, grid: str) -> api.Program:
    """Return the compiled program of a work; kept on disk by the compiler's sources."""
    work = WORKS[name]
    path = PROGRAMS / f"{name}-{grid}.nfp"
    if path.exists():
        return api.load(path)
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / f"{name}.onnx"
        onnx.save(work.model(), model)
        program = api.compile(model, grid, calib=work.calibration(), batch=work.batch)
    program.save(path)
    return program


WARM_UP = "lenet5_b"
"""A small work, run once so that the cycle judge is compiled."""

REPEATED = 2.0
"""Seconds for which a measurement is repeated; the best counts. Longer ones are made once."""

Made = TypeVar("Made")


def on_grid(name: str, grid: str, judge: str) -> dict[str, Any]:
    """Run ``judge`` (rtl, cycle, or times: cycle without values) on one pass of images.

    Raises RuntimeError where the words are not golden's.
    """
    program = program_of(name, grid)
    work = WORKS[name]
    # What is compiled once comes before the clock starts.
    if judge == "rtl":
        from neuflow.run import build

        build.simulator(program.grid)
    else:
        first = WORKS[WARM_UP].calibration()[:1]
        program_of(WARM_UP, grid).cycle(first)
    x = np.resize(work.calibration(), (work.batch, *work.calibration().shape[1:]))
    if judge == "times":
        seconds, stats = best(lambda: program.cycles(work.batch))
    else:
        seconds, result = best(lambda: program.rtl(x) if judge == "rtl" else program.cycle(x))
        stats = result.stats
    peak = peak_mb()
    if judge != "times":
        for tensor, words in program.golden(x).words.items():
            if not np.array_equal(result.words[tensor], words):
                raise RuntimeError(f"{name}: {tensor} of {judge} is not that of golden")
    keys = ("cycles", "cycles_per_image", "macs", "mac_utilisation", "layer_roofline_cycles",
            "network_roofline_cycles", "clock_hz", "stalls", "layers", "images")  # fmt: skip
    return {key: stats[key] for key in keys} | {"seconds": seconds, "peak_mb": peak}


def best(make: Callable[[], Made]) -> tuple[float, Made]:
    """Return the seconds of the fastest call within ``REPEATED`` seconds, and what ``make`` made."""
    fastest, begin = float("inf"), time.monotonic()
    while True:
        start = time.perf_counter()
        made = make()
        fastest = min(fastest, time.perf_counter() - start)
        if time.monotonic() - begin >= REPEATED:
            return fastest, made


def peak_mb() -> float:
    """Return the most memory this process has had, MB.

    Not ``ru_maxrss``: a process begins with that of the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def on_onnxruntime(name: str) -> dict[str, Any]:
    """Time onnxruntime on one pass of images, one thread."""
    import onnxruntime

    work = WORKS[name]
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    content = work.model().SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    x = work.calibration()[:1].astype(np.float32)
    feed = {value.name: x.reshape([d if isinstance(d, int) else 1 for d in value.shape])}
    seconds, _ = best(lambda: session.run(None, feed))
    return {"seconds": seconds, "images": 1, "peak_mb": peak_mb()}


def main() -> None:
    """Print what was asked for."""
    name, grid, judge = sys.argv[1:]
    found = on_onnxruntime(name) if judge == "onnxruntime" else on_grid(name, grid, judge)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
