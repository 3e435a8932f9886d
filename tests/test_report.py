"""The report: sums by hand, sources named, the same bytes every time."""

from __future__ import annotations

import json

import pytest
from programs import program
from test_stats import LAYERS, measured

from neuflow import report
from neuflow.api import Program
from neuflow.grid import TINY
from neuflow.report.energy import energy, published, table
from neuflow.run import stats


@pytest.fixture
def run():
    hand = program(layers=LAYERS)
    return Program(hand), stats.assemble(hand, 2, measured(frames=2), judge="rtl")


def test_energy_is_counts_times_the_table():
    j = table().joules
    # 20 MACs: 2 steps of an array of 10, each reading 2 weights and 5 pixels.
    wanted = 20 * (j["multiply"] + j["add"]) + (2 * 7 + 3) * j["sram"] + 3 * j["dram"]
    assert energy(TINY, 20, 3, table()) == pytest.approx(wanted)


def test_every_energy_names_unit_technology_and_source():
    for entry in table().entries.values():
        assert entry["value"] > 0
        assert entry["unit"].startswith("pJ per") and entry["technology"]
        assert "Horowitz" in entry["source"]
        assert "as quoted in" in entry["checked"] or "from memory" in entry["checked"]


def test_gops_count_two_operations_a_mac_at_the_clock(run):
    values = report.figures(run[0].grid, run[1], table())
    # 4200 MACs in 1800 cycles of 200 MHz = 9 us.
    assert values["total"]["gops"] == pytest.approx(2 * 4200 / 9e-6 / 1e9)
    assert sum(row["cycles"] for row in values["layers"]) == values["total"]["cycles"] == 1800


def test_the_text_names_table_clock_source_and_what_is_published(run):
    shown = report.text(report.figures(run[0].grid, run[1], table()))
    assert "estimate by table 'Horowitz 2014, 45 nm'" in shown
    assert "200 MHz (assumed)" in shown
    assert shown.count("checked: ") == 4 and "checked: from memory, not checked" in shown
    assert "Published by others, not measured by us:" in shown
    for entry in published():
        assert f"{entry['gops']} of {entry['peak_gops']} GOPS" in shown
    assert (published()[0]["gops"], published()[0]["gops_per_watt"]) == (147, 14.7)


def test_files_are_the_same_every_time(run, tmp_path):
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths = report.write_stats(*run, tmp_path / name)
        assert [path.name for path in paths] == ["report.txt", "report.json", "report.png"]
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    assert json.loads(written[0][1])["total"]["macs"] == 4200
    assert written[0][2].startswith(b"\x89PNG")
