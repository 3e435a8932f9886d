"""What the judge *cycle* leaves out would change nothing: with it and without, all is equal."""

from __future__ import annotations

import dataclasses
import inspect
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import onnx
import pytest
from test_cycle import MEMORIES, RandomCopies, lenet

from neuflow import api
from neuflow.compiler import compile_graph
from neuflow.cycle import array, awake, column, control, drain, judge, machine, state
from neuflow.cycle.convolver import convolver_edge, convolver_wires
from neuflow.errors import HardwareError
from neuflow.grid import TINY, MemoryConfig
from neuflow.ir import Program
from neuflow.layout import Opcode
from neuflow.run import measure
from tests.random_graphs import RandomGraph
from tests.random_grids import random_grid
from tests.random_models import RandomModel


def assert_plain_is_equal(program: Program, images: int, memory: MemoryConfig, seed: int | None) -> None:
    """Run the judge with sleep and jumps, and without; compare all that it measures, and traces.

    Without a timeline all else is the same.
    """
    want = judge.simulate(program, images, memory, seed, plain=True)
    traces = np.zeros((2, want.cycles, program.grid.columns), np.uint32)
    judge.simulate(program, images, memory, seed, trace=traces[0], plain=True)
    got = judge.simulate(program, images, memory, seed, trace=traces[1])
    short = judge.simulate(program, images, memory, seed, timeline=False)
    for field in dataclasses.fields(want):
        if field.name != "seconds":
            assert getattr(got, field.name) == getattr(want, field.name), field.name
        if field.name not in ("seconds", "timeline", "window_cycles"):
            assert getattr(short, field.name) == getattr(want, field.name), field.name
    assert not short.timeline
    assert np.array_equal(*traces)


def test_an_error_says_what_was_done_last_without_a_timeline_too() -> None:
    said = []
    for timeline in (True, False):
        with pytest.raises(HardwareError, match="at the end column 0: ") as error:
            judge.simulate(lenet("b", 10).ir, 10, max_cycles=5000, timeline=timeline)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_the_watchdog_barks_in_the_same_cycle(monkeypatch: Any, tmp_path: Path) -> None:
    """An array that runs ahead ends the quiet in a cycle in which nothing else moves."""
    model, grid = tmp_path / "model.onnx", random_grid(4093)
    onnx.save(RandomModel(4093).build(), model)
    program = api.compile(model, grid, batch=2).ir
    assert_plain_is_equal(program, 2, grid.memory, None)
    for watchdog in range(2, 40):
        monkeypatch.setattr(measure, "WATCHDOG_CYCLES", watchdog)
        said = []
        for plain in (True, False):
            with pytest.raises(HardwareError, match="error HANG after [0-9]* cycles") as error:
                judge.simulate(program, 2, plain=plain)
            said.append(str(error.value))
        assert said[0] == said[1]


@pytest.mark.parametrize("case", range(24))
def test_copies(case: int) -> None:
    seed = case if case % 2 else None
    assert_plain_is_equal(RandomCopies(case).program, 1 + case % 3, MEMORIES[case % len(MEMORIES)], seed)


@pytest.mark.parametrize("case", range(40))
def test_random_graphs(case: int) -> None:
    made = RandomGraph(2000 + case)
    compiled = compile_graph(made.net.build(*made.outputs), TINY)
    seed = case if case % 4 == 3 else None
    assert_plain_is_equal(compiled, 1 + case % 2, MEMORIES[case % len(MEMORIES)], seed)


@pytest.mark.parametrize("seed", [None, 4])
def test_four_columns(seed: int | None) -> None:
    program = lenet("b", 10, "virtex6").ir
    for memory in MEMORIES:
        assert_plain_is_equal(program, 10, memory, seed)


def mutated(module: Any, name: str, condition: str, without: str) -> Any:
    """Return a compiled function of ``module`` as Python, with ``condition`` replaced in its text."""
    text = inspect.getsource(getattr(module, name).py_func).split("\n", 1)[1]  # without its decorator
    assert text.startswith("def ") and text.count(condition) == 1
    names = dict(vars(module))
    exec(text.replace(condition, without), names)
    return names[name]


