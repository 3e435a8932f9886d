"""neuflow compare: agrees where nothing is planted; names each planted fault and where it shows."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from pathlib import Path

import numpy as np
import pytest

from neuflow import api, cli, layout
from neuflow.compiler import compile_graph
from neuflow.cycle import judge
from neuflow.fixed import saturate
from neuflow.grid import SCRATCHPAD_BANKS, TINY
from neuflow.ir import Program
from neuflow.run import build, compare, compilers, golden, rtl, stats
from neuflow.run.compare import Comparison
from tests.quantgraphs import Builder

pytestmark = [pytest.mark.rtl, pytest.mark.xdist_group("compare")]


@functools.cache
def network() -> tuple[Builder, Program]:
    net = Builder(3)
    x = net.pool(net.relu(net.conv(net.input(3, 9, 10), 4, (3, 3), pads=(1, 1, 1, 1))), "max", (2, 2),
                 (2, 2))  # fmt: skip
    y = net.dense(net.reshape(net.conv(x, 5, (3, 3)), 30, 1, 1), 7)
    return net, compile_graph(net.build(y), TINY)


@functools.cache
def words() -> dict[str, np.ndarray]:
    return network()[0].words(2)


@functools.cache
def values() -> dict[str, np.ndarray]:
    return golden.evaluate(network()[1].graph, words())


@pytest.fixture(autouse=True)
def one_kind_of_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "waves_format", lambda: "vcd")


def run(program: Program, inputs: dict, directory: Path, **planted: object) -> Comparison:
    return compare.compare(program, inputs, None, None, directory, "x", **planted)


def place(text: str) -> dict[str, int]:
    """Return what the text says of the first difference: image, map, row, pixel, and the words."""
    found = re.search(r"image (\d+), map (\d+), row (\d+), pixel (\d+) of", text)
    said = re.search(r"golden (\S+), cycle (\S+), rtl (\S+) \(written in cycle (\d+)\)", text)
    assert found and said, text
    names = ("image", "map", "row", "pixel", "golden", "cycle", "rtl", "when")
    return dict(zip(names, map(int, found.groups() + said.groups()), strict=True))


def first(program: Program, layer: str, a: np.ndarray, b: np.ndarray) -> tuple[tuple, str]:
    """Return (image, map, row, pixel) of the first difference in the program's order, and what the
    text has to say of its packet. From the listing of the schedule; one image a frame."""
    turns = re.findall(rf"^{layer}/pass(\d+)(.*\n(?:  .*\n)*)", program.schedule, flags=re.MULTILINE)
    box = r"column (\d+): image 0 maps (\d+)..(\d+) rows (\d+)..(\d+) cols (\d+)..(\d+)"
    rows = r"(?:.*\n    written as rows (\d+)..(\d+), then (\d+)..(\d+))?"
    pieces = []
    for number, turn in turns:
        for column, m0, m1, y0, y1, x0, x1, *written in re.findall(box + rows, turn):
            for first, last in (written[:2], written[2:]) if all(written) else ((y0, y1),):
                pieces.append([int(n) for n in (number, column, m0, m1, first, last, x0, x1)])
    assert pieces
    for image in range(len(a)):
        for number, column, m0, m1, y0, y1, x0, x1 in pieces:
            part = (slice(m0, m1 + 1), slice(y0, y1 + 1), slice(x0, x1 + 1))
            differ = (a != b)[image][part].transpose(1, 0, 2)
            if differ.any():
                word = int(differ.argmax())
                y, m, x = (int(i) for i in np.unravel_index(word, differ.shape))
                label = f"packet {layer}/pass{number}/column{column}/WRITE, program word"
                rest = f"frame {image}; its word {word} of {differ.size}, at"
                return (image, m0 + m, y0 + y, x0 + x), f"{label} \\d+, {rest}"
    raise AssertionError("nothing differs")


# --- agreement --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 7])
def test_nothing_is_planted_and_all_agree(tmp_path: Path, seed: int | None) -> None:
    program = network()[1]
    memory = dataclasses.replace(TINY.memory, read_latency=23)
    said = compare.compare(program, words(), memory, seed, tmp_path, "x")
    cycles = judge.simulate(program, 2, memory, seed).cycles
    assert said.agree and not list(tmp_path.iterdir())
    assert "golden == cycle == rtl in all 14 output words" in said.text
    assert f"cycle == rtl, {cycles} in total, and in each of 3 layers" in said.text


# --- a weight in the device section -----------------------------------------------------------------


def flipped(program: Program, layer: str, offset: int, bit: int) -> Program:
    """Flip a bit of a word of a layer's packed weights, ``offset`` words behind their beginning."""
    begin = next(word for word, name in program.origins if name.startswith(f"{layer}/weights"))
    device = np.frombuffer(program.device, "<u2").copy()
    device[2 * begin + offset] ^= 1 << bit
    return dataclasses.replace(program, device=device.tobytes())


