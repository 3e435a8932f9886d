"""The row buffer's memories, and where words lie in them.

``row_banks`` memories one word wide let the array read any ``pixels`` consecutive words in one
cycle, and the rows input store a whole beat.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.choose import select
from neuflow.blocks.convolver_model import ROW_ENDS
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS
from neuflow.grid import GridConfig
from neuflow.layout import ROW_ADDRESS


def bank_address(grid: GridConfig) -> data.StructLayout:
    """Return the layout of an access to consecutive words: banks from ``rotate`` on use row
    ``row``, those below it row ``wrapped``.
    """
    rows = ceil_log2(grid.row_words // grid.row_banks)
    return data.StructLayout(
        {"rotate": unsigned(ceil_log2(grid.row_banks)), "row": unsigned(rows), "wrapped": unsigned(rows)}
    )


def read_address(grid: GridConfig) -> data.StructLayout:
    """Return the layout of a reading of a word a bank: bank b uses row ``rows[n]``, where bit b of
    ``which[k]`` is bit k of n. So it is chosen in one look-up table a bit.
    """
    rows = bank_address(grid).members["row"]
    number = ROW_ENDS + 2
    return data.StructLayout(
        {
            "which": data.ArrayLayout(unsigned(grid.row_banks), ceil_log2(number)),
            "rows": data.ArrayLayout(rows, number),
        }
    )


def write_address(grid: GridConfig) -> data.StructLayout:
    """Return the layout of a writing. Banks come in blocks of a beat, even and odd ones: bank n of
    block k uses row ``row[k mod 2]`` where bit n of ``first`` is 1, else ``far[k mod 2]``.
    """
    rows = data.ArrayLayout(bank_address(grid).members["row"], 2)
    return data.StructLayout({"first": unsigned(grid.bus_words), "row": rows, "far": rows})


def banks_before(grid: GridConfig, bank):
    """Return a bit for each bank: it lies before ``bank``. One gate each, once for all its rows."""
    return before(grid.row_banks, bank)


def before(places: int, place):
    """Return a bit for each of so many places: it lies before ``place``."""
    return ~(Const((1 << places) - 1, places) << place)[:places]


def advance(m: Module, name: str, value, step, step_less_ring, wraps):
    """Return ``(value + step) mod ring`` for ``value, step < ring``; no modulo where ``wraps`` is 0.

    ``step_less_ring``: step - ring, so that both sums are made at once.
    """
    plain, wrapped = (Signal(ROW_ADDRESS, name=f"{name}_{n}") for n in ("plain", "wrapped"))
    beyond = Signal(signed(ROW_ADDRESS + 2), name=f"{name}_beyond")
    m.d.comb += [
        plain.eq(value + step),
        beyond.eq(value + step_less_ring),
        wrapped.eq(Mux(wraps & (beyond >= 0), beyond, plain)),
    ]
    return wrapped


class Locator(Component):
    """Where an access to consecutive words lies in the banks.

    Members: ``linear`` In: beginning of the ring, ``position`` In: the first word's place in it,
    ``ring`` In: its length, 0 if it never wraps (all words; constant for a pass, valid one cycle
    before); ``where`` Out, ``LATENCY`` cycles later, and ``turn`` Out, its ``rotate`` one cycle sooner.
    """

    LATENCY = 2

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "linear": In(ceil_log2(grid.row_words)),
                "position": In(ROW_ADDRESS),
                "ring": In(ROW_ADDRESS),
                "where": Out(bank_address(grid)),
                "turn": Out(ceil_log2(grid.row_banks)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bank_bits = ceil_log2(self.grid.row_banks)
        wraps = Signal()
        ring_less = Signal.like(self.linear)
        address = Signal.like(self.linear)
        last = Signal.like(self.linear)
        base = Signal(len(self.where.row))
        row = address[bank_bits:]
        m.d.comb += self.turn.eq(address)
        m.d.sync += [
            wraps.eq(self.ring != 0),
            ring_less.eq(self.ring - self.grid.row_banks),
            address.eq(self.linear + self.position),
            last.eq(self.linear + ring_less),  # in the last row of the ring
            base.eq(self.linear[bank_bits:]),
            self.where.rotate.eq(address[:bank_bits]),
            self.where.row.eq(row),
            self.where.wrapped.eq(Mux(wraps & (row == last[bank_bits:]), base, row + 1)),
        ]
        return m


class RowBanks(Component):
    """The memories: one write of ``bus_words`` neighbouring words, one read of a word a bank.

    Members: ``enables`` In, one a bank, ``at`` In, ``beat`` In: words as they lie in the banks,
    repeated; ``read``, ``read_enable`` In, ``words`` Out one cycle later; ``awake`` Out.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "enables": In(grid.row_banks),
                "at": In(write_address(grid)),
                "beat": In(grid.bus_bits),
                "read": In(read_address(grid)),
                "read_enable": In(1),
                "words": Out(data.ArrayLayout(signed(WORD_BITS), grid.row_banks)),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        banks, at, read = self.grid.row_banks, self.at, self.read
        m.d.comb += self.awake.eq(self.read_enable | self.enables.any())
        for bank in range(banks):
            block, place = divmod(bank, self.grid.bus_words)
            odd = block % 2
            ram = Ram(WORD_BITS, self.grid.row_words // banks)
            which = Cat(bits[bank] for bits in read.which)
            m.submodules[f"bank{bank}"] = ram
            m.d.comb += [
                ram.write_enable.eq(self.enables[bank]),
                ram.write_address.eq(Mux(at.first[place], at.row[odd], at.far[odd])),
                ram.write_data.eq(self.beat.word_select(place, WORD_BITS)),
                ram.read_enable.eq(self.read_enable),
                ram.read_address.eq(select(list(read.rows), which)),
                self.words[bank].eq(ram.read_data),
            ]
        return m