# --- an array that runs ahead -----------------------------------------------------------------------

_wires = numba.njit(lambda g, w, t: convolver_wires(g[0], w[0], t[0].columns[0]))
_edge = numba.njit(lambda g, w, t: convolver_edge(g[0], w[0], t[0], t[0].columns[0]))

PIXELS, MAPS = TINY.pixels, TINY.maps
REGISTERS = (
    "lanes", "active", "flushing", "group", "block", "channel", "ky", "kx", "odd", "begins",
    "at_last_taps", "in_flight", "last_row", "count", "stages", "ending", "told", "released",
    "pass_done", "settled",
)  # fmt: skip


def compiled(function: Any) -> Any:
    """Compile ``array_ahead``, or a mutation of it, for arrays of records, at a time."""
    inner = numba.njit(function)
    return numba.njit(
        lambda w, t, now: inner(
            t[0].columns[0].array, w[0].receivers[state.ARRAY], PIXELS, MAPS,
            t[0].columns[0].weights.weights, now,
        )
    )  # fmt: skip


activity_at = numba.njit(lambda activity, now: array.activity_at(activity, now))


class Machine:
    """The array of one column in front of a drain that takes all, with rows and some weights."""

    def __init__(self, rng: random.Random):
        self.grid, self.wires, self.tiles = (
            state.grid_record(TINY), state.new_wires(TINY)[:1], column.new_tiles(TINY),
        )  # fmt: skip
        wires, self.column = self.wires[0], self.tiles[0]["columns"][0]
        self.tiles[0]["plain"] = 1
        wires["awake"] = awake.ARRAY | awake.WEIGHTS
        receiver = wires["receivers"][state.ARRAY]
        receiver["valid"] = 1
        fields = SimpleNamespace(
            groups=rng.randint(1, 3), blocks=rng.randint(1, 2), channels=rng.randint(1, 6),
            kernel_y=rng.randint(1, 3), kernel_x=rng.randint(1, 3), pitch=rng.randint(1, 9),
            stride=1, rows=20, maps=1, height_out=30, width_out=9, stream_weights=rng.random() < 0.2,
            by_tap=rng.random() < 0.4, gather=0,
        )  # fmt: skip
        if fields.by_tap and rng.random() < 0.5:
            fields.gather, fields.kernel_x = 1, 2
            fields.kernel_y = rng.choice([n for n in range(MAPS + 1, 9) if n % MAPS])
        for name, value in vars(fields).items():
            receiver["o"]["array"][name] = value
        self.column["rows"]["stored"] = 99
        ring = self.column["weights"]["weights"]
        ring["unread"], ring["ready"] = rng.randint(2, 12), 1

    def step(self) -> int:
        _wires(self.grid, self.wires, self.tiles)
        bits = int(self.column["array"]["bits"])
        _edge(self.grid, self.wires, self.tiles)
        return bits

    def registers(self) -> list[Any]:
        ring = self.column["weights"]["weights"]
        held = [self.column["array"][name].tolist() for name in REGISTERS]
        lanes = self.column["array"]["lanes"]
        held[0] = [int(lanes[name]) for name in array.COORDINATES.names or () if name != "fed"]
        for name in ("form", "following"):
            held.append(self.column["array"][name]["flat"].tolist())
        return [*held, *(int(ring[name]) for name in ("passed", "unread", "ready"))]


def runs_ahead(ahead: Any, seeds: range) -> int:
    """Let arrays run ahead and, side by side, step; return how often one did."""
    found = 0
    for seed in seeds:
        rng = random.Random(seed)
        machine = Machine(rng)
        for _ in range(120):
            machine.step()
            ring = machine.column["weights"]["weights"]
            if not ring["ready"] and rng.random() < 0.5:
                ring["unread"] += rng.randint(2, 20)
                ring["ready"] = 1
            other = Machine(random.Random(seed))
            other.wires[:], other.tiles[:] = machine.wires, machine.tiles
            now = rng.randrange(1000)
            cycles = ahead(other.wires, other.tiles, now)
            shown = int(other.column["array"]["bits"])
            for k in range(cycles):
                assert machine.step() == activity_at(shown, now + k), "what others see"
                assert machine.column["array"]["hand_over"] == 0
            if cycles:
                found += 1
                assert machine.registers() == other.registers()
    return found


