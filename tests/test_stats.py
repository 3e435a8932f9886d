"""Statistics: sums by hand, and the schema."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from programs import program

import neuflow
from neuflow.grid import TINY, MemoryConfig
from neuflow.ir import Layer
from neuflow.layout import Cause
from neuflow.run import stats
from neuflow.run.stats import Measured

SCHEMA = json.loads(
    (Path(neuflow.__file__).parent / "stats.schema.json").read_text(encoding="utf-8")
)
# Peak of TINY: 2 columns x 2 maps x 5 pixels = 20 MACs a cycle.
LAYERS = (
    Layer("a", "conv", macs=2000, words=100, weight_words=40, output_words=30, writes=(2, 1)),
    Layer("b", "dense", macs=100, words=600, weight_words=500, output_words=60, writes=(1, 0)),
)
FAST = MemoryConfig(tokens=1, tokens_per_beat=1, shared=True)
TWO_WAYS = replace(FAST, shared=False)
REGISTERS = {
    "READ_BEATS": 70, "WRITE_BEATS": 9, "CONFIG_WORDS": 50, "CONFIG_STALLS": 5, "CONFIG_HIDDEN": 30,
}  # fmt: skip


def causes(cycle: int) -> list[int]:
    """The same split of the 20 multipliers in every cycle."""
    split = [0, 1, 2, 3, 4, 5, 5, 0, 0, 0, 0]
    assert sum(split) == TINY.macs and len(split) == len(Cause)
    return [cycle * macs for macs in split]


def measured(cycles: int = 1000, frames: int = 1) -> Measured:
    """Layer a ends at 300 (column 1 last), b at 700; a frame is 800 long."""
    column0 = [t + 800 * f for f in range(frames) for t in (100, 200, 700)]
    column1 = [300 + 800 * f for f in range(frames)]
    return made(cycles + 800 * (frames - 1), [column0, column1])


def made(cycles: int, write_done: list[list[int]]) -> Measured:
    writes = [[causes(t) for t in times] for times in write_done]
    return Measured(cycles, REGISTERS, write_done, causes(cycles), writes)


def test_golden_has_no_times_and_fits_the_schema():
    figures = stats.assemble(program(layers=LAYERS), images=3)
    jsonschema.validate(figures, SCHEMA)
    assert figures["cycles"] is None and figures["stalls"] is None
    assert figures["macs"] == 3 * 2100


def test_rtl_fits_the_schema_and_its_sums_are_right():
    figures = stats.assemble(program(layers=LAYERS), 1, measured(), judge="rtl")
    jsonschema.validate(figures, SCHEMA)
    assert figures["mac_utilisation"] == 2100 / (1000 * 20)
    assert figures["memory_words"] == {"read": 280, "written": 36}
    assert figures["config"]["hidden_cycles"] == 30


def test_the_schema_refuses_what_is_missing_or_unknown():
    figures = stats.assemble(program(layers=LAYERS), 1)
    for broken in ({**figures, "surprise": 1}, {k: v for k, v in figures.items() if k != "macs"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_layer_cycles_go_from_last_output_to_last_output():
    assert stats.layer_cycles(program(layers=LAYERS), 1, measured()) == [300, 700]


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_causes_of_a_layer_are_those_of_its_cycles(frames):
    run = measured(frames=frames)
    split = stats.layer_causes(program(layers=LAYERS), frames, run)
    took = stats.layer_cycles(program(layers=LAYERS), frames, run)
    assert split.tolist() == [causes(cycles) for cycles in took]
    assert split.sum(axis=0).tolist() == run.causes


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_layer_cycles_sum_to_all_cycles_over_frames(frames):
    took = stats.layer_cycles(program(layers=LAYERS), frames, measured(frames=frames))
    assert sum(took) == 1000 + 800 * (frames - 1)
    assert took[0] == 300 + 400 * (frames - 1)


def test_a_layer_that_ends_before_the_one_before_it_counts_only_the_rest():
    early = made(1000, [[100, 200, 250], [300]])
    third = Layer("c", "map", macs=0, words=0, weight_words=0, output_words=0, writes=(0, 0))
    assert stats.layer_cycles(program(layers=(*LAYERS, third)), 1, early) == [300, 0, 700]


def test_layer_roofline_takes_the_worse_of_macs_and_words_layer_by_layer():
    # a: 2000 / 20 = 100 cycles of MACs, 100 / 4 = 25 of words; b: 5 of MACs, 150 of words.
    assert stats.layer_roofline(program(layers=LAYERS), 1, FAST) == 100 + 150


def test_weights_count_once_a_pass():
    # Two images in one pass: b moves 2 * 100 + 500 words; in two passes 2 * 600.
    one, two = program(batch=2, layers=LAYERS), program(batch=1, layers=LAYERS)
    assert stats.layer_roofline(one, 2, FAST) == 200 + 700 / 4
    assert stats.layer_roofline(two, 2, FAST) == 200 + 1200 / 4


def test_network_roofline_counts_inputs_outputs_and_all_weights():
    # x and y: 60 words each; weights 540; 660 words at 4 a cycle = 165 > 2100 / 20 = 105.
    assert stats.network_roofline(program(layers=LAYERS), 1, FAST) == 165


def test_what_is_read_and_what_is_written_meet_at_two_ways_only():
    # a: 100 cycles of MACs; b reads 540 words, writes 60; the network reads 600, writes 60.
    assert stats.layer_roofline(program(layers=LAYERS), 1, TWO_WAYS) == 100 + 540 / 4
    assert stats.network_roofline(program(layers=LAYERS), 1, TWO_WAYS) == 600 / 4
    written = replace(LAYERS[1], output_words=560)
    assert stats.layer_roofline(program(layers=(written,)), 1, TWO_WAYS) == 560 / 4
    assert stats.network_roofline(program(layers=LAYERS[:1]), 1, TWO_WAYS) == 2000 / 20


def test_bus_speed_is_that_of_the_token_bucket():
    assert stats.bus_cycles(TINY, MemoryConfig(17, 20), 300, 40) == 340 / (4 * 17 / 20)
