"""What one pass of a program sets up, read back from its device words: units, routes, lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from neuflow import layout
from neuflow.errors import ProgramError
from neuflow.grid import GridConfig
from neuflow.ir import Program
from neuflow.layout import Kind, Opcode, Operand, RouterIn, RouterOut

READ_PORTS = (Kind.READ_ROWS, Kind.READ_WEIGHTS, Kind.READ_OPERAND)


@dataclass(frozen=True)
class Packet:
    """One configuration packet: ``records`` are the unit's fields by name (a ROUTER has several).

    ``origin``: where the compiler says it comes from, such as ``conv1/pass0/column3/CONV_ARRAY``.
    """

    kind: Kind
    sub: int
    columns: tuple[int, ...]
    records: tuple[Mapping[str, int], ...]
    origin: str

    @property
    def label(self) -> str:
        """Pass that it belongs to: its origin without column and unit."""
        return self.origin.rsplit("/", 2)[0]


@dataclass(frozen=True, order=True)
class Hop:
    """A router output in use, of the tile at ``column``, ``row``; ``copies`` move together."""

    column: int
    row: int
    input: RouterIn
    output: RouterOut
    copies: int


@dataclass(frozen=True)
class Line:
    """A read port in use. ``listeners``: columns that take what it reads (multicast if several).

    For a READ_OPERAND, its own column; ``operand`` then says which tile takes it.
    """

    port: Kind
    column: int
    listeners: tuple[int, ...]
    operand: Operand | None = None


@dataclass(frozen=True)
class Plan:
    """All that one pass uses.

    Attributes
    ----------
    hops : router outputs, each once however many packets go there.
    lines : read ports with their listeners.
    writes : (column, WRITE.source) of the write ports.
    units : configuration of the last packet to each unit, by (kind, sub, column).
    """

    label: str
    grid: GridConfig
    hops: tuple[Hop, ...]
    lines: tuple[Line, ...]
    writes: tuple[tuple[int, int], ...]
    units: Mapping[tuple[Kind, int, int], Mapping[str, int]]


def packets(program: Program) -> Iterator[Packet]:
    """Yield the configuration packets of the device section in order, up to END.

    Raises ``ProgramError`` at an instruction that is illegal or cut short.
    """
    words = np.frombuffer(program.device[: len(program.device) // 4 * 4], "<u4").tolist()
    origins = dict(program.origins)
    at, origin = 0, ""
    while at < len(words):
        origin = origins.get(at, origin)
        head = layout.INSTRUCTION.unpack(words[at : at + 1])
        if head["opcode"] == Opcode.END:
            return
        end = at + 1 + head["length"]
        if head["opcode"] == Opcode.CONFIG and end <= len(words):
            yield _packet(head, words[at + 1 : end], origin)
        elif head["opcode"] != Opcode.FENCE:
            break
        at = end
    raise ProgramError(f"{program.name}: no instruction at program word {at}; compile it again")


def _packet(head: Mapping[str, int], payload: list[int], origin: str) -> Packet:
    kind = Kind(head["kind"])
    unit = layout.UNITS[kind]
    steps = range(0, len(payload), unit.words)
    records = tuple(unit.unpack(payload[at : at + unit.words]) for at in steps)
    return Packet(kind, head["sub"], _bits(head["columns"]), records, origin)


def _bits(mask: int) -> tuple[int, ...]:
    return tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def passes(program: Program) -> dict[str, tuple[Packet, ...]]:
    """Return the packets of each pass, by the pass's label, in order."""
    found: dict[str, list[Packet]] = {}
    for packet in packets(program):
        found.setdefault(packet.label, []).append(packet)
    return {label: tuple(group) for label, group in found.items()}


def config_words(group: tuple[Packet, ...]) -> int:
    """Words that a pass sends on the configuration bus, one a cycle."""
    return sum(len(packet.records) * layout.UNITS[packet.kind].words for packet in group)


def plan(program: Program, label: str) -> Plan:
    """Return what the pass ``label`` (a key of :func:`passes`) uses."""
    groups = passes(program)
    if label not in groups:
        raise ProgramError(f"no pass {label!r}; {program.name} has {', '.join(groups)}")
    hops: set[Hop] = set()
    lines: set[Line] = set()
    writes: set[tuple[int, int]] = set()
    units: dict[tuple[Kind, int, int], Mapping[str, int]] = {}
    for packet in groups[label]:
        for column in packet.columns:
            for record in packet.records:
                if packet.kind is Kind.ROUTER:
                    hops.add(_hop(column, packet.sub, record))
                    continue
                units[packet.kind, packet.sub, column] = record
                if packet.kind in READ_PORTS:
                    lines.add(_line(packet.kind, column, record))
                elif packet.kind is Kind.WRITE:
                    writes.add((column, record["source"]))
    ordered = sorted(lines, key=_line_order)
    return Plan(
        label, program.grid, tuple(sorted(hops)), tuple(ordered), tuple(sorted(writes)), units
    )


def _hop(column: int, row: int, record: Mapping[str, int]) -> Hop:
    copies = record["peers"].bit_count()
    return Hop(column, row, RouterIn(record["input"]), RouterOut(record["output"]), copies)


def _line(kind: Kind, column: int, record: Mapping[str, int]) -> Line:
    if kind is Kind.READ_OPERAND:
        return Line(kind, column, (column,), Operand(record["dest"]))
    return Line(kind, column, _bits(record["dest"]))


def _line_order(line: Line) -> tuple[int, ...]:
    return (line.port, line.column, -1 if line.operand is None else line.operand, *line.listeners)