def test_an_array_that_runs_ahead_is_where_it_would_be() -> None:
    assert runs_ahead(compiled(array.array_ahead.py_func), range(60)) > 100


@pytest.mark.parametrize(
    ("condition", "without"),
    [
        ("made += 1", "made += 2"),
        ("c.stream_weights or", ""),
        ("if c.by_tap:", "if False:"),
        ("maps - present", "0"),
        ("cycles // area", "cycles // area + 1"),
        ("range(cycles % area)", "range(cycles % area + 1)"),
        ("a.issue and", ""),
        ("a.stages <<= cycles", ""),
        ("_HAND_OVER_BIT - 1 -", "_HAND_OVER_BIT + 1 -"),
        ("2 * (ring.unread - 1)", "2 * ring.unread"),
        ("area - 1 - place", "area - place"),
        ("+ 1 - a.odd", "+ 1"),
    ],
)
def test_each_condition_of_running_ahead_is_needed(condition: str, without: str) -> None:
    ahead = compiled(mutated(array, "array_ahead", condition, without))
    with pytest.raises(AssertionError):
        runs_ahead(ahead, range(60))


# --- a drain that runs ahead ------------------------------------------------------------------------

def drain_compiled(function: Any) -> Any:
    """Compile ``drain_ahead``, or a mutation of it, for arrays of records."""
    inner = numba.njit(function)
    return numba.njit(
        lambda g, w, t: inner(
            t[0].columns[0].drain, w[0].receivers[state.DRAIN], t[0].columns[0].array,
            t[0].columns[0].results[0], w[0].partials, g[0].pixels, g[0].maps,
        )
    )  # fmt: skip


DRAIN_WIRES = (
    "move", "have", "take", "ends", "rows_end", "map_ends", "row_ends", "packer_o_ready", "flat",
)  # fmt: skip


class Draining(Machine):
    """A drain with results of a block; the array may have its next one on its way."""

    def __init__(self, rng: random.Random):
        super().__init__(rng)
        self.grid["pixels"], self.grid["maps"] = rng.choice((5, 25, 50)), rng.choice((1, 4))
        self.wires[0]["awake"] = awake.DRAIN
        self.wires[0]["receivers"][state.DRAIN]["valid"] = 1
        width = rng.randint(3, 40)
        fields = {
            "width": width, "height": rng.randint(2, 9), "maps": rng.randint(1, 4), "slots": 3,
            "pitch": width + rng.randint(0, 2), "by_tap": rng.random() < 0.3,
            "partial_out": rng.random() < 0.1,
        }  # fmt: skip
        for name, value in fields.items():
            self.wires[0]["receivers"][state.DRAIN]["o"]["drain"][name] = value
        unit = self.column["drain"]
        unit["known"], unit["running"], unit["left"] = 0b111, 1, int(self.grid["pixels"][0])
        unit["ready"] = 0
        unit["running_block"]["ends_group"] = rng.random() < 0.5
        self.column["array"]["stages"] = rng.choice((0, 0, 0, 1 << rng.randrange(13)))

    def surround(self, rng: random.Random) -> None:
        """Hand another block over when none is under way, and take a beat now and then."""
        unit, o = self.column["drain"], self.column["results"][0]
        self.column["weights"]["valid"] = 1
        o["ready"] = o["valid"] and rng.random() < 0.5
        if unit["ready"] and not unit["running"] and rng.random() < 0.2:
            unit["waiting"] = 1
            self.column["array"]["told"]["ends_group"] = rng.random() < 0.8

    def shows(self) -> list[int]:
        """What others see of the drain in a cycle, and after it."""
        unit, receiver = self.column["drain"], self.wires[0]["receivers"][state.DRAIN]
        wires = [int(unit[name]) for name in ("step", "start")] + [int(receiver["ready"])]
        return [*wires, int(unit["ready"]), int(self.column["results"][0]["valid"])]

    def held(self) -> dict[str, Any]:
        unit = self.column["drain"]
        return {n: unit[n].tolist() for n in unit.dtype.names or () if n not in DRAIN_WIRES}


