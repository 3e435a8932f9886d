# amaranth: UnusedElaboratable=no
"""The judge rtl: frames, cache, and the harness around a grid whose tiles are a loopback."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from programs import PAGE_WORDS, program

from neuflow import layout, verilog
from neuflow.blocks.config import config_stream
from neuflow.blocks.streams import beat_stream
from neuflow.errors import HardwareError, InputError, ToolError
from neuflow.grid import TINY, GridConfig, MemoryConfig
from neuflow.ir import Program
from neuflow.layout import COLUMN_BITS, Kind, Opcode, Operand, Relocate
from neuflow.run import build, compilers, frames, measure, rtl, stats

rng = np.random.default_rng(20)


def images(count: int, shape: tuple[int, int, int] = (3, 4, 5)) -> np.ndarray:
    """Return random words int64 [count, C, H, W], the extremes among them."""
    words = rng.integers(-32768, 32768, (count, *shape))
    words.flat[:2] = (-32768, 32767)
    return words


# --- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("along_x", [False, True])
def test_frames_come_back_as_the_images_that_went_in(count, batch, along_x):
    shape = (6, 1, 1) if along_x else (3, 4, 5)
    hand = program(batch, shape=shape, along_x=along_x)
    x = images(count, shape)
    memory = frames.pack(hand, {"x": x})
    assert memory.shape == (-(-count // batch), PAGE_WORDS)
    assert (frames.unpack(hand, memory, count)["y"] == x).all()


def test_a_record_holds_channel_by_channel_and_begins_on_a_bus_word():
    x = images(2)
    memory = frames.pack(program(batch=2), {"x": x})[0]
    # A record is 3 channels x 5 columns = 15 words, rounded up to 16; an image has 4 records.
    assert memory[64 + 2 * 16 + 1 * 5 + 3] == x[1, 1, 2, 3]
    assert memory[15] == 0


def test_a_batch_along_x_is_one_record():
    x = images(4, (6, 1, 1))
    memory = frames.pack(program(4, shape=(6, 1, 1), along_x=True), {"x": x})[0]
    assert (memory[: 6 * 4].reshape(6, 4) == x[:, :, 0, 0].T).all()


def test_images_that_are_missing_in_the_last_frame_are_zero():
    memory = frames.pack(program(batch=4), {"x": images(5)})
    assert memory[1, 64:].any() == False  # noqa: E712  NumPy's own False
    assert memory[1, :15].any()


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"z": np.zeros((1, 3, 4, 5), np.int64)},
        {"x": np.zeros((1, 3, 4, 6), np.int64)},
        {"x": np.zeros((3, 4, 5), np.int64)},
        {"x": np.zeros((0, 3, 4, 5), np.int64)},
        {"x": np.full((1, 3, 4, 5), 32768)},
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs):
    with pytest.raises(InputError):
        frames.pack(program(), inputs)


# --- cache ----------------------------------------------------------------------------------------


def test_the_key_follows_everything_that_shapes_the_simulator(monkeypatch):
    sources = {"a.v": "module a; endmodule"}
    keys = {build.simulator_key(sources, "", "g++ 12")}
    keys.add(build.simulator_key({"a.v": "module b; endmodule"}, "", "g++ 12"))
    keys.add(build.simulator_key({"b.v": "module a; endmodule"}, "", "g++ 12"))
    keys.add(build.simulator_key(sources, "vcd", "g++ 12"))
    keys.add(build.simulator_key(sources, "", "g++ 13"))
    with monkeypatch.context() as patch:
        patch.setattr(compilers, "cpu_model", lambda: "another CPU")
        keys.add(build.simulator_key(sources, "", "g++ 12"))
    with monkeypatch.context() as patch:
        patch.setattr(compilers, "GCC_FLAGS", ("OPT_FAST=-O0",))
        keys.add(build.simulator_key(sources, "", "g++ 12"))
    assert len(keys) == 7
    assert build.simulator_key(dict(sources), "", "g++ 12") in keys


def test_the_verilog_s_key_knows_every_file_that_makes_it():
    code = (
        "import sys; from neuflow import grid, verilog; verilog.generate(grid.TINY); "
        "print(*(name for name in sys.modules if name.startswith('neuflow.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {f"{name.removeprefix('neuflow.').replace('.', '/')}.py" for name in done.stdout.split()}
    others = {"errors.py", "files.py", "ir.py"}  # say what is wrong, read and write, name types
    known = set(build.VERILOG_SOURCES) | others
    assert {name for name in loaded if not name.startswith("blocks")} == known


def test_clock_and_memory_do_not_ask_for_another_build():
    other = dataclasses.replace(TINY, clock_hz=1, memory=MemoryConfig(tokens=1))
    assert build.verilog_key(other) == build.verilog_key(TINY)
    assert build.verilog_key(dataclasses.replace(TINY, columns=1)) != build.verilog_key(TINY)


def test_two_at_once_build_once(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUFLOW_CACHE", str(tmp_path))
    made = []

    def make(place):
        made.append(place)
        (place / "file").write_text("done")

    threads = [
        threading.Thread(target=build.cached, args=("thing-1", "thing", make)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "thing-1" / "file").read_text() == "done"


def test_a_failed_build_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUFLOW_CACHE", str(tmp_path))

    def make(place):
        (place / "half").write_text("half")
        raise ToolError("broken")

    with pytest.raises(ToolError):
        build.cached("thing-2", "thing", make)
    assert [path.name for path in tmp_path.iterdir()] == ["thing-2.lock"]


def test_a_missing_compiler_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ToolError, match=r"no C\+\+ compiler found \(g\+\+ or clan") as caught:
        compilers.tools()
    assert "\n" not in str(caught.value)


def test_the_faster_compiler_is_taken_where_it_has_a_library(monkeypatch, tmp_path):
    for name in ("clang++", "g++", "make"):
        (tmp_path / name).write_text("#!/bin/sh\nexit ${NAME:-0}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CXX", raising=False)

    def chosen(fastest):
        compilers._includes.cache_clear()
        return Path(compilers.tools(fastest)["C++ compiler"]).name

    assert (chosen(False), chosen(True)) == ("g++", "clang++")
    monkeypatch.setenv("NAME", "1")  # no header is found
    assert (chosen(False), chosen(True)) == ("g++", "g++")
    compilers._includes.cache_clear()


def test_clang_has_flags_and_a_library_of_its_own():
    clang, gcc = "Debian clang version 14.0.6", "g++ (Debian 12.2.0) 12.2.0"
    assert compilers.cxx_flags("", clang) == compilers.CLANG_FLAGS != compilers.cxx_flags("", gcc)
    for version in (clang, gcc):
        threads = compilers.make_variables(version)[-1]
        linux_clang = version == clang and sys.platform == "linux"
        assert threads == "CFG_LDLIBS_THREADS=-pthread" + (" -latomic" if linux_clang else "")
    assert build.simulator_key({}, "", clang) != build.simulator_key({}, "", gcc)


def test_a_compiler_with_options_is_not_called_missing(monkeypatch):
    monkeypatch.setenv("CXX", "ccache g++")
    with pytest.raises(ToolError, match=r"CXX is 'ccache g\+\+', which is no program here; set it to"):
        compilers.tools()


def test_where_make_cannot_build_is_said_before_anything_is_generated(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUFLOW_CACHE", str(tmp_path / "my cache"))
    monkeypatch.setattr(build, "verilog_sources", None)  # would be an error of another kind
    with pytest.raises(ToolError, match=r"my cache: make cannot build where a name has a space; set"):
        build.simulator(TINY)


def test_parts_lie_on_pages_one_behind_the_other():
    place = measure.placement(dataclasses.replace(program(), device=b"x" * 5000, work_words=3000), 3)
    assert place.program % 4096 == place.inputs % 4096 == place.outputs % 4096 == 0
    # 5000 bytes end in the second page; 6000 bytes of work memory take the next two.
    assert place.inputs == place.program + 4 * 4096
    assert place.outputs == place.inputs + 3 * 2 * PAGE_WORDS


# --- harness --------------------------------------------------------------------------------------


class Loopback(Component):
    """In place of the tiles: what the operand line of a column brings is written back."""

    def __init__(self, grid: GridConfig):
        self.grid = grid
        wide, link = beat_stream(grid.bus_words), beat_stream(grid.lanes)
        n = grid.columns
        super().__init__(
            {
                "config": In(config_stream()),
                "rows": In(wide).array(n),
                "rows_dest": In(COLUMN_BITS).array(n),
                "weights": In(wide).array(n),
                "weights_dest": In(COLUMN_BITS).array(n),
                "operand": In(link).array(n),
                "partials": In(link).array(n),
                "write": Out(link).array(n),
                "write_source": In(1).array(n),
                "activity": Out(layout.ACTIVITY.shape()).array(n),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.config.ready.eq(1)
        for c in range(self.grid.columns):
            m.d.comb += [self.rows[c].ready.eq(1), self.weights[c].ready.eq(1)]
            m.d.comb += [
                self.activity[c].flags.eq(1 << layout.Activity.IDLE),
                self.activity[c].cause.eq(layout.Cause.IDLE_TILE),
            ]
            connect(m, flipped(self.operand[c]), flipped(self.write[c]))
        return m


def config(kind: Kind, columns: int, relocate: Relocate, **values: int) -> list[int]:
    """Return a CONFIG instruction and its packet."""
    payload = layout.UNITS[kind].pack(**values)
    head = layout.INSTRUCTION.pack(
        opcode=Opcode.CONFIG, kind=kind, sub=0, columns=columns, length=len(payload),
        relocate=relocate, left=0, reserved=0,
    )  # fmt: skip
    return head + payload


def copy_program(words: int, batch: int = 1) -> Program:
    """Return a program that copies its input to its output, half of it through each column."""
    half = words // 2
    device: list[int] = []
    for column, (base, run) in enumerate([(0, half), (half, words - half)]):
        walk = {"base": base, "run": run} | {f"count{i}": 1 for i in range(3)}
        walk |= {f"step{i}": 0 for i in range(3)}
        device += config(
            Kind.READ_OPERAND, 1 << column, Relocate.INPUT, **walk, dest=int(Operand.OPERATOR)
        )
        device += config(Kind.WRITE, 1 << column, Relocate.OUTPUT, **walk, source=0)
    end = {"kind": 0, "sub": 0, "columns": 3, "length": 0, "relocate": 0, "left": 0, "reserved": 0}
    device += layout.INSTRUCTION.pack(opcode=Opcode.FENCE, **end)
    made = program(batch)
    steps = [made.input_words, made.output_words]
    device += layout.INSTRUCTION.pack(opcode=Opcode.END, **end) + steps
    return dataclasses.replace(made, device=np.array(device, "<u4").tobytes())


@pytest.fixture(scope="module")
def loopback():
    from neuflow.blocks.top import Top

    return build.simulator_of(verilog.generate(TINY, Top(TINY, Loopback(TINY))), "loopback")


WORDS = 4 * 16  # of an image: 4 records


@pytest.mark.rtl
@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 5])
def test_the_harness_carries_frames_through_the_grid(loopback, count, seed):
    x = images(count)
    outputs, measured = rtl.simulate(copy_program(WORDS), {"x": x}, seed=seed, executable=loopback)
    assert (outputs["y"] == x).all()
    assert [len(times) for times in measured.write_done] == [count, count]
    assert all(t <= measured.cycles for times in measured.write_done for t in times)
    beats = count * WORDS // TINY.bus_words
    assert measured.registers["WRITE_BEATS"] == beats
    assert measured.registers["READ_BEATS"] >= beats


@pytest.mark.rtl
def test_the_same_seed_gives_the_same_cycles_and_stalls_cost_some(loopback):
    runs = [
        rtl.simulate(copy_program(WORDS), {"x": images(3)}, seed=s, executable=loopback)[1].cycles
        for s in (None, None, 7, 7)
    ]
    assert runs[0] == runs[1] < runs[2] == runs[3]


@pytest.mark.rtl
def test_latency_and_bandwidth_of_the_memory_model_count(loopback):
    def cycles(**changes: int | bool) -> int:
        memory = dataclasses.replace(TINY.memory, **changes)
        run = rtl.simulate(copy_program(WORDS), {"x": images(1)}, memory, executable=loopback)
        return run[1].cycles

    base = cycles(tokens=1, tokens_per_beat=1)
    # Program, then data: two reads that wait for each other; then one write response.
    assert cycles(tokens=1, tokens_per_beat=1, read_latency=110) >= base + 2 * 100
    assert cycles(tokens=1, tokens_per_beat=1, write_latency=106) >= base + 100
    # 16 beats read and 16 written at one in 20 cycles.
    assert cycles(tokens=1, tokens_per_beat=20) >= 32 * 20


@pytest.mark.rtl
def test_an_error_of_the_memory_is_named_with_its_place(loopback):
    hand = dataclasses.replace(copy_program(WORDS), origins=((0, "copy/column0"),))
    bad = measure.placement(hand, 1).inputs + 8
    with pytest.raises(HardwareError, match=r"error READ_RESPONSE .*\(copy/column0\)"):
        rtl.simulate(hand, {"x": images(1)}, fault=bad, executable=loopback)
    bad = measure.placement(hand, 1).outputs + 8
    with pytest.raises(HardwareError, match="error WRITE_RESPONSE"):
        rtl.simulate(hand, {"x": images(1)}, fault=bad, executable=loopback)


@pytest.mark.rtl
def test_a_program_that_is_none_and_one_that_hangs_are_named(loopback, monkeypatch):
    nothing = dataclasses.replace(copy_program(WORDS), device=bytes(64))
    with pytest.raises(HardwareError, match="error ILLEGAL_INSTRUCTION"):
        rtl.simulate(nothing, {"x": images(1)}, executable=loopback)
    # A write of more words than are read waits for ever.
    good = np.frombuffer(copy_program(WORDS).device, "<u4").copy()
    read = 1 + layout.READ.words
    good[read + 2] += 4
    hang = dataclasses.replace(copy_program(WORDS), device=good.tobytes())
    monkeypatch.setattr(measure, "WATCHDOG_CYCLES", 2000)
    with pytest.raises(HardwareError, match="error HANG"):
        rtl.simulate(hang, {"x": images(1)}, executable=loopback)


def test_waves_that_cannot_be_written_are_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(compilers, "tools", dict)
    monkeypatch.setattr(compilers, "waves_format", lambda: "vcd")
    monkeypatch.setattr(build, "verilog_sources", lambda grid: pytest.fail("generated"))
    with pytest.raises(ToolError, match="FST waves need the headers of lz4"):
        build.simulator(TINY, "fst")


@pytest.mark.parametrize(("ends", "left"), [(KeyboardInterrupt, []), (HardwareError, ["w.vcd"])])
def test_waves_are_whole_or_of_a_run_that_the_grid_ended(ends, left, tmp_path, monkeypatch):
    def execute(executable, words, work):
        path = next(word.removeprefix("trace=") for word in words if word.startswith("trace="))
        Path(path).write_text("waves")
        raise ends("stopped")

    monkeypatch.setattr(rtl, "_execute", execute)
    with pytest.raises(ends):
        rtl.simulate(
            copy_program(WORDS), {"x": images(1)}, waves=tmp_path / "w.vcd", executable=tmp_path
        )
    assert [path.name for path in tmp_path.iterdir()] == left


@pytest.mark.rtl
def test_waves_are_written_on_request(tmp_path):
    from neuflow.blocks.top import Top

    sources = verilog.generate(TINY, Top(TINY, Loopback(TINY)))
    traced = build.simulator_of(sources, "loopback", "vcd")
    x, waves = images(1), tmp_path / "w.vcd"
    outputs, _ = rtl.simulate(copy_program(WORDS), {"x": x}, waves=waves, executable=traced)
    assert (outputs["y"] == x).all()
    text = waves.read_text(encoding="utf-8")
    assert "$enddefinitions" in text and "m_axi_araddr" in text
    with pytest.raises(InputError, match=r"must end in \.fst or \.vcd"):
        rtl.run(copy_program(WORDS), {"x": x}, waves=tmp_path / "w.txt")


@pytest.mark.rtl
def test_statistics_of_a_run_are_assembled(loopback):
    hand = copy_program(WORDS)
    _, measured = rtl.simulate(hand, {"x": images(2)}, executable=loopback)
    figures = stats.assemble(hand, 2, measured, judge="rtl")
    assert figures["cycles"] == measured.cycles > 0
    assert figures["memory_words"]["written"] == 2 * WORDS
    cycles = sum(sum(column[layout.Activity.IDLE] for column in w) for w in measured.timeline)
    assert abs(cycles - 2 * measured.cycles) <= 20
