"""Schedule -> Program: the device section, word by word, each with its origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuflow.compiler.allocate import Place, Space
from neuflow.compiler.configure import Configurer, Packet, Stage
from neuflow.compiler.geometry import round_up
from neuflow.compiler.mapping import Chain
from neuflow.compiler.schedule import PAGE_WORDS, Schedule
from neuflow.compiler.turn import Turn
from neuflow.compiler.weights import Weights
from neuflow.compiler.weights_ahead import weights_sent
from neuflow.errors import CompileError
from neuflow.grid import GridConfig
from neuflow.ir import Layer, Port, Program, QuantGraph
from neuflow.layout import INSTRUCTION, SCRATCHPAD, UNITS, Kind, Opcode, Relocate

_RELOCATE = {
    Space.WEIGHTS: Relocate.PROGRAM,
    Space.WORK: Relocate.PROGRAM,
    Space.INPUT: Relocate.INPUT,
    Space.OUTPUT: Relocate.OUTPUT,
    Space.SCRATCHPAD: Relocate.NONE,
    None: Relocate.NONE,
}


@dataclass(frozen=True)
class Instruction:
    """Words of an instruction and their origin; ``space``: what word 1 still counts from."""

    words: tuple[int, ...]
    origin: str
    space: Space | None = None


def assemble(schedule: Schedule, grid: GridConfig, source: QuantGraph) -> Program:
    """Emit the program. ``source``: the graph before it was fitted to the machine, for golden."""
    weights = Weights(schedule, grid)
    configurer = Configurer(grid, schedule, weights)
    code = [*_turns(schedule.turns, configurer, grid), _end(schedule)]
    device, origins = _link(code, weights, grid)
    mapping, graph = schedule.mapping, schedule.mapping.graph
    return Program(
        name=graph.name,
        grid=grid,
        device=device,
        work_words=schedule.work_words,
        input_words=schedule.input_words,
        output_words=schedule.output_words,
        batch=mapping.batch,
        graph=source,
        inputs=tuple(_port(name, schedule) for name in graph.inputs),
        outputs=tuple(_port(name, schedule) for name in graph.outputs),
        layers=_layers(schedule, grid),
        origins=origins,
        mapping=str(mapping),
        schedule=str(schedule),
        cuts=tuple((a.chain.name, a.rank) for a in mapping.assignments if mapping.searched),
    )


# --- instructions -------------------------------------------------------------------------------


def _turns(
    turns: Sequence[Turn], configurer: Configurer, grid: GridConfig
) -> Iterator[Instruction]:
    """Emit turns: weights and set-up, the fence, then all that touches memory in common.

    Rows go first where they need not wait, but for the first turn: nothing hides its start, and rows,
    which have the bus before all others, would hold its weights back. Early rows that wait for some
    writes come last before the fence, or before the turn before writes, with their weights. ROUTE words
    go behind the reads: they may have to wait for the turn before.
    Weights so load while earlier passes compute; some go before the fence of an earlier turn.
    """
    shared = configurer.weights.packets
    sent = 0  # packets of weights
    for number, (turn, ahead) in enumerate(zip(turns, weights_sent(turns, shared, grid), strict=True)):
        packets = _packets(turn, configurer)
        order = [Stage.ROWS, Stage.SETUP, Stage.OPERANDS]
        before: list[Stage] = []
        if turn.fence:
            before = [Stage.SETUP] if turn.early_fence else [Stage.EARLY, Stage.SETUP]
        if sent < len(shared) and shared[sent][0] == number:
            order.insert(int(number > 0), Stage.WEIGHTS)
            before = [Stage.WEIGHTS, *before] if turn.fence else []
            sent += 1
        yield from _grouped(_of(packets, before), turn)
        if turn.fence:
            for first, *_ in shared[sent:ahead]:
                yield from _weights(turns[first], configurer)
            sent = max(sent, ahead)
            if turn.early_fence and not turn.overtakes:
                yield from _early(turn, configurer)
            yield _fence(turn, turn.fence)
        yield from _grouped(_of(packets, [s for s in order if s not in before]), turn)
        for following in (one for one in turns[number + 1 : number + 2] if one.overtakes):
            if sent < len(shared) and shared[sent][0] == number + 1:
                yield from _weights(following, configurer)
                sent += 1
            yield from _early(following, configurer)
        yield from _grouped(_of(packets, [Stage.ROUTES, Stage.WRITES]), turn)


def _of(packets: list[Packet], stages: list[Stage]) -> list[Packet]:
    return [p for stage in stages for p in packets if p.stage is stage]


def _weights(turn: Turn, configurer: Configurer) -> Iterator[Instruction]:
    yield from _grouped(_of(_packets(turn, configurer), [Stage.WEIGHTS]), turn)


def _early(turn: Turn, configurer: Configurer) -> Iterator[Instruction]:
    """Emit the fence of early rows that wait for some writes, and their reads."""
    yield _fence(turn, turn.early_fence, left=1)
    yield from _grouped(_of(_packets(turn, configurer), [Stage.EARLY]), turn)


def _packets(turn: Turn, configurer: Configurer) -> list[Packet]:
    return list(configurer.packets(turn))


def _grouped(packets: list[Packet], turn: Turn) -> Iterator[Instruction]:
    """Send the same packet to several columns once."""
    groups: dict[tuple, list[Packet]] = {}
    for packet in packets:
        key = (packet.kind, packet.sub, packet.words, packet.space)
        # A port of its own is never shared.
        groups.setdefault((*key, packet.column) if packet.space else key, []).append(packet)
    for same in groups.values():
        yield _config(same, turn)


def _config(packets: list[Packet], turn: Turn) -> Instruction:
    packet = packets[0]
    try:
        payload = [word for record in packet.values() for word in UNITS[packet.kind].pack(**record)]
    except ValueError as error:
        raise CompileError(
            f"{turn.chain.name}: {error}; this layer is too large for the format, cut it finer"
        ) from None
    head = _instruction(
        Opcode.CONFIG,
        kind=packet.kind,
        sub=packet.sub,
        columns=sum(1 << p.column for p in packets),
        length=len(payload),
        relocate=_RELOCATE[packet.space],
    )
    columns = ",".join(str(p.column) for p in packets)
    sub = f"{packet.sub}" if packet.kind in (Kind.ROUTER, Kind.ALU) else ""
    origin = f"{turn.label}/column{columns}/{packet.kind.name}{sub}"
    return Instruction((head, *payload), origin, packet.space)


def _instruction(opcode: Opcode, **fields: int) -> int:
    values = {"kind": 0, "sub": 0, "columns": 0, "length": 0, "relocate": 0, "left": 0, "reserved": 0}
    return INSTRUCTION.pack(opcode=opcode, **(values | fields))[0]


def _fence(turn: Turn, columns: int, left: int = 0) -> Instruction:
    """Wait for the writes of columns; ``left``: for all but the last WRITE packet of each."""
    word = _instruction(Opcode.FENCE, columns=columns, left=left)
    return Instruction((word,), f"{turn.label}/{'fence of early rows' if left else 'fence'}")


def _end(schedule: Schedule) -> Instruction:
    words = (_instruction(Opcode.END), schedule.input_words, schedule.output_words)
    return Instruction(words, "end of frame")


# --- device section -----------------------------------------------------------------------------


def _link(
    code: list[Instruction], weights: Weights, grid: GridConfig
) -> tuple[bytes, tuple[tuple[int, str], ...]]:
    """Lay out instructions, then weights; make addresses count from the program's beginning."""
    code_words = sum(len(instruction.words) for instruction in code)
    weights_at = round_up(2 * code_words, grid.bus_words)
    total = round_up(weights_at + weights.total, PAGE_WORDS)
    base = {
        Space.WEIGHTS: weights_at, Space.WORK: total, Space.INPUT: 0, Space.OUTPUT: 0,
        Space.SCRATCHPAD: SCRATCHPAD,
    }  # fmt: skip

    words: list[int] = []
    origins: list[tuple[int, str]] = []
    for instruction in code:
        origins.append((len(words), instruction.origin))
        linked = list(instruction.words)
        if instruction.space is not None:
            linked[1] += base[instruction.space]
            if linked[1] >= 1 << 32:
                raise CompileError(f"{instruction.origin}: beyond 2**32 words of memory")
        words += linked
    origins += [((weights_at + offset) // 2, label) for offset, label in weights.labels()]

    device = np.zeros(total, np.uint16)
    device[: 2 * code_words] = np.array(words, "<u4").view("<u2")
    device[weights_at : weights_at + weights.total] = weights.words()
    return device.astype("<u2").tobytes(), tuple(origins)


# --- what the host is told ------------------------------------------------------------------------


def _port(name: str, schedule: Schedule) -> Port:
    place: Place = schedule.places[name]
    tensor, batch = schedule.mapping.graph.tensors[name], schedule.mapping.batch
    along_x = batch > 1 and tensor.shape[1:] == (1, 1)
    if along_x:
        return Port(tensor, place.base, place.image, place.record, along_x=True)
    return Port(tensor, place.base, place.image, place.record)


def _layers(schedule: Schedule, grid: GridConfig) -> tuple[Layer, ...]:
    assignments = schedule.mapping.assignments
    writes = {assignment.chain.name: [0] * grid.columns for assignment in assignments}
    for turn in schedule.turns:
        for i, piece in enumerate(turn.pieces):
            writes[turn.chain.name][piece.column] += len(turn.writes(i))
    return tuple(_layer(a.chain, schedule.mapping.graph, writes[a.chain.name]) for a in assignments)


def _layer(chain: Chain, graph: QuantGraph, writes: list[int]) -> Layer:
    macs = weight_words = 0
    if chain.head is not None:
        weight = chain.head.attrs["weight"]
        head_shape = chain.shapes[0]
        positions = 1 if chain.batched else head_shape[1] * head_shape[2]
        weight_words = _connected(weight)
        macs = weight_words * positions
    names = dict.fromkeys((*chain.tensors_read, chain.output))
    words = weight_words + sum(graph.tensors[name].size for name in names)
    operator = "+".join(node.op for node in chain.nodes) or "copy"
    output_words = graph.tensors[chain.output].size
    return Layer(chain.name, operator, macs, words, weight_words, output_words, tuple(writes))


def _connected(weight: NDArray[np.int64]) -> int:
    """Weights of all kernels that are not zero throughout."""
    if weight.ndim == 2:
        return int(weight.size)
    kernels = int(np.any(weight != 0, axis=(2, 3)).sum())
    return kernels * weight.shape[2] * weight.shape[3]


__all__ = ["Instruction", "assemble"]