@pytest.mark.parametrize("kernel", [(3, 5), (3, 4), (1, 1)])
def test_weights_of_a_table_are_found(kernel: tuple[int, int], tmp_path: Path) -> None:
    net = Builder(5)
    y = net.conv(net.input(6, 9, 10), 4, kernel)
    for number, own in enumerate(net.nodes[-1].attrs["weight"]):
        own[[n for n in range(6) if n not in (number, 5)]] = 0
    program = compile_graph(net.build(y), TINY)
    by_tap = kernel == (3, 5)
    assert ("by tap" in program.mapping) == by_tap
    # Two maps a column, each a block of its own by tap, lie behind the parameters of their blocks.
    bad = flipped(program, "conv0", (1 + by_tap) * 6 * TINY.maps, 5)
    said = run(bad, net.words(1), tmp_path)
    operands = 2 * kernel[0] * kernel[1]
    assert not said.agree and f"operands: {operands}, 1 of them differ" in said.text
    assert len(re.findall("x weight", (tmp_path / "x.compare.txt").read_text())) == operands


@pytest.mark.parametrize("layer, inputs, node", [("dense0", 6, "map1"), ("dense2", 9, "dense2")])
def test_a_weight_of_a_batch_in_bands_is_found(
    layer: str, inputs: int, node: str, tmp_path: Path
) -> None:
    """Images of the first band are zero, and stay so: weights show in the second one."""
    net = Builder(8)
    y = net.dense(net.relu(net.dense(net.input(6, 1, 1), 9)), 5)
    net.nodes[0].attrs["bias"][:] = net.nodes[0].attrs["zero"][:] = 0
    program, words = compile_graph(net.build(y), TINY, 16), net.words(16)
    next(iter(words.values()))[:8] = 0
    # Parameters of 3 blocks of 2 maps: 4 words a map, as the first layer's say no zero, or 6.
    bad = flipped(program, layer, 3 * 2 * (4 if layer == "dense0" else 6) + 2 * 2, 10)
    said = run(bad, words, tmp_path)
    graph, at = program.graph, place(said.text)
    nodes = copy.deepcopy(graph.nodes)
    weight = next(one for one in nodes if one.name == layer).attrs["weight"]
    weight[0, 2] = np.int16(weight[0, 2] ^ 1024)
    found = golden.evaluate(dataclasses.replace(graph, nodes=nodes), words)[f"{node}.out"]
    expected = golden.evaluate(graph, words)[f"{node}.out"]
    here = (at["image"], at["map"], 0, 0)
    assert (at["rtl"], at["golden"]) == (found[here], expected[here])
    assert at["image"] >= 8 and np.array_equal(found[:8], expected[:8])
    assert f"operands: {inputs}, 1 of them differ" in said.text


def test_a_flipped_weight_bit_is_found(tmp_path: Path) -> None:
    net, program = network()
    # Parameters of 3 blocks of 2 maps, 6 words a map; then block 1 (maps 2, 3), 36 taps of 2 words.
    bad = flipped(program, "conv3", 3 * 6 * 2 + 36 * 2 + (9 + 2) * 2 + 1, 6)
    said = run(bad, words(), tmp_path)
    node = next(node for node in program.graph.nodes if node.name == "conv3")
    weight = node.attrs["weight"].copy()
    before = int(weight[3, 1, 0, 2])
    weight[3, 1, 0, 2] = after = int(np.int16(before ^ 64))
    other = dataclasses.replace(node, attrs={**node.attrs, "weight": weight})
    wrong = golden.OPERATIONS["conv"](other, 16, values()["pool2.out"])

    at, packet = first(program, "conv3", wrong, values()["conv3.out"])
    found = place(said.text)
    assert re.search(packet, said.text)
    assert not said.agree and "golden differs from cycle, first in the program's order" in said.text
    assert "layer conv3: conv3 (conv)" in said.text and "of tensor conv3.out" in said.text
    assert (found["image"], found["map"], found["row"], found["pixel"]) == at
    assert at[1] == 3 and found["golden"] == values()["conv3.out"][at]
    assert found["cycle"] == found["rtl"] == wrong[at]
    # One operand differs: the weight; and the sums are those of both weights.
    image, _, y, x = at
    box = values()["pool2.out"][image, :, y : y + 3, x : x + 3]
    sums = [int((box * w[3]).sum() + node.attrs["bias"][3]) for w in (node.attrs["weight"], weight)]
    assert f"expected {sums[0]}, from the device section's words {sums[1]}  DIFFERS" in said.text
    assert "operands: 36, 1 of them differ" in said.text
    word = box[1, 0, 2]
    operand = f"pool2.out channel 1 row {y} pixel {x + 2}: {word} x weight {before}  DIFFERS"
    assert f"{operand}: in memory {word} x {after}" in said.text
    assert "cycles  agree" in said.text
    assert len(re.findall("x weight", (tmp_path / "x.compare.txt").read_text())) == 36
    waves_show(tmp_path / "x.vcd", said.text, found["rtl"], found["when"])


