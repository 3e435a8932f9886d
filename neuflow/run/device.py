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

from neuflow.blocks.alu_model import UNARY, alu
from neuflow.blocks.mapper_model import apply_table
from neuflow.blocks.window_model import WindowSpec, memory_words, window
from neuflow.grid import GridConfig
from neuflow.ir import MapTable, Program, Result, Words
from neuflow.layout import (
    INSTRUCTION,
    READ,
    SCRATCHPAD,
    SEGMENTS,
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
    WindowOp,
)
from neuflow.run import frames
from neuflow.run.device_convolver import DeviceConvolver, Shared
from neuflow.run.device_memory import DeviceFault, Memory, Packet

_NEIGHBOURS = {
    RouterIn.NORTH: (-1, 0, RouterOut.SOUTH),
    RouterIn.SOUTH: (1, 0, RouterOut.NORTH),
    RouterIn.WEST: (0, -1, RouterOut.EAST),
    RouterIn.EAST: (0, 1, RouterOut.WEST),
}


@dataclass(frozen=True)
class Config:
    """A configuration in a queue: fields, the instruction's number and word, place for faults."""

    fields: Mapping[str, int]
    time: int
    word: int
    origin: str


@dataclass(frozen=True)
class Written:
    """A WRITE packet that has just gone to memory; ``config.time`` counts instructions of all frames."""

    frame: int
    column: int
    config: Config
    words: Packet


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
        self.queues: dict[tuple[int, ...], deque[Config]] = {}
        self.inboxes: dict[tuple[int, ...], deque[Packet]] = {}
        self.unfenced: list[tuple[int, int]] = []
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
        base = {
            Relocate.NONE: 0,
            Relocate.PROGRAM: 0,
            Relocate.INPUT: self.input + frame * self.program.input_words,
            Relocate.OUTPUT: at,
        }
        counter = 0
        while True:
            self.time += 1
            head = INSTRUCTION.unpack([self.code[counter]])
            counter += 1
            if head["opcode"] == Opcode.CONFIG:
                payload = [int(word) for word in self.code[counter : counter + head["length"]]]
                payload[0] = (payload[0] + base[Relocate(head["relocate"])]) & 0xFFFF_FFFF
                if UNITS[Kind(head["kind"])] in (READ, WRITE) and payload[0] >= SCRATCHPAD:
                    payload[0] += self.scratchpad - SCRATCHPAD
                self._config(head, payload, counter - 1)
                counter += head["length"]
            elif head["opcode"] == Opcode.FENCE:
                self._fence(head["columns"])
            elif head["opcode"] == Opcode.END:
                steps = (int(self.code[counter]), int(self.code[counter + 1]))
                if steps != (self.program.input_words, self.program.output_words):
                    raise DeviceFault(f"END: steps {steps} are not those of the frames")
                self._fence((1 << self.grid.columns) - 1)
                self._all_quiet()
                return
            else:
                raise DeviceFault(f"word {counter - 1}: illegal instruction")

    def _config(self, head: Mapping[str, int], payload: list[int], word: int) -> None:
        kind = Kind(head["kind"])
        layout = UNITS[kind]
        columns = [c for c in range(self.grid.columns) if head["columns"] >> c & 1]
        if not columns or head["columns"] >> self.grid.columns:
            raise DeviceFault(f"word {word}: {kind.name} for columns {head['columns']:b}b")
        records = [payload[i : i + layout.words] for i in range(0, len(payload), layout.words)]
        if len(records[-1]) != layout.words or (len(records) > 1 and kind != Kind.ROUTER):
            raise DeviceFault(f"word {word}: {kind.name} of {len(payload)} words")
        for record in records:
            fields = layout.unpack(record)
            if layout.pack(**fields) != record:
                raise DeviceFault(f"word {word}: {kind.name} has bits beyond its fields")
            for column in columns:
                key: tuple[int, ...] = (kind, column, head["sub"])
                if kind == Kind.ROUTER:
                    key = (*key, fields["output"])
                origin = f"word {word}, column {column} {kind.name}"
                self._send(key, Config(fields, self.time, word, origin))

    def _send(self, key: tuple[int, ...], config: Config) -> None:
        """Queue a configuration; a unit without room must first finish what it has."""
        queue = self.queues.setdefault(key, deque())
        while len(queue) >= self.grid.config_queue or self._router_conflict(key, config):
            if not self.pending:
                raise DeviceFault(f"{config.origin}: deadlock, its unit waits for what follows")
            self._write(self.pending[0])
        queue.append(config)
        if key[0] == Kind.WRITE:
            self.pending.append(key[1])

    def _router_conflict(self, key: tuple[int, ...], config: Config) -> bool:
        """Whether a packet of the same input, with other peers, still has ROUTE words queued."""
        if key[0] != Kind.ROUTER:
            return False
        source, peers = config.fields["input"], config.fields["peers"]
        return any(
            held.fields["input"] == source and held.fields["peers"] != peers
            for other, queue in self.queues.items()
            if other[:3] == key[:3]
            for held in queue
        )

    def _fence(self, columns: int) -> None:
        while any(columns >> column & 1 for column in self.pending):
            self._write(next(c for c in self.pending if columns >> c & 1))
        done = [number for column, number in self.unfenced if columns >> column & 1]
        self.memory.fence(done, self.time)
        self.unfenced = [(c, n) for c, n in self.unfenced if not columns >> c & 1]

    def _all_quiet(self) -> None:
        left = [queue[0].origin for queue in self.queues.values() if queue]
        if left or any(self.inboxes.values()):
            raise DeviceFault(f"end of frame: packets left, {left[:3]}")

    def _take(self, *key: int) -> Config:
        queue = self.queues.get(key)
        if not queue:
            name = f"{Kind(key[0]).name}{key[2:]} of column {key[1]}"
            raise DeviceFault(f"{name} has no configuration")
        return queue.popleft()

    # Memory ports.

    def _write(self, column: int) -> None:
        self.pending.remove(column)
        config = self._take(Kind.WRITE, column, 0)
        row = Row.OPERATOR if config.fields["source"] else self.grid.rows - 1
        packet = self._output(column, row, RouterOut.GLOBAL)
        number = self.memory.write(config.fields, packet, config.origin)
        self.unfenced.append((column, number))
        self.packets += 1
        if self.watch is not None:
            self.watch(self, Written(self.frame, column, config, packet))

    def _line(self, kind: Kind, source: int, column: int) -> Packet:
        """Next packet of a rows or weights line for one of its listeners."""
        inbox = self.inboxes.setdefault((kind, source, column), deque())
        if not inbox:
            config = self._take(kind, source, 0)
            if not config.fields["dest"] >> column & 1:
                raise DeviceFault(f"{config.origin}: column {column} listens but is not named")
            packet = self.memory.read(config.fields, config.time, config.origin)
            for other in range(self.grid.columns):
                if config.fields["dest"] >> other & 1:
                    self.inboxes.setdefault((kind, source, other), deque()).append(packet)
        return inbox.popleft()

    def _operand(self, column: int, wanted: Operand) -> Packet:
        config = self._take(Kind.READ_OPERAND, column, 0)
        if config.fields["dest"] != wanted:
            raise DeviceFault(f"{config.origin}: comes at the wrong taker's turn")
        return self.memory.read(config.fields, config.time, config.origin).astype(np.int64)

    # Routers.

    def _output(self, column: int, row: int, output: RouterOut) -> Packet:
        """Next packet of a router output; all its peers take it too."""
        inbox = self.inboxes.setdefault((column, row, output), deque())
        if inbox:
            return inbox.popleft()
        route = self._take(Kind.ROUTER, column, row, output)
        if not route.fields["peers"] >> output & 1:
            raise DeviceFault(f"{route.origin}: output {output} is not among its peers")
        packet = self._input(column, row, RouterIn(route.fields["input"]))
        for peer in RouterOut:
            if peer != output and route.fields["peers"] >> peer & 1:
                other = self._take(Kind.ROUTER, column, row, peer)
                if (other.fields["input"], other.fields["peers"]) != (
                    route.fields["input"],
                    route.fields["peers"],
                ):
                    raise DeviceFault(f"{other.origin}: its peers disagree")
                self.inboxes.setdefault((column, row, peer), deque()).append(packet)
        return packet

    def _input(self, column: int, row: int, source: RouterIn) -> Packet:
        if source in _NEIGHBOURS:
            down, right, output = _NEIGHBOURS[source]
            if not (0 <= row + down < self.grid.rows and 0 <= column + right < self.grid.columns):
                raise DeviceFault(f"column {column} row {row}: no neighbour {source.name}")
            return self._output(column + right, row + down, output)
        if source == RouterIn.GLOBAL:
            if row != Row.OPERATOR:
                raise DeviceFault(f"column {column} row {row}: no global input")
            return self._operand(column, Operand.OPERATOR)
        return self._unit(column, row, source - RouterIn.LOCAL0)

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
            return self._output(column, row, RouterOut(RouterOut.LOCAL0 + number))
        raise DeviceFault(f"column {column} row {row}: no local input {number}")

    def _convolver(self, column: int) -> Packet:
        rows, weights, array, drain = (
            self._take(kind, column, 0)
            for kind in (Kind.CONV_ROWS, Kind.CONV_WEIGHTS, Kind.CONV_ARRAY, Kind.CONV_DRAIN)
        )
        partial = self._operand(column, Operand.CONVOLVER) if drain.fields["partial_in"] else None
        rows_packet = None
        if rows.fields["rows"]:
            rows_packet = self._line(Kind.READ_ROWS, rows.fields["source"], column)
        weights_packet = self._line(Kind.READ_WEIGHTS, weights.fields["source"], column)
        try:
            return self.convolvers[column].run(
                rows.fields, weights.fields, array.fields, drain.fields,
                rows_packet, weights_packet, partial,
            )  # fmt: skip
        except DeviceFault as fault:
            raise DeviceFault(f"{array.origin}: {fault}") from None

    def _alu(self, column: int, number: int) -> Packet:
        config = self._take(Kind.ALU, column, number)
        f, op = config.fields, AluOp(config.fields["op"])
        ports = [RouterOut(RouterOut.LOCAL0 + 2 * number), RouterOut(RouterOut.LOCAL1 + 2 * number)]
        # The operand line last: before an operand it may bring partial sums to the convolver.
        wanted = sorted(ports[:1] if op in UNARY else ports, key=lambda p: self._global(column, p))
        got = {port: self._output(column, Row.OPERATOR, port) for port in wanted}
        a, b = got[ports[0]], got.get(ports[1])
        if b is not None and len(a) != len(b):
            raise DeviceFault(f"{config.origin}: operands of {len(a)} and {len(b)} words")
        shifts = {name: f[name] for name in ("shift_a", "shift_b", "shift")}
        return alu(op, a, b, bits=8 if f["narrow"] else 16, **shifts)

    def _global(self, column: int, port: RouterOut) -> bool:
        """Whether the next packet of an operator tile's output comes by the operand line."""
        queue = self.queues.get((Kind.ROUTER, column, Row.OPERATOR, port))
        return queue is not None and len(queue) > 0 and queue[0].fields["input"] == RouterIn.GLOBAL

    def _window(self, column: int) -> Packet:
        config = self._take(Kind.WINDOW, column, 0)
        f = config.fields
        packet = self._output(column, Row.OPERATOR, RouterOut.LOCAL4)
        if len(packet) != f["height"] * f["maps"] * f["width"]:
            raise DeviceFault(f"{config.origin}: a packet of {len(packet)} words")
        sizes = (f["kernel_y"], f["stride_y"], f["height_out"], f["maps"], f["width"])
        if memory_words(*sizes, self.grid.lanes) > self.grid.window_words:
            raise DeviceFault(f"{config.origin}: its rows overflow the window memory")
        spec = WindowSpec(
            op=WindowOp(f["op"]), kernel=(f["kernel_y"], f["kernel_x"]),
            stride=(f["stride_y"], f["stride_x"]), pad=(f["pad_y"], f["pad_x"]),
            out=(f["height_out"], f["width_out"]), m=f["m"], s=f["s"], zero=f["zero"],
            bits=8 if f["narrow"] else 16,
        )  # fmt: skip
        image = packet.reshape(f["height"], f["maps"], f["width"]).transpose(1, 0, 2)
        return window(spec, image).transpose(1, 0, 2).reshape(-1)

    def _mapper(self, column: int) -> Packet:
        config = self._take(Kind.MAPPER, column, 0)
        f = config.fields
        low, b, a, q = (
            tuple(f[f"{name}{i}"] for i in range(SEGMENTS)) for name in ("min", "b", "a", "q")
        )
        odd, even = bool(f["odd"]), bool(f["even"])
        table = MapTable(low, b, a, q, f["shift"], f["square"], odd, even)
        packet = self._output(column, Row.MAPPER, RouterOut.LOCAL0)
        return apply_table(table, packet, 8 if f["narrow"] else 16)


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
