"""Streams that move from picture to picture are where they would be, cycle by cycle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest
from test_cycle import MEMORIES

from neuflow.compiler import compile_graph
from neuflow.cycle import awake, judge, machine, pictures, streams
from neuflow.errors import HardwareError
from neuflow.grid import TINY, VIRTEX6, MemoryConfig
from neuflow.ir import Program
from neuflow.layout import ACTIVITY_BITS
from tests.quantgraphs import Builder


class Noted:
    """Runs of the machine in a test: the machines as they were at the end of each."""

    def __init__(self) -> None:
        self.machines: list[np.ndarray] = []
        self.steps = False
        """Whether no pictures are taken."""

    def run(self, machines: np.ndarray, *rest: Any) -> None:
        if self.steps:
            machines[0]["history"]["on"] = 0
        _run(machines, *rest)
        self.machines.append(machines)

    def take(self) -> np.void:
        """Return the machine of the first run since."""
        first = self.machines[0][0]
        self.machines.clear()
        return first


_run = machine.run


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Noted]:
    made = Noted()
    monkeypatch.setattr(machine, "run", made.run)
    yield made


def dense(case: int) -> Program:
    """Return random dense layers, whose weights are used once."""
    rng = np.random.default_rng(case)
    grid = (TINY, VIRTEX6)[case % 2]
    net = Builder(case)
    large = 1 + 3 * (case % 2)
    tensor = net.input(int(rng.integers(200, 900)) * large, 1, 1)
    for _ in range(int(rng.integers(1, 3))):
        tensor = net.dense(tensor, int(rng.integers(20, 150)) * large)
    return compile_graph(net.build(tensor), grid)


def convolutions(case: int) -> Program:
    """Return random convolutions: rows and weights come while arrays run ahead."""
    rng = np.random.default_rng(case)
    grid = (TINY, VIRTEX6)[case % 2]
    net = Builder(case)
    large = 1 + 3 * (case % 2)
    tensor = net.input(24 * large, 9, int(rng.integers(8, 15)))
    for _ in range(2):
        kernel = int(rng.choice([1, 3]))
        stride = int(rng.integers(1, 3))
        tensor = net.conv(tensor, int(rng.integers(4, 9)) * large, (kernel, kernel), (stride, stride))
        tensor = net.conv(tensor, 24 * large, (1, 1))
    return compile_graph(net.build(tensor), grid)


def memory(case: int) -> MemoryConfig:
    return MEMORIES[case // 2 % len(MEMORIES)]


@pytest.mark.parametrize("case", range(24))
def test_dense_layers(case: int, noted: Noted) -> None:
    moves = compare(dense(case), case, noted)
    bound_by_bus = memory(case).outstanding > 1 and memory(case).read_latency < 80
    assert moves > 20 or not bound_by_bus


def test_convolutions(noted: Noted) -> None:
    assert sum(compare(convolutions(case), case, noted) for case in range(16)) > 100


def compare(program: Program, case: int, noted: Noted) -> int:
    """Compare a run with one in which every part moves in every cycle; return the ways moved at once."""
    images = 1 + case % 3
    noted.machines.clear()
    got = judge.simulate(program, images, memory(case), timeline=False)
    assert len(noted.machines) == 1, "ended with an error, and was run once more"
    moves = int(noted.take()["history"]["moves"])
    want = judge.simulate(program, images, memory(case), plain=True, timeline=False)
    for field in dataclasses.fields(want):
        if field.name != "seconds":
            assert getattr(got, field.name) == getattr(want, field.name), field.name
    return moves


IGNORED = {
    "tiles": ("still", "before", "back_before", "rests_until", "now"),
    "wires": ("awake",),
    "arbiter": ("ar_address", "read_grant"),
    "scratchpad": ("busy", "awake"),
}
"""What is not given back: nobody reads it before it is set."""


def registers(m: np.void) -> dict[str, Any]:
    """Return all of a machine; what stands in a ring in the order of the ring."""
    m = m.copy()
    for name, fields in IGNORED.items():
        for field in fields:
            m[name][field] = 0
    held: list[list[int]] = []
    for port in m["readers"].reshape(-1):
        for name in ("pieces", "buffer"):
            q = port[name]
            places = q["at"] + (q["head"] + np.arange(q["level"])) % max(q["depth"], 1)
            held.append(m["store"]["entries"][places].tolist())
            q["head"] = 0
        for slice_, value in (("asks", "a"), ("runs", "a"), ("runs", "b")):
            for end in ("", "spare_"):
                if not port[slice_][f"{end}valid"]:
                    port[slice_][f"{end}{value}"] = 0
    q = m["memory"]["reads"]
    bursts = np.roll(q["entries"], -int(q["first"]))[: int(q["size"])]
    said: dict[str, Any] = {"bursts": [b.tolist()[1:] for b in bursts], "held": held}
    q["first"], q["entries"] = 0, 0
    said["causes"] = m["figures"]["causes"].tolist()
    for name in m.dtype.names or ():
        if name not in ("history", "store", "flat", "figures"):
            walk(m[name], name, said)
    return said


def walk(value: Any, name: str, said: dict[str, Any]) -> None:
    """Add the numbers in a record by their names."""
    if isinstance(value, np.void):
        for field in value.dtype.names or ():
            if field not in ("flat", "back"):
                walk(value[field], f"{name}.{field}", said)
    elif isinstance(value, np.ndarray) and value.dtype.names:
        for place in np.ndindex(value.shape):
            walk(value[place], f"{name}{list(place)}", said)
    else:
        said[name] = value.tolist()


@pytest.mark.parametrize("layers", [dense, convolutions])
@pytest.mark.parametrize("case", range(8))
def test_in_the_middle_of_a_stream_all_registers_are_what_they_would_be(
    case: int, layers: Callable[[int], Program], noted: Noted
) -> None:
    program, rng = layers(case), np.random.default_rng(case)
    end = judge.simulate(program, 3, memory(case), timeline=False).cycles
    noted.take()
    for limit in rng.integers(end // 8, end, 6):
        found = []
        for noted.steps in (False, True):
            with pytest.raises(HardwareError, match="no end within"):
                judge.simulate(program, 3, memory(case), max_cycles=int(limit), timeline=False)
            found.append(registers(noted.take()))
        got, want = found
        differ = {name: (got[name], want[name]) for name in want if got[name] != want[name]}
        assert not differ


# --- whether a picture may be taken, and a way be gone once more ------------------------------

_may_repeat = numba.njit(lambda ms: streams._may_repeat(ms[0]))
_may_move = numba.njit(lambda ms, end: streams._may_move(ms[0], ms[0].history, 0, end))


def put(m: np.void, path: str, value: int) -> None:
    """Set a register: "readers.0.1.splitter.more"."""
    *way, last = path.split(".")
    record: Any = m
    for key in way:
        record = record[int(key) if key.isdigit() else key]
    record[int(last) if last.isdigit() else last] = value


def streaming() -> np.ndarray:
    """Return a machine whose first column is in the middle of a run and of a block."""
    made = machine.new_machine(TINY, TINY.memory, 1 << 20, None)
    for path, value in {
        "wires.0.wakes": 0, "wires.1.wakes": 0, "bus.wakes": 0, "sequencer.there": 1,
        "fetcher.buffer.level": TINY.burst_beats + 1, "sequencer.enable": 1,
        "tiles.columns.0.array.lanes.known": 1, "tiles.columns.1.array.lanes.known": 1,
        "tiles.columns.0.array.active": 1, "wires.0.receivers.2.o.array.channels": 3,
        "readers.0.0.splitter.active": 1, "readers.0.0.splitter.more": 3,
        "readers.0.1.splitter.active": 1, "readers.0.1.splitter.more": 3,
        "tiles.columns.0.rows.active": 1, "tiles.columns.0.rows.record": 2,
        "tiles.columns.0.rows.stored": 2, "tiles.columns.0.rows.limit": 7,
        "tiles.columns.0.array.released": 3, "wires.0.receivers.0.o.rows.ring_rows": 4,
        "arbiter.write_grant": -1,
    }.items():  # fmt: skip
        put(made[0], path, value)
    return made


@pytest.mark.parametrize(
    "registers",
    [
        *(f"sequencer.{name}" for name in ("moves", "restart", "next_frame", "fault", "hang", "error")),
        "sequencer.fetch_ready", "sequencer.pending.1", "bus.wakes", "fetcher.wanted",
        "fetcher.under_way", ("fetcher.buffer.level", TINY.burst_beats),
        ("memory.reads.size", 17), "memory.writes.size", "memory.responses.size",
        *(f"arbiter.{name}" for name in (
            "aw_valid", "leaves.valid", "turns.level", "turns.valid", "write_requests", "write_grant",
            "write_beat", "write_response", "read_error", "write_error",
        )),
        *(f"scratchpad.{name}" for name in (
            "read_requests", "write_requests", "read_error", "write_error", "reads.slots.1.owner",
            "writes.slots.0.owner", "served.1", "answered.0", "acknowledged.1",
        )),
        ("wires.1.wakes", awake.BACK), ("wires.0.activity", 1 << ACTIVITY_BITS),
        ("wires.1.resting", 1 << ACTIVITY_BITS), ("wires.0.receivers.2.o.array.channels", 2),
        ("tiles.columns.0.array.lanes.known", 0, "wires.0.receivers.2.valid", 1),
        "tiles.columns.0.array.stages",
        ("readers.0.1.buffer.level", pictures.ENTRIES + 1), "readers.0.1.runs.valid",
        "readers.1.1.walker.active",
        "wires.0.receivers.9.valid", "readers.1.1.splitter.there", "readers.0.1.splitter.ends",
        ("readers.0.1.splitter.more", 2), "readers.0.1.near",
        ("readers.0.1.splitter.more", 1 << 17), ("readers.0.0.splitter.more", 2),
        ("tiles.columns.0.rows.stored", 1), ("tiles.columns.0.rows.limit", 8),
        ("tiles.columns.0.rows.lead", 1), "wires.1.receivers.0.valid",
        "tiles.columns.0.weights.leading", "tiles.columns.0.weights.arrived",
        "wires.0.receivers.1.valid", "tiles.columns.1.weights.blocks.leaving",
        ("tiles.columns.1.weights.blocks.room", 0),
        ("wires.0.receivers.3.valid", 1, "tiles.columns.0.weights.blocks.ready", 1),
    ],
    ids=str,
)  # fmt: skip
def test_no_picture_is_taken_where_something_else_may_move(registers: Any) -> None:
    made = streaming()
    assert _may_repeat(made)
    pairs = (registers, 1) if isinstance(registers, str) else registers
    for path, value in zip(pairs[::2], pairs[1::2], strict=True):
        put(made[0], path, value)
    assert not _may_repeat(made)


@pytest.mark.parametrize(
    ("before", "moved", "what"),
    [
        (6, -3, pictures.MORE), (6, -3, pictures.MORE + 1), (6, -3, pictures.CHANNEL),
        (5, -3, pictures.STORED),
        (pictures.FAR + 3, -2, pictures.SPACE), (pictures.FAR + 3, -2, pictures.UNREAD),
    ],
)  # fmt: skip
def test_a_way_ends_before_what_is_counted_is_compared(before: int, moved: int, what: int) -> None:
    made = streaming()
    h = made[0]["history"]
    h["values"][0], h["fars"][0] = pictures.FAR + 99, 0b011
    h["values"][0, what], h["moved"][0, 0, what] = before, moved
    assert _may_move(made, 50)
    h["values"][0, what] -= 1
    assert not _may_move(made, 50)


@pytest.mark.parametrize("name", ["resumes", "drain_resumes"])
def test_a_way_ends_before_what_was_run_ahead_moves_again(name: str) -> None:
    made = streaming()
    made[0]["history"]["values"][0] = 9
    made[0]["wires"][1][name] = 51
    assert _may_move(made, 50)
    assert not _may_move(made, 51)