def waves_show(path: Path, text: str, word: int, cycle: int) -> None:
    """The beat is on the bus at the time that the text says, and 200 cycles are in the file."""
    said = re.search(r"around cycle (\d+), which is at time (\d+)", text)
    assert said and int(said[1]) == cycle
    names: dict[str, str] = {}
    now, seen = -1, {}
    times = []
    for line in path.read_text().splitlines():
        if line.lstrip().startswith("$var"):
            _, _, _, code, name, *_ = line.split()
            names.setdefault(name, code)
        elif line.startswith("#"):
            now = int(line[1:])
            times.append(now)
        elif now >= 0 and now <= int(said[2]) + 1:
            value, code = line[1:].split() if line[0] == "b" else (line[0], line[1:])
            seen[code] = int(value, 2)
    shown = []  # words written at that time, to memory or the scratchpad
    beat = seen[names["m_axi_wdata"]] if seen[names["m_axi_wvalid"]] else 0
    shown += [beat >> 16 * lane & 0xFFFF for lane in range(TINY.bus_words)]
    beats, strobe = (seen[names[f"scratchpad_{name}"]] for name in ("data", "strobe"))
    lanes = range(SCRATCHPAD_BANKS * TINY.bus_words)
    shown += [beats >> 16 * lane & 0xFFFF for lane in lanes if strobe >> lane & 1]
    assert word & 0xFFFF in shown
    assert times[0] == int(said[2]) - 200 and times[-1] == int(said[2]) + 199


def test_operands_of_a_sum_in_parts_come_from_all_its_passes(tmp_path: Path) -> None:
    net = Builder(3)
    net.conv(net.input(40, 6, 20), 5, (3, 3))
    program, inputs = compile_graph(net.build(net.nodes[-1].output), TINY), net.words(1)
    said = run(flipped(program, "conv0", 6 * 2 + 2 * 8, 11), inputs, tmp_path)
    found, node = place(said.text), net.nodes[-1]
    y, x = found["row"], found["pixel"]
    box = inputs["in0"][0, :, y : y + 3, x : x + 3]
    weight = node.attrs["weight"][found["map"]]
    expected = int((box * weight).sum() + node.attrs["bias"][found["map"]])
    assert f"expected {expected}, from the device section's words" in said.text
    assert "operands: 360, 1 of them differ" in said.text


# --- the Verilog ------------------------------------------------------------------------------------


