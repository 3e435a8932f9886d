"""The netlist that yosys hands back as RTLIL text: modules of wires, cells and instances.

:func:`parse` reads it, :func:`simplify` takes out second names, so that :mod:`neuflow.tidy` can
print it as Verilog. Only what the export meets is understood; anything else raises ``ValueError``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Chunk(NamedTuple):
    """Neighbouring bits ``low`` .. ``low + width - 1`` of a wire, or (no wire) a constant."""

    wire: str
    low: int
    width: int
    bits: str = ""
    """Of a constant, most significant first."""


Sig = tuple[Chunk, ...]
"""Chunks, most significant first."""

Bit = tuple[str, int]
"""Wire and index; wire "" for the constants 0 and 1."""


@dataclass
class Wire:
    """A wire, or the value of a register. ``low`` .. ``high`` are the bits that exist."""

    name: str
    high: int = 0
    low: int = 0
    port: str = ""
    """"input", "output" or "" where it is none."""
    order: int = 0
    """Of a port: its place in the list."""
    init: str = ""
    """Value at power-up, bits 0 and 1, most significant first; "" where there is none."""

    @property
    def width(self) -> int:
        """Bits that exist."""
        return self.high - self.low + 1


@dataclass
class Cell:
    """A cell of yosys (``kind`` begins with $) or an instance of a module."""

    kind: str
    name: str
    parameters: dict[str, int] = field(default_factory=dict)
    pins: dict[str, Sig] = field(default_factory=dict)

    @property
    def is_instance(self) -> bool:
        """Whether it is an instance of a module."""
        return not self.kind.startswith("$")

    @property
    def is_register(self) -> bool:
        """Whether it is a flip-flop."""
        return self.kind in REGISTERS

    def is_output(self, pin: str, modules: dict[str, Module]) -> bool:
        """Whether the cell drives what is connected to ``pin``."""
        if not self.is_instance:
            return pin in ("Y", "Q")
        module = modules.get(self.kind)
        if module is None:
            return pin in HANDWRITTEN_OUTPUTS[self.kind.removeprefix("\\")]
        return module.wires["\\" + pin].port == "output"


HANDWRITTEN_OUTPUTS = {
    "neuflow_ram": ("read_data",),
    "neuflow_clock_gate": ("gated",),
    "neuflow_slice": ("i__ready", "o__valid", "o__payload"),
}
"""Modules that are written by hand -> their outputs."""

REGISTERS = ("$dff", "$dffe", "$sdff", "$sdffe", "$sdffce")
"""Flip-flops; s: with a reset, which counts before the enable e, or (ce) under it."""


@dataclass
class Module:
    """A module; ``connects`` are (driven, driver)."""

    name: str
    wires: dict[str, Wire] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    connects: list[tuple[Sig, Sig]] = field(default_factory=list)


def size(sig: Sig) -> int:
    """Return the width of ``sig`` in bits."""
    return sum(chunk.width for chunk in sig)


def to_bits(sig: Sig) -> list[Bit]:
    """Return the bits of ``sig``, least significant first."""
    found: list[Bit] = []
    for chunk in reversed(sig):
        if chunk.wire:
            found += [(chunk.wire, chunk.low + i) for i in range(chunk.width)]
        else:
            found += [("", int(bit)) for bit in reversed(chunk.bits)]
    return found


def from_bits(bits: Iterable[Bit]) -> Sig:
    """Return the signal with these bits, least significant first, in as few chunks as there are.

    A bit that is there more than once stays apart from the next one: all of them are one replication.
    """
    chunks: list[Chunk] = []
    for wire, at in bits:
        last = chunks[-1] if chunks else None
        if last and not wire and not last.wire:
            chunks[-1] = Chunk("", 0, last.width + 1, str(at) + last.bits)
        elif last and wire == last.wire and last.low + last.width == at and chunks[-2:-1] != [last]:
            chunks[-1] = Chunk(wire, last.low, last.width + 1)
        else:
            chunks.append(Chunk(wire, at, 1) if wire else Chunk("", 0, 1, str(at)))
    return tuple(reversed(chunks))


# --- reading --------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[\\$]\S+|[{}]|\[\d+(?::\d+)?\]|[^\s\[\]{}]+")


def parse(text: str) -> list[Module]:
    """Return the modules of an RTLIL text. Attributes but ``init`` are dropped."""
    modules: list[Module] = []
    init, cell = "", None
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "module":
            modules.append(Module(rest))
        elif word == "attribute":
            name, _, value = rest.partition(" ")
            init = value if name == "\\init" else init
        elif word == "wire":
            wire = _wire(rest.split(), init)
            modules[-1].wires[wire.name] = wire
            init = ""
        elif word == "cell":
            kind, name = rest.split()
            cell = Cell(kind, name)
            modules[-1].cells.append(cell)
        elif word == "parameter" and cell:
            key, value = rest.split()[-2:]
            cell.parameters[key[1:]] = int(constant(value, 32), 2)
        elif word == "connect" and cell:
            pin, _, value = rest.partition(" ")
            cell.pins[pin[1:]] = _signal(_TOKEN.findall(value), modules[-1])
        elif word == "connect":
            modules[-1].connects.append(_pair(rest, modules[-1]))
        elif word == "end":
            cell = None
        elif word and word not in ("#", "autoidx"):
            raise ValueError(f"RTLIL that the export does not know: {line.strip()}")
    return modules


def _wire(words: list[str], init: str) -> Wire:
    wire = Wire(words.pop())
    options = iter(words)
    for option in options:
        if option == "width":
            wire.high = int(next(options)) - 1
        elif option in ("input", "output"):
            wire.port, wire.order = option, int(next(options))
        elif option != "signed":
            raise ValueError(f"RTLIL that the export does not know: wire {option}")
    wire.init = constant(init, wire.width) if init else ""
    return wire


def constant(text: str, width: int) -> str:
    """Return the bits of a constant as RTLIL prints it; undefined bits are 0."""
    head, quote, bits = text.partition("'")
    if not quote:
        return format(int(head) & ((1 << width) - 1), f"0{width}b")
    bits = bits * int(head) if len(bits) == 1 else bits  # yosys prints 8'x for 8'xxxxxxxx
    return re.sub("[^01]", "0", bits)


def _signal(tokens: list[str], module: Module) -> Sig:
    bits: list[Bit] = []
    for at in range(len(tokens) - 1, -1, -1):
        token = tokens[at]
        if token in "{}" or token[0] == "[":
            continue
        if token[0] not in "\\$":
            width = int(token.partition("'")[0]) if "'" in token else 32
            bits += [("", int(bit)) for bit in reversed(constant(token, width))]
            continue
        low, high = 0, module.wires[token].high
        if at + 1 < len(tokens) and tokens[at + 1][0] == "[":
            ends = tokens[at + 1][1:-1].split(":")
            low, high = int(ends[-1]), int(ends[0])
        bits += [(token, i) for i in range(low, high + 1)]
    return from_bits(bits)


def _pair(text: str, module: Module) -> tuple[Sig, Sig]:
    """Return both sides of a connection: each one signal, in braces where it has several chunks."""
    tokens = _TOKEN.findall(text)
    depth, end = 0, 0
    while end == 0 or depth:
        depth += {"{": 1, "}": -1}.get(tokens[end], 0)
        end += 1
    end += tokens[end][0] == "["
    return _signal(tokens[:end], module), _signal(tokens[end:], module)


# --- second names ---------------------------------------------------------------------------------


def simplify(module: Module, modules: dict[str, Module]) -> None:
    """Read every bit from where it is driven, and keep connections of output ports alone.

    Registers that share a wire with other drivers get a wire of their own: in Verilog a name is
    either assigned or clocked. So do bits that others of the same port repeat: tools take a vector
    that is assigned from itself for a loop.
    """
    _part_wires(module, modules)
    alias: dict[Bit, Bit] = {}
    for driven, driver in module.connects:
        pairs = zip(to_bits(driven), to_bits(driver), strict=True)
        alias |= {bit: other for bit, other in pairs if not module.wires[bit[0]].port}

    def origin(sig: Sig) -> Sig:
        found = []
        for bit in to_bits(sig):
            while bit in alias:
                bit = alias[bit]
            found.append(bit)
        return from_bits(found)

    for cell in module.cells:
        for pin, sig in cell.pins.items():
            if not cell.is_output(pin, modules):
                cell.pins[pin] = origin(sig)
    kept = []
    for driven, driver in module.connects:
        pairs = zip(to_bits(driven), to_bits(origin(driver)), strict=True)
        ports = [(bit, other) for bit, other in pairs if module.wires[bit[0]].port]
        if ports:
            left, right = zip(*ports, strict=True)
            kept.append((from_bits(left), from_bits(right)))
    module.connects = kept
    _fit(module)


def _part_wires(module: Module, modules: dict[str, Module]) -> None:
    clocked = {bit for cell in module.cells for bit in to_bits(cell.pins.get("Q", ()))}
    others = {bit for bit, cell in _driven(module, modules) if not (cell and cell.is_register)}
    mixed = {name for name, _ in clocked} & {name for name, _ in others}
    parted = {bit for bit in clocked if bit[0] in mixed}
    for driven, driver in module.connects:
        pairs = zip(to_bits(driven), to_bits(driver), strict=True)
        parted |= {b for a, b in pairs if a[0] == b[0] and module.wires[a[0]].port}
    moved: dict[Bit, Bit] = {}
    for name in sorted({name for name, _ in parted}):
        old = module.wires[name]
        new = Wire(f"{name}_q", old.high, old.low, init=old.init)
        module.wires[new.name] = new
        moved |= {(name, i): (new.name, i) for wire, i in parted if wire == name}
    if not moved:
        return
    for cell in module.cells:
        for pin, sig in cell.pins.items():
            cell.pins[pin] = from_bits(moved.get(bit, bit) for bit in to_bits(sig))
    module.connects = [
        (driven, from_bits(moved.get(bit, bit) for bit in to_bits(driver)))
        for driven, driver in module.connects
    ]
    ports = [bit for bit in sorted(moved) if module.wires[bit[0]].port]
    if ports:
        module.connects.append((from_bits(ports), from_bits(moved[bit] for bit in ports)))


def _driven(module: Module, modules: dict[str, Module]) -> Iterator[tuple[Bit, Cell | None]]:
    for cell in module.cells:
        for pin, sig in cell.pins.items():
            if cell.is_output(pin, modules):
                yield from ((bit, cell) for bit in to_bits(sig))
    for driven, _ in module.connects:
        yield from ((bit, None) for bit in to_bits(driven))


def _fit(module: Module) -> None:
    """Drop wires that are left over, and bits below and above those that are."""
    used: dict[str, list[int]] = {}
    sigs = [sig for cell in module.cells for sig in cell.pins.values()]
    for sig in sigs + [sig for pair in module.connects for sig in pair]:
        for name, at in to_bits(sig):
            used.setdefault(name, []).append(at)
    for name, wire in list(module.wires.items()):
        if wire.port:
            continue
        if name not in used:
            del module.wires[name]
            continue
        low, high = min(used[name]), max(used[name])
        if wire.init:
            wire.init = wire.init[wire.high - high : wire.high - low + 1]
        wire.low, wire.high = low, high
