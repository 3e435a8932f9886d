"""The side-by-side measurements: layers, closed form, README."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from examples.bench import readme, scale_sim
from examples.bench.__main__ import has_peer
from examples.bench.layers import layers
from examples.bench.tables import document, silicon
from examples.bench.works import PAIRED, SILICON_RTL, SILICON_WORKS, WORKS
from examples.networks import NETWORKS

ROOT = Path(__file__).resolve().parents[1]


def test_layers_of_lenet_hold_its_macs() -> None:
    found = layers(onnx.load(ROOT / "examples" / "lenet5_b.onnx"))
    assert [layer.macs for layer in found] == [117_600, 240_000, 48_000, 10_080, 840]


@pytest.mark.parametrize(("dataflow", "cycles"), [("os", 7_000), ("ws", 12_093)])
def test_the_closed_form_is_what_scale_sim_gave(dataflow: str, cycles: int) -> None:
    """Both figures are totals that SCALE-Sim 3.0.0 printed for these layers on 20 x 20."""
    found = layers(onnx.load(ROOT / "examples" / "lenet5_b.onnx"))
    assert scale_sim.closed_form(found, 20, dataflow) == cycles
    assert scale_sim.best_dataflow(found, 20) == "os"


def test_strides_and_pads_count() -> None:
    found = layers(NETWORKS["resnet18"].blank().model)
    assert (found[0].height, found[0].pixels, found[0].taps) == (230, 112 * 112, 147)


def test_the_readme_shows_what_was_measured() -> None:
    record = json.loads((ROOT / "docs" / "bench.json").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for make in readme.PARTS.values():
        assert make(record) in text
    assert readme.with_measured(text, record) == text


def test_a_bench_without_silicon_says_nothing_of_it() -> None:
    assert readme.silicon({"silicon": []}) == ""


def test_silicon_is_measured_by_times_and_gates_that_agree() -> None:
    rows = json.loads((ROOT / "docs" / "bench.json").read_text(encoding="utf-8"))["silicon"]
    assert {row["work"] for row in rows} == set(SILICON_WORKS)
    for name in SILICON_WORKS:
        found = [row for row in rows if row["work"] == name]
        assert len({row["cycles"] for row in found}) == 1
        assert (len(found) == 2) == (found[0]["cycles"] <= SILICON_RTL)
        assert f"| {WORKS[name].title} | {found[0]['cycles_per_image']:,.0f} |" in silicon(rows)


def test_the_tables_show_what_was_measured() -> None:
    record = json.loads((ROOT / "docs" / "bench.json").read_text(encoding="utf-8"))
    assert document(record) == (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
    assert {row["work"] for row in record["pairs"]} == set(PAIRED)


def test_a_part_that_was_not_measured_has_no_heading() -> None:
    assert document({"rows": [], "pairs": [], "silicon": [], "growth": []}) == ""


def test_the_second_core_is_seen_in_what_two_runs_give_together() -> None:
    row = {"title": "net", "cycles": 3_000_000, "seconds_alone": 10.0, "seconds": [12.0, 15.0]}
    text = document({"rows": [], "pairs": [row], "silicon": [], "growth": []})
    assert text.endswith("| net | 300 | 450 | 1.50 |\n")


def test_a_network_of_several_rows_is_asked_of_scale_sim_once() -> None:
    again = {name for name, work in WORKS.items() if work.again}
    assert again and not any(has_peer(name) for name in again)
    rows = json.loads((ROOT / "docs" / "bench.json").read_text(encoding="utf-8"))["rows"]
    asked = [(row["macs"], row["cycles"]) for row in rows if "SCALE" in row["judge"]]
    assert len(set(asked)) == len(asked)