def test_a_fault_in_the_verilog_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requantiser adds no half: sums are rounded down."""
    program, right = network()[1], values()["pool2.out"]
    sources = dict(build.verilog_sources(TINY))
    name, pattern = "neuflow_requantise.v", r"(s7_tail\[15:0\], 1'h)1\}"
    sources[name], count = re.subn(pattern, r"\g<1>0}", sources[name])
    assert count == 1, "the Verilog has changed: nothing to mutate"
    simulator_of = build.simulator_of  # one build for values and waves
    monkeypatch.setattr(build, "simulator_of", lambda s, n, trace="": simulator_of(s, n, "vcd"))
    said = run(program, words(), tmp_path, sources=sources)

    def floor(acc, bias, m, s, zero, bits):
        return saturate(((acc + bias) * m >> s) + zero, bits)

    monkeypatch.setattr(golden, "requantise", floor)
    wrong = golden.evaluate(program.graph, words())["pool2.out"]
    at, packet = first(program, "conv0", wrong, right)
    found = place(said.text)
    assert re.search(packet, said.text)
    assert not said.agree and "rtl differs from cycle, first in the program's order" in said.text
    assert "layer conv0: conv0 (conv) -> map1 (map) -> pool2 (pool)" in said.text
    assert (found["image"], found["map"], found["row"], found["pixel"]) == at
    assert found["golden"] == found["cycle"] == right[at]
    assert found["rtl"] == wrong[at] and "golden differs" not in said.text
    assert "cycles  agree" in said.text
    waves_show(tmp_path / "x.vcd", said.text, found["rtl"], found["when"])


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_wrong_word_of_a_partial_sum_is_named(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of the Verilog's beats is changed where partial sums are written."""
    net = Builder(3)
    net.conv(net.input(40, 6, 20), 5, (3, 3))
    program, inputs = compile_graph(net.build(net.nodes[-1].output), TINY), net.words(1)
    simulate, number = rtl.simulate, 3 * 2 * 4 + 2 * part + 1  # lane 4, map 1 of a block

    def changed(*arguments, **options):
        result = simulate(*arguments, **options)
        log = options.get("options", {}).get("writes")
        if log:
            kind = [("head", "<i8", 4), ("data", "<i2", TINY.bus_words)]
            beats = np.fromfile(log, np.dtype(kind))
            mine = np.nonzero(beats["head"][:, 3] == 0)[0]
            beats["data"][mine[number // 4], number % 4] ^= 256
            beats.tofile(log)
        return result

    monkeypatch.setattr(rtl, "simulate", changed)
    said = run(program, inputs, tmp_path)
    word = ("low", "middle", "high")[part]
    assert f"map 1, row 0, pixel 4 of {word} word of the partial sum, pass 0" in said.text
    said_words = re.search(r"golden has no such word, cycle (-?\d+), rtl (-?\d+)", said.text)
    assert said_words and int(said_words[1]) ^ int(said_words[2]) in (256, -256)


# --- cycles -----------------------------------------------------------------------------------------


def test_another_latency_of_the_memory_is_found(tmp_path: Path) -> None:
    program = network()[1]
    slow = dataclasses.replace(TINY.memory, read_latency=TINY.memory.read_latency + 1)
    said = run(program, words(), tmp_path, cycle_memory=slow)
    both = [judge.simulate(program, 2, memory) for memory in (slow, TINY.memory)]
    layers = [stats.layer_cycles(program, 2, one) for one in both]
    assert not said.agree and "words   agree" in said.text
    assert f"cycles  DISAGREE: cycle {both[0].cycles}, rtl {both[1].cycles}" in said.text
    name, cycle, gates = next(
        (layer.name, a, b) for layer, a, b in zip(program.layers, *layers, strict=True) if a != b
    )
    assert f"first layer that differs: {name}, cycle {cycle}, rtl {gates} " in said.text
    ends = [one.write_done[0][0] for one in both]
    assert ends[0] != ends[1]
    done = rf"{name}/pass0/column0/WRITE, program word \d+, frame 0, column 0: cycle in {ends[0]}, rtl"
    assert re.search(rf"{done} in {ends[1]}", said.text)
    traces = []
    for memory in (slow, TINY.memory):
        traces.append(np.zeros((1000, 2), f"u{layout.ACTIVITY_BITS // 8}"))
        judge.simulate(program, 2, memory, trace=traces[-1])
    cycle, column = np.argwhere(traces[0] != traces[1])[0]
    assert f"first activity that differs: cycle {cycle}, column {column}: cycle" in said.text
    assert f"around cycle {cycle}, which is at time" in said.text
    assert {path.name for path in said.files} == {"x.compare.txt", "x.vcd"}


# --- the rest ---------------------------------------------------------------------------------------


def test_a_program_of_another_compiler_is_named_by_layer(tmp_path: Path) -> None:
    program = dataclasses.replace(network()[1], schedule="another")
    simulate = rtl.simulate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtl, "simulate", functools.partial(_first_beat_changed, simulate))
        said = run(program, words(), tmp_path)
    assert "layer conv0" in said.text and "compile it again" in said.text and not said.agree


def _first_beat_changed(simulate, *arguments, **options):
    result = simulate(*arguments, **options)
    log = options.get("options", {}).get("writes")
    if log:
        data = bytearray(Path(log).read_bytes())
        for lane in range(TINY.bus_words):
            data[32 + 2 * lane] ^= 1
        Path(log).write_bytes(data)
    return result


def test_the_command_says_0_1_or_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program, out = network()[1], tmp_path / "out"
    inputs, good, bad = tmp_path / "x.npy", tmp_path / "good.nfp", tmp_path / "bad.nfp"
    np.save(inputs, words()["in0"] / 256)
    api.Program(program).save(good)
    api.Program(flipped(program, "conv3", 3 * 6 * 2 + 5, 9)).save(bad)
    assert cli.main(["compare", str(good), "--input", str(inputs), "--seed", "2"]) == 0
    assert capsys.readouterr().out.startswith("words   agree") and not out.exists()
    arguments = ["compare", str(bad), "--input", str(inputs), "-o", str(out)]
    assert cli.main(arguments) == 1
    assert capsys.readouterr().out.startswith("words   DISAGREE")
    assert {path.name for path in out.iterdir()} == {"bad.compare.txt", "bad.vcd"}
    np.save(inputs, np.zeros((1, 3, 9, 9)))
    for wrong in (arguments, [*arguments[:-1], str(inputs)], ["compare", "no.nfp", *arguments[2:]]):
        assert cli.main(wrong) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("neuflow: ") and said.err.count("\n") == 1
