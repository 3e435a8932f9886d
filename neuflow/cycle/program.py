"""A device section as tables: what each word is, and the fields of all its packets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuflow.cycle.config_bus import DMA_ROW, NOBODY, bus_word
from neuflow.cycle.state import PACKET_FIELDS, ROUTER, UNIT_OF
from neuflow.layout import INSTRUCTION, Kind, Opcode, Row
from neuflow.run.instructions import instructions, records

_KINDS, _SUBS = (1 << field.bits for field in INSTRUCTION.fields if field.name in ("kind", "sub"))

_UNIT = np.full((_KINDS, _SUBS), NOBODY)
"""Receiver of a kind and sub, as the bus names it."""
_UNIT[Kind.ROUTER] = ROUTER
for _names, _unit in UNIT_OF.items():
    _UNIT[_names] = _unit

_ROW = np.full(_KINDS, DMA_ROW)
"""Row of the tile that a kind of unit lies in."""
_ROW[[Kind.CONV_ROWS, Kind.CONV_WEIGHTS, Kind.CONV_ARRAY, Kind.CONV_DRAIN]] = Row.CONVOLVER
_ROW[[Kind.ALU, Kind.WINDOW]] = Row.OPERATOR
_ROW[Kind.MAPPER] = Row.MAPPER


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
    at, end, fields = instructions(code)
    # Weights lie behind; they are many.
    code = code[:end].astype(np.int64)
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
    packets = records(code, table[:, 0], first, words, PACKET_FIELDS)
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
    kind, sub, columns = table[:, :3].T
    router = kind == Kind.ROUTER
    words = bus_word("packet", np.arange(len(table))) | bus_word("unit", _UNIT[kind, sub])
    words |= bus_word("row", np.where(router, sub, _ROW[kind])) | bus_word("columns", columns)
    for number, name in enumerate(("output", "input", "peers")):
        words |= bus_word(name, np.where(router, packets[:, number], 0))
    return words
