"""Parameters of maps in weights packets: the fewest beats that say them without loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neuflow.blocks import parameters_model as model
from neuflow.blocks.parameters_model import Form
from neuflow.compiler import compile_graph
from neuflow.grid import TINY
from neuflow.layout import CONV_DRAIN, CONV_WEIGHTS, Kind
from neuflow.run import device, golden
from tests.quantgraphs import Builder
from tests.test_device import packets

PLAIN = {"bias": [5, -5], "m": [1, 1], "s": [17, 19], "zero": [0, 0]}
ONE, TWO = 1 << 28, 1 << 41  # the first bias that is too large for so many words

CASES = [
    ({}, 1), ({"bias": [ONE - 1, -ONE]}, 1), ({"bias": [ONE, 0]}, 2), ({"bias": [-ONE - 1, 0]}, 2),
    ({"bias": [TWO - 1, -TWO]}, 2), ({"bias": [TWO, 0]}, 3), ({"bias": [0, -TWO - 1]}, 3),
    ({"bias": [2**47 - 1, -(2**47)]}, 3),
    ({"s": [55, 62]}, 1), ({"s": [54, 62]}, 2), ({"s": [0, 62]}, 2),
    ({"m": [1, 0]}, 2), ({"m": [32767, 2]}, 2),
    ({"zero": [0, -1]}, 3), ({"zero": [-32768, 32767], "m": [0, 32767], "s": [0, 62]}, 3),
]  # fmt: skip


@pytest.mark.parametrize(("change", "beats"), CASES)
def test_the_shortest_form_without_loss(change, beats):
    given = {name: np.array(values, np.int64) for name, values in (PLAIN | change).items()}
    form = model.form(**given)
    assert form == Form(beats, given["s"].min())
    words = model.packed(form, **given)
    assert words.shape == (beats, 2) and 0 <= words.min() and words.max() < 1 << 32
    half_words = model.to_half_words(words)
    assert half_words.shape == (beats, 4)
    np.testing.assert_array_equal(model.from_half_words(half_words), words)
    np.testing.assert_array_equal(model.unpacked(form, words), list(given.values()))


@pytest.mark.parametrize(("change", "beats"), CASES)
def test_a_shorter_form_would_lose_something(change, beats):
    given = {name: np.array(values, np.int64) for name, values in (PLAIN | change).items()}
    for shorter in range(1, beats):
        form = replace(model.form(**given), beats=shorter)
        said = model.unpacked(form, model.packed(form, **given))
        assert (said != list(given.values())).any()


@pytest.mark.parametrize(
    ("bias", "beats"), [((ONE - 1, -ONE), 1), ((ONE, 0), 2), ((TWO - 1, -TWO), 2), ((0, -TWO - 1), 3)]
)
def test_programs_take_it_layer_by_layer(bias, beats):
    net = Builder(3)
    net.conv(net.input(3, 6, 6), 7, (3, 3))
    plain = {"m": np.ones(7, np.int64), "zero": np.zeros(7, np.int64), "s": np.arange(20, 27)}
    net.nodes[-1].attrs.update(plain, bias=np.resize(bias, 7))
    net.dense(net.nodes[-1].output, 5)  # with offsets
    net.dense(net.nodes[-1].output, 6)
    net.shorten(net.nodes[-1], beats=1)
    graph, words = net.build(net.nodes[-1].output), net.words(1)
    program = compile_graph(graph, TINY)
    found = [(f["beats"], f["shift"]) for f in packets(program, Kind.CONV_DRAIN)]
    assert found[0] == (beats, 20) and {n for n, _ in found} == {1, beats, 3}
    for name, want in golden.run(program, words).outputs.items():
        np.testing.assert_array_equal(device.run(program, words).outputs[name], want)


def test_fields_hold_what_a_grid_may_have():
    lead, beats = (layout.fields for layout in (CONV_WEIGHTS, CONV_DRAIN))
    blocks = next(field for field in beats if field.name == "blocks")
    assert next(f for f in lead if f.name == "lead").bits >= blocks.bits + 2
