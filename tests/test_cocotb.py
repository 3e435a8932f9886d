# amaranth: UnusedElaboratable=no
"""The generated Verilog under cocotb: each block and the machine, on Verilator and Icarus.

``NEUFLOW_COCOTB_SEED=7 pytest tests/test_cocotb.py`` runs all benches with another seed. Logs and
builds are kept in ``build/cocotb``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import pytest

pytest.importorskip("cocotb", reason="cocotb is not installed")
pytest.importorskip("cocotbext.axi", reason="cocotbext-axi is not installed")

from sim import designs, simulators
from sim.streams import Rules
from tests.helpers import beat_bits

SEED = int(os.environ.get("NEUFLOW_COCOTB_SEED", "1"))
BENCHES = {"bench_dma": designs.MACHINE, "bench_machine": designs.MACHINE}
BENCHES |= {f"bench_{name}": name for name in designs.BLOCKS}


def need(simulator: str) -> None:
    """Skip where a simulator is missing."""
    reason = simulators.missing(simulator)
    if reason:
        pytest.skip(reason)


def cases() -> list[object]:
    """Return (bench, simulator); benches of one build stay in one process."""
    return [
        pytest.param(bench, simulator, marks=pytest.mark.xdist_group(f"{design}-{simulator}"))
        for simulator in simulators.SIMULATORS
        for bench, design in BENCHES.items()
    ]


@pytest.mark.rtl
@pytest.mark.parametrize(("bench", "simulator"), cases())
def test_bench_passes(bench: str, simulator: str) -> None:
    need(simulator)
    name = BENCHES[bench]
    texts = simulators.sources(name)
    verdict = simulators.run(f"sim.{bench}", name, name, simulator, texts, SEED)
    print(f"seed {SEED}", verdict.log, sep="\n")
    assert verdict.tests > 0
    assert verdict.failures == 0


@dataclass(frozen=True)
class Mutant:
    """A fault to plant in the Verilog: the first match of ``pattern`` in ``file`` is replaced."""

    bench: str
    file: str
    pattern: str
    replacement: str
    shows_as: str
    """What the log must name as the cause."""


MUTANTS = {
    "stalled_beat_changes": Mutant(
        "bench_fifo", "fifo.v", r"assign move = ~o__valid \| o__ready", "assign move = 1'h1",
        "stalled beat",
    ),
    "quotient_not_rounded": Mutant(
        "bench_alu", "alu.v", r"(n\d+ = left\[0\]) \+ 1'h1", r"\1",
        "AssertionError: o",
    ),
    "router_selects_another_input": Mutant(
        "bench_router", "router.v", r"east_in__payload :", "north_in__payload :",
        "SimTimeoutError",
    ),
    "error_response_ignored": Mutant(
        "bench_dma", "neuflow_top.v", r"m_axi__r__resp\(m_axi_rresp\)", "m_axi__r__resp(2'b00)",
        "read_error failed",
    ),
    "write_strobes_ignored": Mutant(
        "bench_dma", "neuflow_top.v", r"\.m_axi__w__strb\(m_axi_wstrb\),", ".m_axi__w__strb(),",
        "random_copies",
    ),
}  # fmt: skip


def mutated(mutant: Mutant) -> dict[str, str]:
    """Plant a fault."""
    texts = simulators.sources(BENCHES[mutant.bench])
    text, count = re.subn(mutant.pattern, mutant.replacement, texts[mutant.file], count=1)
    assert count == 1, f"{mutant.file} has changed: nothing to mutate"
    return {**texts, mutant.file: text}


def run_mutant(name: str, simulator: str) -> simulators.Verdict:
    """Plant a fault and run the bench that must show it."""
    bench = MUTANTS[name].bench
    texts = mutated(MUTANTS[name])
    return simulators.run(f"sim.{bench}", name, BENCHES[bench], simulator, texts, SEED)


@pytest.mark.parametrize("name", MUTANTS)
def test_every_fault_finds_its_place_in_the_text(name: str) -> None:
    mutated(MUTANTS[name])


@pytest.mark.rtl
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_fails_the_bench(name: str) -> None:
    # Icarus is quicker here; where it is missing, the faults of single blocks are shown on Verilator.
    simulator = "icarus"
    if simulators.missing("icarus") and BENCHES[MUTANTS[name].bench] != designs.MACHINE:
        simulator = "verilator"
    need(simulator)
    verdict = run_mutant(name, simulator)
    assert verdict.failures > 0
    assert MUTANTS[name].shows_as in verdict.log


@pytest.mark.rtl
def test_a_planted_fault_fails_the_bench_on_verilator() -> None:
    need("verilator")
    verdict = run_mutant("stalled_beat_changes", "verilator")
    assert verdict.failures > 0
    assert "stalled beat" in verdict.log


def test_a_simulation_that_leaves_no_results_is_an_error() -> None:
    need("icarus")
    texts = {"fifo.v": "module fifo; initial $finish; endmodule\n"}
    with pytest.raises(RuntimeError):
        simulators.run("sim.bench_missing", "empty", "fifo", "icarus", texts, SEED)


FULL, PART = beat_bits([1, 2], 2, False), beat_bits([3], 2, True)


@pytest.mark.parametrize(
    ("cycles", "complaint"),
    [
        ([(True, False, FULL), (True, True, PART)], "changed"),
        ([(True, False, FULL), (False, True, FULL)], "withdrawn"),
        ([(True, True, beat_bits([], 2, True))], "0 words"),
        ([(True, True, beat_bits([1], 2, False))], "partial"),
    ],
)
def test_the_rules_of_a_stream_are_checked(cycles: list, complaint: str) -> None:
    rules = Rules("o", 2)
    with pytest.raises(AssertionError, match=complaint):
        for cycle in cycles:
            rules.see(*cycle)


def test_the_rules_allow_stalls_and_gaps() -> None:
    rules = Rules("o", 2)
    for cycle in [(True, False, FULL), (True, True, FULL), (False, True, 0), (True, True, PART)]:
        rules.see(*cycle)
    assert rules.held is None
