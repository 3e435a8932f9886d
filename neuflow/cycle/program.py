"""A device section as tables: what each word is, and the fields of all its packets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuflow.cycle.config_bus import DMA_ROW, NOBODY, bus_word
from neuflow.cycle.state import PACKET_FIELDS, ROUTER, UNIT_OF
from neuflow.layout import INSTRUCTION, UNITS, Kind, Opcode, Row
from neuflow.run.instructions import heads, unpack

_ROW_OF = {
    Kind.CONV_ROWS: Row.CONVOLVER, Kind.CONV_WEIGHTS: Row.CONVOLVER,
    Kind.CONV_ARRAY: Row.CONVOLVER, Kind.CONV_DRAIN: Row.CONVOLVER,
    Kind.ALU: Row.OPERATOR, Kind.WINDOW: Row.OPERATOR, Kind.MAPPER: Row.MAPPER,
}  # fmt: skip


@dataclass(frozen=True)
class Decoded:
    """A device section.

    ``code`` int64, its words up to the last that may run. ``bus[w]``: payload word w as the
    configuration bus carries it (``config_bus.WORD``, without ``last``). ``packets[p, f]``: field f of
    a packet's layout. Each word of a ROUTER packet is a row of its own, as a router takes each by
    itself. ``writes[c]``: WRITE packets of column c in a frame.
    """

    code: NDArray[np.int64]
    bus: NDArray[np.int64]
    packets: NDArray[np.int64]
    writes: NDArray[np.int64]


def decode(device: bytes, columns: int) -> Decoded:
    """Decode from the first word to END, or to the first word that is no instruction."""
    code = np.frombuffer(device, "<u4")
    at, end = heads(code)
    # Weights lie behind; they are many.
    code = code[:end].astype(np.int64)
    names = [field.name for field in INSTRUCTION.fields]
    fields = dict(zip(names, unpack(INSTRUCTION, code[at, None]).T, strict=True))
    config = (fields["opcode"] == Opcode.CONFIG) & (fields["length"] > 0)
    kind, sub, named, length = (
        fields[name][config] for name in ("kind", "sub", "columns", "length")
    )
    writes = (named[kind == Kind.WRITE, None] >> np.arange(columns) & 1).sum(axis=0)

    single = kind == Kind.ROUTER
    packet = np.repeat(np.arange(len(kind)), np.where(single, length, 1))
    first = at[config][packet] + 1 + _within(packet)
    words = np.clip(len(code) - first, 0, np.where(single, 1, length)[packet])
    table = np.stack([kind[packet], sub[packet], named[packet], first, words], axis=1)
    packets = _packets(code, table)
    word_packet = np.zeros(len(code), np.int64)
    number = np.repeat(np.arange(len(table)), words)
    word_packet[first[number] + _within(number)] = number
    bus = _bus_words(table, packets)[word_packet] if len(table) else word_packet
    return Decoded(code, bus, packets, writes)


def _within(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each entry among its equals, which lie side by side in order."""
    return np.arange(len(numbers)) - np.searchsorted(numbers, numbers)


def _bus_words(table: NDArray[np.int64], packets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what the bus carries for each packet."""
    unit, row = np.full(len(table), NOBODY), np.full(len(table), DMA_ROW)
    for (kind, sub), number in UNIT_OF.items():
        mine = (table[:, 0] == kind) & (table[:, 1] == sub)
        unit[mine] = number
        row[mine] = _ROW_OF.get(kind, DMA_ROW)
    mine = table[:, 0] == Kind.ROUTER
    unit[mine] = ROUTER
    row[mine] = table[mine, 1]
    words = bus_word("packet", np.arange(len(table))) | bus_word("unit", unit)
    words |= bus_word("row", row) | bus_word("columns", table[:, 2])
    for number, name in enumerate(("output", "input", "peers")):
        words[mine] |= bus_word(name, packets[mine, number])
    return words


def _packets(code: NDArray[np.int64], table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the fields of all packets; a packet that is too short is filled with zeros."""
    packets = np.zeros((len(table), PACKET_FIELDS), np.int64)
    for kind, layout in UNITS.items():
        mine = np.nonzero(table[:, 0] == kind)[0]
        at = table[mine, 3, None] + np.arange(layout.words)
        inside = (np.arange(layout.words) < table[mine, 4, None]) & (at < len(code))
        words = np.where(inside, code[np.minimum(at, len(code) - 1)], 0)
        fields = unpack(layout, words)[:, :PACKET_FIELDS]
        packets[mine, : fields.shape[1]] = fields
    return packets
