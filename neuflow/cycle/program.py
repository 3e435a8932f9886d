"""A device section as tables: what each word is, and the fields of all its packets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuflow.cycle.config_bus import DMA_ROW, NOBODY, bus_word
from neuflow.cycle.state import PACKET_FIELDS, ROUTER, UNIT_OF
from neuflow.layout import CONFIG_BITS, UNITS, Kind, Layout, Opcode, Row

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
    found: list[tuple[int, ...]] = []  # kind, sub, columns, first word, words
    writes = np.zeros(columns, np.int64)
    pc = 0
    while pc < len(code):
        word = int(code[pc])
        opcode, kind, sub = word & 15, word >> 4 & 15, word >> 8 & 15
        named, length = word >> 12 & 0xFF, word >> 20 & 0xFF
        pc += 1
        if opcode == Opcode.CONFIG and length:
            single = kind == Kind.ROUTER
            for first in range(pc, pc + length, 1 if single else length):
                words = min(1 if single else length, len(code) - first)
                found.append((kind, sub, named, first, words))
            if kind == Kind.WRITE:
                writes += named >> np.arange(columns) & 1
            pc += length
        elif opcode == Opcode.END:
            pc += 2
            break
        elif opcode != Opcode.FENCE:
            break
    # Weights lie behind; they are many.
    code = code[:pc].astype(np.int64)
    word_packet = np.zeros(len(code), np.int64)
    for number, (_, _, _, first, words) in enumerate(found):
        word_packet[first : first + words] = number
    table = np.array(found, np.int64).reshape(-1, 5)
    packets = _packets(code, table)
    bus = _bus_words(table, packets)[word_packet] if found else word_packet
    return Decoded(code, bus, packets, writes)


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


def unpack(layout: Layout, words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the fields of records, int64 [n, fields], from their words, int64 [n, words]."""
    padded = np.concatenate([words, np.zeros((len(words), 1), np.int64)], axis=1)
    fields = np.empty((len(words), len(layout.fields)), np.int64)
    offset = 0
    for number, field in enumerate(layout.fields):
        word, bit = divmod(offset, CONFIG_BITS)
        # No field is wider than a word, so two words hold it; 62 bits at most come out.
        low = padded[:, word] >> bit
        high = padded[:, word + 1] << (CONFIG_BITS - bit) if bit else 0
        value = (low | high) & ((1 << field.bits) - 1)
        if field.signed:
            value -= (value >> (field.bits - 1)) << field.bits
        fields[:, number] = value
        offset += field.bits
    return fields
