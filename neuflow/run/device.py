"""Functional interpreter of the device section: packet by packet, without cycles.

Whole packets are NumPy arrays. Units are pulled: a write asks its route for a packet, the route
asks the unit before it, and so on to memory. Nothing runs before it must (a fence, a full
configuration queue, the end), so a read that is ordered by nothing runs late, and what it sees is
checked: what the machine would not do, or not do safely, raises :class:`DeviceFault`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from neuflow.blocks.alu_model import UNARY
from neuflow.grid import GridConfig
from neuflow.ir import Program, Result, Words
from neuflow.layout import (
    READ,
    SCRATCHPAD,
    UNITS,
    WRITE,
    AluOp,
    Kind,
    Opcode,
    Operand,
    Relocate,
    RouterIn,
    RouterOut,
    Row,
)
from neuflow.run import device_units as units
from neuflow.run import frames
from neuflow.run.device_convolver import DeviceConvolver, Shared
from neuflow.run.device_memory import DeviceFault, Memory, Packet, words_named
from neuflow.run.device_program import Instruction, decode
from neuflow.run.device_queues import Config, Queues
from neuflow.run.device_weights import WeightPorts
from neuflow.run.instructions import END_WORDS

_NEIGHBOURS: dict[int, tuple[int, int, int]] = {
    RouterIn.NORTH: (-1, 0, RouterOut.SOUTH),
    RouterIn.SOUTH: (1, 0, RouterOut.NORTH),
    RouterIn.WEST: (0, -1, RouterOut.EAST),
    RouterIn.EAST: (0, 1, RouterOut.WEST),
}


_ROUTER, _LOCAL_IN, _LOCAL_OUT = int(Kind.ROUTER), int(RouterIn.LOCAL0), int(RouterOut.LOCAL0)
_PORTS = frozenset(kind for kind, layout in UNITS.items() if layout in (READ, WRITE))


@dataclass(frozen=True)
class Written:
    """A WRITE packet that has just gone to memory; ``config.time`` counts instructions of all frames.

    ``first``: words of the column's stream that the WRITE packet before it has taken, where two share
    what a pass makes.
    """

    frame: int
    column: int
    config: Config
    words: Packet
    first: int = 0


Watch = Callable[["Device", Written], None]
"""Is told of every WRITE packet, in the order in which they are worked out."""


class Device:
    """One grid with its memory, running one program frame by frame."""

    def __init__(self, program: Program, count: int, watch: Watch | None = None) -> None:
        self.program, self.grid = program, program.grid
        grid: GridConfig = program.grid
        code = np.frombuffer(program.device, "<i2")
        self.code = code.view("<u4")
        self.work = len(code)
        self.input = self.work + program.work_words
        self.output = self.input + count * program.input_words
        self.scratchpad = self.output + count * program.output_words
        self.memory = Memory(code, self.scratchpad + grid.scratchpad_words)
        shared = Shared()
        self.convolvers = [DeviceConvolver(grid, shared) for _ in range(grid.columns)]
        self.instructions = decode(self.code)
        self.queues = Queues(grid)
        self.weights = WeightPorts(grid, self.queues, self._line)
        self.inboxes: dict[tuple[int, ...], deque[Packet]] = {}
        self.rests: dict[int, tuple[int, Packet]] = {}  # by column: words written, those that are not
        self.unfenced: list[list[int]] = [[] for _ in range(grid.columns)]
        self.pending: deque[int] = deque()
        self.time = 0
        self.packets = 0
        self.frame = 0
        self.watch = watch

    # Instructions.

    def run_frame(self, frame: int) -> None:
        """Execute the program once, for the inputs and outputs of one frame."""
        self.frame = frame
        self.memory.forget(self.work, self.program.work_words)
        self.memory.forget(self.scratchpad, self.grid.scratchpad_words)
        at = self.output + frame * self.program.output_words
        self.memory.forget(at, self.program.output_words)
        base: dict[int, int] = {
            Relocate.NONE: 0,
            Relocate.PROGRAM: 0,
            Relocate.INPUT: self.input + frame * self.program.input_words,
            Relocate.OUTPUT: at,
        }
        for instruction in self.instructions:
            self.time += 1
            if instruction.fault:
                raise DeviceFault(f"word {instruction.word}: {instruction.fault}")
            if instruction.opcode == Opcode.CONFIG:
                self._config(instruction, base[instruction.relocate])
            elif instruction.opcode == Opcode.FENCE:
                self._fence(instruction.columns, instruction.left)
            elif instruction.opcode == Opcode.END:
                self._end(instruction.word)
                return
            else:
                raise DeviceFault(f"word {instruction.word}: illegal instruction")
        raise DeviceFault("the program ends without END")

    def _end(self, word: int) -> None:
        steps = tuple(int(step) for step in self.code[word + 1 : word + END_WORDS])
        if steps != (self.program.input_words, self.program.output_words):
            raise DeviceFault(f"END: steps {steps} are not those of the frames")
        self._fence(tuple(range(self.grid.columns)), 0)
        self._all_quiet()

    def _config(self, instruction: Instruction, base: int) -> None:
        kind, sub, columns = instruction.kind, instruction.sub, instruction.columns
        if not columns or columns[-1] >= self.grid.columns:
            raise DeviceFault(f"word {instruction.word}: {Kind(kind).name} for columns {columns}")
        for fields in instruction.records:
            if kind in _PORTS:
                fields = {**fields, "base": self._address(fields["base"], base)}
            elif base:
                raise DeviceFault(f"word {instruction.word}: {Kind(kind).name} has no address")
            for column in columns:
                unit: tuple[int, ...] = (kind, column, sub)
                if kind == _ROUTER:
                    unit = (*unit, fields["output"])
                self._send(Config(fields, self.time, instruction.word, unit))

    def _address(self, address: int, base: int) -> int:
        """Return where in ``memory`` the word lies that a port names ``address``."""
        address = (address + base) & 0xFFFF_FFFF
        return address if address < SCRATCHPAD else address + self.scratchpad - SCRATCHPAD

    def _send(self, config: Config) -> None:
        """Queue a configuration; a unit without room must first finish what it has."""
        unit = config.unit
        while self._is_full(unit) or self.queues.is_mixed(config):
            if self.pending:
                self._write(self.pending[0])
            elif not self.weights.store(unit):
                raise DeviceFault(f"{config}: deadlock, its unit waits for what follows")
        self.queues.put(config)
        if unit[0] == Kind.WRITE:
            self.pending.append(unit[1])

    def _is_full(self, unit: tuple[int, ...]) -> bool:
        """Whether a unit takes no further configuration."""
        room = self.queues.room(unit)
        return room <= 0 or (room == 1 and self.weights.arrive(unit))

    def _fence(self, columns: tuple[int, ...], left: int) -> None:
        """Wait for all WRITE packets of ``columns`` but the last ``left`` of each."""
        spare = dict.fromkeys(columns, left)
        late: list[int] = []
        for column in reversed(self.pending):
            if spare.get(column):
                spare[column] -= 1
            elif column in spare:
                late.append(column)
        for column in reversed(late):
            self._write(column)
        for column, kept in spare.items():
            numbers = self.unfenced[column]
            done = len(numbers) - kept
            self.memory.fence(numbers[:done], self.time)
            self.unfenced[column] = numbers[done:]

    def _all_quiet(self) -> None:
        if self.rests:
            raise DeviceFault(f"end of frame: words of columns {sorted(self.rests)} are not written")
        left = self.queues.left()
        left += [f"weights of column {c}" for c, ring in enumerate(self.weights.rings) if ring.left]
        if left or any(self.inboxes.values()):
            raise DeviceFault(f"end of frame: packets left, {left[:3]}")

    # Memory ports.

    def _write(self, column: int) -> None:
        self.pending.remove(column)
        config = self.queues.take(Kind.WRITE, column, 0)
        if column in self.rests:
            first, packet = self.rests.pop(column)
        else:
            row = Row.OPERATOR if config.fields["source"] else self.grid.rows - 1
            first, packet = 0, self._output(column, row, RouterOut.GLOBAL)
        size = words_named(config.fields)
        if size < len(packet):
            self.rests[column] = first + size, packet[size:]
            packet = packet[:size]
        number = self.memory.write(config.fields, packet, config)
        self.unfenced[column].append(number)
        self.packets += 1
        if self.watch is not None:
            self.watch(self, Written(self.frame, column, config, packet, first))

    def _line(self, kind: Kind, source: int, column: int) -> Packet:
        """Next packet of a rows or weights line for one of its listeners."""
        inbox = self.inboxes.setdefault((kind, source, column), deque())
        if not inbox:
            config = self.queues.take(kind, source, 0)
            if not config.fields["dest"] >> column & 1:
                raise DeviceFault(f"{config}: column {column} listens but is not named")
            packet = self.memory.read(config.fields, config.time, config)
            for other in range(self.grid.columns):
                if config.fields["dest"] >> other & 1:
                    self.inboxes.setdefault((kind, source, other), deque()).append(packet)
        return inbox.popleft()

    def _operand(self, column: int, wanted: Operand) -> Packet:
        config = self.queues.take(Kind.READ_OPERAND, column, 0)
        if config.fields["dest"] != wanted:
            raise DeviceFault(f"{config}: comes at the wrong taker's turn")
        return self.memory.read(config.fields, config.time, config).astype(np.int64)

    # Routers.

    def _output(self, column: int, row: int, output: int) -> Packet:
        """Next packet of a router output; all its peers take it too."""
        inbox = self.inboxes.get((column, row, output))
        if inbox:
            return inbox.popleft()
        route = self.queues.take(_ROUTER, column, row, output)
        source, peers = route.fields["input"], route.fields["peers"]
        if not peers >> output & 1:
            raise DeviceFault(f"{route}: output {output} is not among its peers")
        packet = self._input(column, row, source)
        others = peers & ~(1 << output)
        while others:
            peer = others.bit_length() - 1
            others &= ~(1 << peer)
            other = self.queues.take(_ROUTER, column, row, peer)
            if (other.fields["input"], other.fields["peers"]) != (source, peers):
                raise DeviceFault(f"{other}: its peers disagree")
            self.inboxes.setdefault((column, row, peer), deque()).append(packet)
        return packet

    def _input(self, column: int, row: int, source: int) -> Packet:
        if source in _NEIGHBOURS:
            down, right, output = _NEIGHBOURS[source]
            if not (0 <= row + down < self.grid.rows and 0 <= column + right < self.grid.columns):
                raise DeviceFault(f"column {column} row {row}: no neighbour {source}")
            return self._output(column + right, row + down, output)
        if source == RouterIn.GLOBAL:
            if row != Row.OPERATOR:
                raise DeviceFault(f"column {column} row {row}: no global input")
            return self._operand(column, Operand.OPERATOR)
        return self._unit(column, row, source - _LOCAL_IN)

    # Units.

    def _unit(self, column: int, row: int, number: int) -> Packet:
        if row == Row.CONVOLVER and number == 0:
            return self._convolver(column)
        if row == Row.OPERATOR and number < self.grid.operators:
            return self._alu(column, number)
        if row == Row.OPERATOR and number == self.grid.operators:
            return self._window(column)
        if row == Row.MAPPER and number == 0:
            return self._mapper(column)
        if row >= Row.FIFO and number < 2:
            return self._output(column, row, _LOCAL_OUT + number)
        raise DeviceFault(f"column {column} row {row}: no local input {number}")

    def _convolver(self, column: int) -> Packet:
        kinds = Kind.CONV_ROWS, Kind.CONV_ARRAY, Kind.CONV_DRAIN
        rows, array, drain = (self.queues.take(kind, column, 0) for kind in kinds)
        partial = self._operand(column, Operand.CONVOLVER) if drain.fields["partial_in"] else None
        rows_packet = None
        if rows.fields["rows"]:
            source = rows.fields["source"]
            rows_packet = self._line(Kind.READ_ROWS, source, column)
            if rows.fields["two"]:
                second = self._line(Kind.READ_ROWS, source, column)
                rows_packet = np.concatenate((rows_packet, second))
        convolver, rings = self.convolvers[column], self.weights.rings[column]
        if not rings.left:
            self.weights.bring(column)
        with array.faults():
            weights = rings.take(*convolver.weights_taken(array.fields, drain.fields))
            return convolver.run(
                rows.fields, array.fields, drain.fields, rows_packet, weights, partial
            )

    def _alu(self, column: int, number: int) -> Packet:
        config = self.queues.take(Kind.ALU, column, number)
        op = AluOp(config.fields["op"])
        ports = [_LOCAL_OUT + 2 * number, _LOCAL_OUT + 2 * number + 1]
        # The operand line last: before an operand it may bring partial sums to the convolver.
        wanted = sorted(ports[:1] if op in UNARY else ports, key=lambda p: self._global(column, p))
        got = {port: self._output(column, Row.OPERATOR, port) for port in wanted}
        with config.faults():
            return units.combined(config.fields, got[ports[0]], got.get(ports[1]))

    def _global(self, column: int, port: int) -> bool:
        """Whether the next packet of an operator tile's output comes by the operand line."""
        route = self.queues.first(_ROUTER, column, Row.OPERATOR, port)
        return route is not None and route.fields["input"] == RouterIn.GLOBAL

    def _window(self, column: int) -> Packet:
        config = self.queues.take(Kind.WINDOW, column, 0)
        packet = self._output(column, Row.OPERATOR, RouterOut.LOCAL4)
        with config.faults():
            return units.reduced(self.grid, config.fields, packet)

    def _mapper(self, column: int) -> Packet:
        config = self.queues.take(Kind.MAPPER, column, 0)
        return units.mapped(config.fields, self._output(column, Row.MAPPER, RouterOut.LOCAL0))


def run(
    program: Program, inputs: Mapping[str, Words], watch: Watch | None = None
) -> Result:
    """Run all images of ``inputs`` (int64 [N, C, H, W] by name), frame by frame.

    ``watch`` is told of every WRITE packet.
    """
    images = frames.image_count(program, inputs)
    packed = frames.pack(program, inputs)
    device = Device(program, len(packed), watch)
    holes = frames.holes(program)
    for number, words in enumerate(packed):
        device.memory.load(device.input + number * program.input_words, words, holes)
    for number in range(len(packed)):
        device.run_frame(number)
    out = device.memory.data[device.output : device.scratchpad]
    out = out.reshape(len(packed), program.output_words)
    return Result(frames.unpack(program, out, images), {"writes": device.packets})


__all__ = ["Device", "DeviceFault", "Watch", "Written", "run"]
