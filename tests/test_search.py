"""Search: other cuts than the least estimated, where the cycle judge says that they are faster."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuflow import cli, program
from neuflow.compiler import Stages, compile_graph, run_passes, search
from neuflow.compiler.assign import assign, cuts_to_try
from neuflow.compiler.mapping import Mapping
from neuflow.cycle import judge
from neuflow.errors import CompileError
from neuflow.grid import TINY
from neuflow.ir import Program, QuantGraph
from neuflow.run import device
from neuflow.run.compare_locate import Locator
from tests.quantgraphs import Builder, evaluate

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "lenet5_b.onnx"


def net() -> Builder:
    """Depthwise and pointwise convolutions, whose best cuts differ in parts of columns and rounds."""
    made = Builder(5)
    x = made.input(8, 9, 9)
    for stride in (1, 2, 1):
        x = made.conv(x, 8, (3, 3), (stride, stride), pads=(1, 1, 1, 1), groups=8)
        x = made.conv(x, 8, (1, 1))
    return made


@pytest.fixture(scope="module")
def graph() -> QuantGraph:
    made = net()
    return made.build(made.nodes[-1].output)


def searched(graph: QuantGraph, tries: int, told=None) -> Program:
    nouns = {"graph": None, "quantised": graph}
    stages = Stages(None, TINY, search=tries, told=told, nouns=nouns)
    return run_passes(stages)["program"]


def cycles(program: Program) -> int:
    return judge.simulate(program, program.batch).cycles


def test_search_takes_fewer_cycles_and_the_same_words(graph: QuantGraph) -> None:
    lines: list[str] = []
    plain, found, words = compile_graph(graph, TINY), searched(graph, 4, lines.append), net().words(2)
    assert found.cuts and not plain.cuts
    assert cycles(found) < cycles(plain)
    changed = sum(rank > 0 for _, rank in found.cuts)
    assert lines[-1] == f"{cycles(found)} cycles, {cycles(plain)} without; layers changed: {changed}"
    assert lines[0] == f"layer 1 of 6, conv0: {cycles(plain)} cycles"
    got = device.run(found, words).outputs[graph.outputs[0]]
    np.testing.assert_array_equal(got, evaluate(graph, words)[graph.outputs[0]])


def test_a_program_says_what_was_found(graph: QuantGraph) -> None:
    found = searched(graph, 4)
    changed = [name for name, rank in found.cuts if rank]
    assert found.mapping.endswith(f"\nfound by search: {', '.join(changed)}\n")
    assert [name for name, _ in found.cuts] == [f"conv{number}" for number in range(6)]
    read = program.from_bytes(program.to_bytes(found))
    assert read.cuts == found.cuts


def test_a_searched_program_can_be_compared(graph: QuantGraph, tmp_path: Path) -> None:
    """``compare`` lays the program out anew to name the words that differ."""
    found = searched(graph, 4)
    words = net().words(1)
    assert Locator(found, words).known
    assert not Locator(replace(found, cuts=()), words).known


def test_with_one_cut_a_layer_nothing_is_tried(graph: QuantGraph, monkeypatch) -> None:
    monkeypatch.setattr(judge, "simulate", None)
    assert program.to_bytes(searched(graph, 1)) == program.to_bytes(compile_graph(graph, TINY))


def test_a_cut_that_is_too_large_for_the_format_is_passed_by(graph: QuantGraph, monkeypatch) -> None:
    mapping = assign(graph, TINY, 1)
    real = search.schedule

    def fails(tried: Mapping, grid) -> object:
        if any(a.rank for a in tried.assignments):
            raise CompileError("too large")
        return real(tried, grid)

    monkeypatch.setattr(search, "schedule", fails)
    found = search.search(mapping, TINY, 3)
    assert [a.rank for a in found.assignments] == [0] * 6 and not found.searched


def test_cuts_by_rank_are_those_of_the_estimate(graph: QuantGraph) -> None:
    plain = assign(graph, TINY, 1)
    chain = plain.assignments[0].chain
    cuts = dict(cuts_to_try(chain, TINY, 1, 2))
    assert str(cuts[0]) == plain.assignments[0].reason and list(cuts)[:2] == [0, 1]
    assert any(cut.row_rounds == 2 for cut in cuts.values()) and len(cuts) > 2
    for rank, cut in cuts.items():
        found = assign(graph, TINY, 1, {chain.name: rank}).assignments[0]
        assert (found.reason, found.rank) == (str(cut), rank)
    assert assign(graph, TINY, 1, {chain.name: 1000}).assignments[0].reason == str(cuts[0])


def test_the_bytes_are_the_same_whatever_the_seed_of_hashes(tmp_path: Path) -> None:
    made = []
    for seed in ("1", "2"):
        target = tmp_path / f"{seed}.nfp"
        command = [sys.executable, "-m", "neuflow", "compile", str(MODEL), "-o", str(target)]
        done = subprocess.run(
            [*command, "--grid", "tiny", "--search", "2"], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
        )  # fmt: skip
        assert "search: layer 1 of" in done.stderr and " cycles, " in done.stderr
        made.append(target.read_bytes())
    assert made[0] == made[1]


def test_search_of_less_than_one_is_refused(capsys, tmp_path: Path) -> None:
    target = tmp_path / "p.nfp"
    assert cli.main(["compile", str(MODEL), "-o", str(target), "--search", "0"]) == 2
    assert "--search: 0 is not 1 or more" in capsys.readouterr().err and not target.exists()
