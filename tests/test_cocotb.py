# amaranth: UnusedElaboratable=no
"""The generated Verilog under cocotb: each block and the machine, on Verilator and Icarus.

``NEUFLOW_COCOTB_SEED=7 pytest tests/test_cocotb.py`` runs all benches with another seed.
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("cocotb", reason="cocotb is not installed")

from sim import designs, simulators

SEED = int(os.environ.get("NEUFLOW_COCOTB_SEED", "1"))
BENCHES = {f"bench_{name}": name for name in designs.BLOCKS}
BENCHES |= {"bench_dma": designs.MACHINE, "bench_machine": designs.MACHINE}


def need(simulator: str) -> None:
    """Skip where a simulator is missing."""
    reason = simulators.missing(simulator)
    if reason:
        pytest.skip(reason)


def passes(verdict: simulators.Verdict) -> bool:
    """Whether tests ran and none failed; their log is shown where one does."""
    print(verdict.log)
    return verdict.tests > 0 and verdict.failures == 0


def cases() -> list[object]:
    """Return (bench, simulator); benches of one build stay in one process."""
    return [
        pytest.param(bench, simulator, marks=pytest.mark.xdist_group(f"{design}-{simulator}"))
        for simulator in simulators.SIMULATORS
        for bench, design in sorted(BENCHES.items(), key=lambda item: item[1] != designs.MACHINE)
    ]


@pytest.mark.rtl
@pytest.mark.parametrize(("bench", "simulator"), cases())
def test_bench_passes(bench: str, simulator: str) -> None:
    need(simulator)
    print(f"seed {SEED}")
    name = BENCHES[bench]
    texts = simulators.sources(name)
    assert passes(simulators.run(f"sim.{bench}", name, name, simulator, texts, SEED))