def drains_ahead(ahead: Any, seeds: range) -> list[int]:
    """Let drains run ahead and, side by side, step; return by how many cycles they did."""
    found = []
    for seed in seeds:
        rng = random.Random(seed)
        machine = Draining(rng)
        for _ in range(160):
            machine.surround(rng)
            machine.step()
            shown = machine.shows()
            other = Draining(random.Random(seed))
            other.grid[:], other.wires[:], other.tiles[:] = machine.grid, machine.wires, machine.tiles
            cycles = int(ahead(other.grid, other.wires, other.tiles))
            for _ in range(cycles):
                machine.step()
                assert machine.shows() == shown, "what others see"
            if cycles:
                found.append(cycles)
                assert machine.held() == other.held()
    return found


def test_a_drain_that_runs_ahead_is_where_it_would_be() -> None:
    found = drains_ahead(drain_compiled(drain.drain_ahead.py_func), range(60))
    assert len(found) > 100
    assert max(found) == drain._AHEAD


@pytest.mark.parametrize(
    ("condition", "without"),
    [
        ("d.step == step and ", ""),
        (" and _ready_next(d, c, array, pixels) == (d.ready != 0)", ""),
        ("not _steady(d, c, array, o) or ", ""),
    ],
)
def test_each_condition_of_a_drain_ahead_is_needed(condition: str, without: str) -> None:
    ahead = drain_compiled(mutated(drain, "drain_ahead", condition, without))
    with pytest.raises(AssertionError):
        drains_ahead(ahead, range(60))


# --- a sequencer that waits --------------------------------------------------------------------

_sequencer_wires = numba.njit(lambda ms, ready: control.sequencer_wires(ms[0], ready))
_sequencer_edge = numba.njit(lambda ms: control.sequencer_edge(ms[0]))


def waiting_sequencer(state: int, word: int = 0) -> tuple[np.ndarray, np.void]:
    """Return a machine whose sequencer waits, with ``word`` at hand: for column 0, or the bus."""
    made = machine.new_machine(TINY, TINY.memory, 1 << 20, None)
    s = made[0]["sequencer"]
    s["there"], s["state"], s["word"], s["left"] = 1, state, word, 2
    s["waiting"][0] = s["pending"][0] = 1
    for _ in range(2):
        _sequencer_wires(made, False)
        _sequencer_edge(made)
        assert s["waits"] and not s["moves"]
    return made, s


def test_a_sequencer_that_waits_sees_the_bus_become_ready() -> None:
    made, s = waiting_sequencer(control.PAYLOAD)
    _sequencer_wires(made, True)
    assert s["config_moves"]
    _sequencer_edge(made)
    assert s["left"] == 1 and not s["waits"]


def test_a_sequencer_that_waits_sees_that_a_write_is_done() -> None:
    made, s = waiting_sequencer(control.DECODE, int(Opcode.FENCE) | 1 << 12)
    assert s["fence_waits"]
    moves = []
    for done in (1, 0, 0):
        made[0]["writers"][0]["done"] = done
        _sequencer_wires(made, False)
        moves.append(int(s["moves"]))
        _sequencer_edge(made)
    assert moves == [0, 0, 1]
    assert s["waiting"][0] == 0 and not s["waits"]


def test_a_sequencer_that_waits_sees_a_fault() -> None:
    made, s = waiting_sequencer(control.PAYLOAD)
    made[0]["arbiter"]["read_error"] = s["busy"] = 1
    for _ in range(2):
        _sequencer_wires(made, False)
        _sequencer_edge(made)
    assert s["error"] and not s["busy"]
