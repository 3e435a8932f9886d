"""Program files: the same program gives the same bytes, and nothing damaged is ever run."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from neuflow import program as files
from neuflow.compiler import compile_graph
from neuflow.errors import ProgramError
from neuflow.grid import TINY, VIRTEX6
from neuflow.ir import HostOp
from neuflow.layout import (
    INSTRUCTION,
    PARAMETERS,
    PROGRAM_VERSION,
    UNITS,
    AluOp,
    Kind,
    Scatter,
    WindowOp,
)
from neuflow.run import device, golden
from tests.quantgraphs import lenet

FORMATS = {
    2: "dc84c30b09686284", 3: "03f0593d7f365dd1", 4: "8537440cd2d2bc9a", 5: "c366d54bdb38fa05",
    6: "c366d54bdb38fa05", 7: "19ee36d1aea31be8", 8: "b520169360e52560",
    9: "e44d639a651323a1",
}  # fmt: skip
"""Version -> digest of what words of a program mean. Add a line, change none."""


def test_the_version_moves_with_the_layouts():
    layouts = {**{kind.name: layout for kind, layout in UNITS.items()}, "INSTRUCTION": INSTRUCTION}
    layouts["PARAMETERS"] = PARAMETERS
    fields = {n: [(f.name, f.bits, f.signed) for f in one.fields] for n, one in layouts.items()}
    numbers = [(e.__name__, [(m.name, m.value) for m in e]) for e in (Kind, AluOp, Scatter, WindowOp)]
    digest = hashlib.sha256(repr([fields, numbers]).encode()).hexdigest()[:16]
    assert FORMATS.get(PROGRAM_VERSION) == digest, "layouts have changed: PROGRAM_VERSION must too"


@pytest.fixture(scope="module")
def compiled():
    net = lenet("c")
    graph = net.build(net.nodes[-1].output)
    return compile_graph(graph, TINY, 2), net.words(2)


def refused(data: bytes, grid=None) -> str:
    with pytest.raises(ProgramError) as error:
        files.from_bytes(data, grid)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_holds_the_whole_program(compiled, tmp_path):
    program, words = compiled
    files.save(program, tmp_path / "p.nfp")
    read = files.load(tmp_path / "p.nfp", TINY)
    for name in ("name", "grid", "device", "work_words", "input_words", "output_words", "batch",
                 "inputs", "outputs", "layers", "origins", "mapping", "schedule"):  # fmt: skip
        assert getattr(read, name) == getattr(program, name), name
    for ours, theirs in zip(program.graph.nodes, read.graph.nodes, strict=True):
        assert (ours.name, ours.op, ours.inputs, ours.output) == (
            theirs.name, theirs.op, theirs.inputs, theirs.output)  # fmt: skip
        for key, value in ours.attrs.items():
            np.testing.assert_array_equal(theirs.attrs[key], value)
            assert type(theirs.attrs[key]) is type(value)
    for judge in (device, golden):
        for name, want in judge.run(program, words).outputs.items():
            np.testing.assert_array_equal(judge.run(read, words).outputs[name], want)


def test_bytes_are_deterministic(compiled):
    program, _ = compiled
    data = files.to_bytes(program)
    assert data == files.to_bytes(program) == files.to_bytes(files.from_bytes(data))


def test_device_section_lies_verbatim_on_a_page(compiled):
    program, _ = compiled
    assert files.to_bytes(program)[4096 : 4096 + len(program.device)] == program.device
    assert len(program.device) % 4096 == 0


def test_host_operations_survive(compiled):
    from dataclasses import replace

    program, _ = compiled
    name = program.graph.outputs[0]
    host = (HostOp("softmax", name, "p", 1, {"scale": 0.5, "list": [1, None, True]}),)
    changed = replace(program, graph=replace(program.graph, host=host))
    assert files.from_bytes(files.to_bytes(changed)).graph.host == host


def test_any_flipped_bit_is_found(compiled):
    data = files.to_bytes(compiled[0])
    rng = np.random.default_rng(2)
    # Every bit of what is used of the header, its end, and some of all else.
    bits = [*range(8 * 160), *range(8 * 4080, 8 * 4096), *rng.integers(0, 8 * len(data), 400)]
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(bytes(damaged))


def test_any_truncation_is_found(compiled):
    data = files.to_bytes(compiled[0])
    for size in (0, 1, 7, 8, 100, 4095, 4096, 4097, len(data) // 2, len(data) - 1):
        refused(data[:size])
    refused(data + b"\0")


def test_foreign_version_is_named(compiled):
    data = bytearray(files.to_bytes(compiled[0]))
    data[8] = 99
    assert "format 99" in refused(bytes(data))


def test_another_grid_is_refused(compiled):
    assert "another grid than 'virtex6'" in refused(files.to_bytes(compiled[0]), VIRTEX6)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(ProgramError, match=r"missing\.nfp: cannot be read"):
        files.load(tmp_path / "missing.nfp")
    (tmp_path / "text.nfp").write_text("not a program at all")
    with pytest.raises(ProgramError, match=r"text\.nfp: not a neuflow program"):
        files.load(tmp_path / "text.nfp")
