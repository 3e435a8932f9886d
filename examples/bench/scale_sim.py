"""SCALE-Sim v3 on the same layers: run where that ends in minutes, else by its closed form.

It computes no values and models no stalls in the mode used here (every array cycle is busy or
filling); loading before "cycle 0" is not in its totals, ours are whole runs.
"""

from __future__ import annotations

import csv
import subprocess
import venv
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from examples.bench.layers import ConvLayer
from examples.bench.timed import timed

PACKAGES = ("scalesim==3.0.0", "numpy<2.4")
"""NumPy 2.4 breaks it: scalesim-project/SCALE-Sim issue 160."""

DATAFLOWS = ("os", "ws")
_CONFIG = """\
[general]
run_name = neuflow
[architecture_presets]
ArrayHeight = {side}
ArrayWidth = {side}
IfmapSramSzkB = 1024
FilterSramSzkB = 1024
OfmapSramSzkB = 1024
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = 10
ReadRequestBuffer = 512
WriteRequestBuffer = 512
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""
_HEADER = "Layer,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides,\n"
_DRIVER = """\
import sys
from scalesim.scale_sim import scalesim
config, topology, layout, out = sys.argv[1:]
scalesim(save_disk_space=True, verbose=False, config=config, topology=topology,
         layout=layout).run_scale(top_path=out)
"""


def closed_form(layers: Sequence[ConvLayer], side: int, dataflow: str) -> int:
    """Return its cycles on a ``side`` x ``side`` array without running it.

    Output-stationary: ceil(P / R) ceil(N / C) (K + R + C - 2), weight-stationary:
    ceil(K / R) ceil(N / C) (P + 2 R + C - 2), with P output pixels, N filters, K taps, R = C =
    ``side``. ``run`` is compared with it wherever it runs.
    """
    total = 0
    for layer in layers:
        columns = ceil(layer.filters / side)
        if dataflow == "os":
            total += ceil(layer.pixels / side) * columns * (layer.taps + 2 * side - 2)
        else:
            total += ceil(layer.taps / side) * columns * (layer.pixels + 3 * side - 2)
    return total


def best_dataflow(layers: Sequence[ConvLayer], side: int) -> str:
    """Return the dataflow with fewer cycles."""
    return min(DATAFLOWS, key=lambda dataflow: closed_form(layers, side, dataflow))


def environment(directory: Path) -> Path:
    """Return the Python of a virtual environment with SCALE-Sim in it; made on first use."""
    python = directory.resolve() / "bin" / "python"  # it runs in another directory
    if not (directory / "done").exists():
        venv.create(directory, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        (directory / "done").touch()
    return python


def run(layers: Sequence[ConvLayer], side: int, dataflow: str, work: Path) -> dict[str, float]:
    """Run it; return ``cycles``, ``seconds``, ``peak_mb``. Its traces are removed."""
    python = environment(work / "venv")
    (work / "grid.cfg").write_text(_CONFIG.format(side=side, dataflow=dataflow), encoding="utf-8")
    # Names without "DP": it takes those for depthwise layers.
    rows = [f"L{n}," + ",".join(map(str, layer[1:])) + ",\n" for n, layer in enumerate(layers)]
    (work / "layers.csv").write_text(_HEADER + "".join(rows), encoding="utf-8")
    zeros = ",".join(["1"] * 20)
    text = "Layer," + "x," * 20 + "\n" + "".join(f"L{n},{zeros},\n" for n in range(len(layers)))
    (work / "layout.csv").write_text(text, encoding="utf-8")
    (work / "driver.py").write_text(_DRIVER, encoding="utf-8")
    command = [str(python), "driver.py", "grid.cfg", "layers.csv", "layout.csv", "."]
    cost = timed(command, work)
    with (work / "neuflow" / "COMPUTE_REPORT.csv").open(encoding="utf-8") as file:
        table = list(csv.reader(file, skipinitialspace=True))
    column = next(i for i, name in enumerate(table[0]) if name.strip() == "Total Cycles")
    # It prints the index of the last cycle (its issue 125).
    cycles = sum(int(float(line[column])) + 1 for line in table[1:])
    return {"cycles": cycles, "seconds": cost.seconds, "peak_mb": cost.peak_mb}
