"""Verilog expressions of a module's cells; what is used once is written where it is used.

Verilog computes the operands of an expression as wide as the widest of them, or as what they are
assigned to, and signed only if all of them are. A cell is therefore written inside another only
where that changes nothing: its text must be exactly as wide as its output (``Text.width``), or must
stand where that width is demanded anyway; else it stays a wire of its own.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from typing import NamedTuple

from neuflow.netlist import Cell, Chunk, Module, Sig, from_bits, size, to_bits


class Text(NamedTuple):
    """An expression: how strongly it binds, its own width, and where it may stand."""

    text: str
    binds: int
    width: int
    fixed: bool = False
    """It means the same wherever it stands."""
    signed: bool = False


ATOM, UNARY, TIMES, PLUS, SHIFT, LESS, EQUAL, AND, XOR, OR, CHOICE = range(10, -1, -1)
LOGIC = {"$and": ("&", AND), "$or": ("|", OR), "$xor": ("^", XOR)}
BINARY = {**LOGIC, "$add": ("+", PLUS), "$sub": ("-", PLUS), "$mul": ("*", TIMES)}
COMPARE = {
    "$eq": ("==", EQUAL), "$ne": ("!=", EQUAL),
    "$lt": ("<", LESS), "$le": ("<=", LESS), "$gt": (">", LESS), "$ge": (">=", LESS),
}  # fmt: skip
REDUCE = {"$reduce_or": "|", "$reduce_bool": "|", "$reduce_and": "&", "$reduce_xor": "^"}
SHIFTS = {"$shl": "<<", "$sshl": "<<", "$shr": ">>", "$sshr": ">>>", "$shift": ">>"}
UNARIES = {"$not": "~", "$neg": "-"}


def literal(bits: str) -> Text:
    """Return a constant, such as 10'h27f; without bits, 0."""
    return Text(f"{len(bits) or 1}'h{int(bits or '0', 2):x}", ATOM, len(bits) or 1, True)


def inside(value: Text, binds: int) -> str:
    """Return the text, in parentheses unless it binds more strongly than ``binds``."""
    return value.text if value.binds > binds else f"({value.text})"


class Expressions:
    """Writes what cells compute.

    ``seen``: the wires that were named so far; ``pending``: those among them that a cell drives
    which is still to be written.
    """

    def __init__(self, module: Module, names: dict[str, str]) -> None:
        self.module, self.names = module, names
        self.pending: list[str] = []
        self.seen: dict[str, None] = {}
        self._taken = frozenset(names.values())
        self._fresh = 0
        self.readers: dict[str, list[tuple[Cell | None, str]]] = defaultdict(list)
        whole: Counter[str] = Counter()
        part: Counter[str] = Counter()
        self.driver: dict[str, Cell] = {}
        for cell in module.cells:
            if not (cell.is_instance or cell.is_register):
                if (name := self.whole(cell.pins["Y"])) and not module.wires[name].port:
                    self.driver[name] = cell
            for pin, sig in cell.pins.items():
                if cell.is_instance or pin not in ("Y", "Q"):
                    self._count(sig, cell, pin, whole, part)
        for _, sig in module.connects:
            self._count(sig, None, "", whole, part)
        self.once = {name for name in self.driver if whole[name] == 1 and not part[name]}

    def _count(
        self, sig: Sig, cell: Cell | None, pin: str, whole: Counter[str], part: Counter[str]
    ) -> None:
        for chunk in sig:
            if chunk.wire:
                (whole if self.whole((chunk,)) else part)[chunk.wire] += 1
                self.readers[chunk.wire].append((cell, pin))

    def whole(self, sig: Sig) -> str:
        """Return the wire that ``sig`` is all of, else ""."""
        if len(sig) != 1 or not sig[0].wire:
            return ""
        wire = self.module.wires[sig[0].wire]
        return wire.name if (sig[0].low, sig[0].width) == (wire.low, wire.width) else ""

    # --- signals ----------------------------------------------------------------------------------

    def name(self, wire: str) -> str:
        """Return the Verilog name of a wire; one without a name of its own gets the next n<i>."""
        if wire not in self.names:
            self._fresh += 1
            while f"n{self._fresh}" in self._taken:
                self._fresh += 1
            self.names[wire] = f"n{self._fresh}"
        return self.names[wire]

    def chunk(self, chunk: Chunk) -> Text:
        """Return a constant, or a wire or some of its bits by name."""
        if not chunk.wire:
            return literal(chunk.bits)
        name, wire = self.name(chunk.wire), self.module.wires[chunk.wire]
        if chunk.wire not in self.seen:
            self.seen[chunk.wire] = None
            if chunk.wire in self.driver:
                self.pending.append(chunk.wire)
        high = chunk.low + chunk.width - 1
        if chunk.width == wire.width:
            select = ""
        else:
            select = f"[{high}]" if chunk.width == 1 else f"[{high}:{chunk.low}]"
        return Text(name + select, ATOM, chunk.width, True)

    def target(self, sig: Sig) -> str:
        """Return what to assign to."""
        parts = [self.chunk(chunk).text for chunk in sig]
        return parts[0] if len(parts) == 1 else f"{{{', '.join(parts)}}}"

    def value(self, sig: Sig) -> str:
        """Return the text of ``sig`` where it is assigned to a target of its width."""
        return self.signal(sig, size(sig), alone=True).text

    def signal(self, sig: Sig, context: int, alone: bool = False) -> Text:
        """Return the text of ``sig`` in a context of ``context`` bits; 0: its own width counts.

        ``alone``: it is all that is assigned, so that no operand beside it makes it unsigned.
        """
        if not sig:
            return literal("")
        name = self.whole(sig)
        if name in self.once:
            if folded := self._fold(name, size(sig), context, alone):
                return folded
        if len(sig) == 1:
            return self.chunk(sig[0])
        parts: list[str] = []
        for chunk, run in itertools.groupby(sig):
            text, times = self.signal((chunk,), 0).text, len(list(run))
            parts.append(f"{{{times}{{{text}}}}}" if times > 1 else text)
        whole = parts[0] if len(parts) == 1 else f"{{{', '.join(parts)}}}"
        return Text(whole, ATOM, size(sig), True)

    def _fold(self, name: str, width: int, context: int, alone: bool) -> Text | None:
        """Return the text of what drives ``name``, or None where it must be a wire."""
        before = len(self.pending), len(self.seen), len(self.names), self._fresh
        made = self.cell(self.driver[name])
        if made.width == width and made.fixed:
            return made
        if not made.signed:
            if (context or made.width) == width and made.width <= width:
                return made
            if made.width == width:
                return Text(f"{{{made.text}}}", ATOM, width, True)
        elif alone and made.width <= width:
            return made
        elif made.width == width:
            return Text(f"$unsigned({made.text})", ATOM, width, True)
        # Forget what was named on the way.
        del self.pending[before[0] :]
        while len(self.seen) > before[1]:
            self.seen.popitem()
        while len(self.names) > before[2]:
            self.names.popitem()
        self._fresh = before[3]
        return None

    # --- cells ------------------------------------------------------------------------------------

    def cell(self, cell: Cell) -> Text:
        """Return what ``cell`` computes, in a context as wide as its output."""
        width = size(cell.pins["Y"])
        kind = cell.kind
        if kind in BINARY:
            return self._binary(cell, width)
        if kind in COMPARE:
            return self._compare(cell)
        if kind in REDUCE or kind == "$logic_not":
            return self._reduce(cell)
        if kind in UNARIES:
            return self._unary(cell, width)
        if kind in SHIFTS:
            return self._shift(cell, width)
        if kind in ("$mux", "$pmux"):
            return self._choice(cell, width)
        raise ValueError(f"a cell that the export does not know: {kind}")

    def _signed(self, sig: Sig) -> str:
        return f"$signed({self.signal(sig, 0).text})"

    def _exact(self, sig: Sig, context: int) -> Text:
        """Return ``sig``, at most ``context`` bits, where nothing but operands demands a width."""
        return self.signal(sig, 0 if size(sig) == context else context)

    def _operands(self, cell: Cell, pins: str, width: int) -> list[Text]:
        """Return operands in a context of ``width`` bits, or of the widest, which is cut later."""
        sigs = [cell.pins[pin] for pin in pins]
        widest = max(map(size, sigs))
        if widest > width:
            return [self._exact(sig, widest) for sig in sigs]
        return [self.signal(sig, width) for sig in sigs]

    @staticmethod
    def _is_signed(cell: Cell) -> bool:
        given = {cell.parameters[name] for name in ("A_SIGNED", "B_SIGNED") if name in cell.parameters}
        if len(given) != 1:
            raise ValueError(f"operands signed and not: {cell.name}")
        return given == {1}

    def _binary(self, cell: Cell, width: int) -> Text:
        sign, binds = BINARY[cell.kind]
        a, b = cell.pins["A"], cell.pins["B"]
        if self._is_signed(cell) and min(size(a), size(b)) < width:
            text = f"{self._signed(a)} {sign} {self._signed(b)}"
            return Text(text, binds, max(size(a), size(b)), signed=True)
        left, right = self._operands(cell, "AB", width)
        same = binds - 1 if cell.kind in LOGIC else binds
        text = f"{inside(left, same)} {sign} {inside(right, binds)}"
        return Text(text, binds, max(left.width, right.width))

    def _compare(self, cell: Cell) -> Text:
        sign, binds = COMPARE[cell.kind]
        a, b = cell.pins["A"], cell.pins["B"]
        if self._is_signed(cell):
            return Text(f"{self._signed(a)} {sign} {self._signed(b)}", binds, 1, True)
        context = max(size(a), size(b))
        left, right = self._exact(a, context), self._exact(b, context)
        return Text(f"{inside(left, binds)} {sign} {inside(right, binds)}", binds, 1, True)

    def _reduce(self, cell: Cell) -> Text:
        sig = cell.pins["A"]
        sign = REDUCE.get(cell.kind, "!")
        if sign != "!" and len(sig) <= 3 and all(chunk.width == 1 for chunk in sig):
            parts = [self.signal((chunk,), 0) for chunk in sig]
            if len(parts) == 1:
                return parts[0]
            binds = {"|": OR, "&": AND, "^": XOR}[sign]
            text = f" {sign} ".join(inside(part, binds) for part in parts)
            return Text(text, binds, 1, all(part.fixed for part in parts))
        return Text(sign + inside(self.signal(sig, 0), UNARY), UNARY, 1, True)

    def _unary(self, cell: Cell, width: int) -> Text:
        sign, sig = UNARIES[cell.kind], cell.pins["A"]
        if self._is_signed(cell) and size(sig) < width:
            return Text(sign + self._signed(sig), UNARY, size(sig), signed=True)
        (operand,) = self._operands(cell, "A", width)
        return Text(sign + inside(operand, UNARY), UNARY, operand.width)

    def _shift(self, cell: Cell, width: int) -> Text:
        sign, sig = SHIFTS[cell.kind], cell.pins["A"]
        if cell.parameters["B_SIGNED"]:
            raise ValueError(f"a shift by a signed amount: {cell.name}")
        by = inside(self.signal(cell.pins["B"], 0), SHIFT)
        if cell.parameters["A_SIGNED"] and (sign == ">>>" or size(sig) < width):
            if sign == ">>":
                raise ValueError(f"a logical shift of a signed value: {cell.name}")
            return Text(f"{self._signed(sig)} {sign} {by}", SHIFT, size(sig), signed=True)
        if sign[0] == "<":
            (operand,) = self._operands(cell, "A", width)
        else:  # it brings down bits above those of the output
            operand = self._exact(sig, max(width, size(sig)))
        return Text(f"{inside(operand, SHIFT)} {sign[:2]} {by}", SHIFT, operand.width)

    def _choice(self, cell: Cell, width: int) -> Text:
        select, values = to_bits(cell.pins["S"]), to_bits(cell.pins["B"])
        text, own = "", 0
        for index, bit in enumerate(select):
            condition = inside(self.signal(from_bits([bit]), 0), CHOICE)
            value = self.signal(from_bits(values[index * width : (index + 1) * width]), width)
            text += f"{condition} ? {inside(value, CHOICE)} : "
            own = max(own, value.width)
        last = self.signal(cell.pins["A"], width)
        return Text(text + last.text, CHOICE, max(own, last.width))


KEYWORDS = frozenset(
    re.split(
        r"\s+",
        """accept_on alias always always_comb always_ff always_latch and assert assign assume automatic
        before begin bind bins binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle
        checker class clocking cmos config const constraint context continue cover covergroup
        coverpoint cross deassign default defparam design disable dist do edge else end endcase
        endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface
        endmodule endpackage endprimitive endprogram endproperty endsequence endspecify endtable
        endtask enum event eventually expect export extends extern final first_match for force
        foreach forever fork forkjoin function generate genvar global highz0 highz1 if iff ifnone
        ignore_bins illegal_bins implements implies import incdir include initial inout input inside
        instance int integer interconnect interface intersect join join_any join_none large let
        liblist library local localparam logic longint macromodule matches medium modport module
        nand negedge nettype new nexttime nmos nor noshowcancelled not notif0 notif1 null or output
        package packed parameter pmos posedge primitive priority program property protected pull0
        pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
        randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos
        rpmos rtran rtranif0 rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared
        sequence shortint shortreal showcancelled signed small soft solve specify specparam static
        string strong strong0 strong1 struct super supply0 supply1 sync_accept_on sync_reject_on
        table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri tri0
        tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped
        use uwire var vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard
        wire with within wor xnor xor""",
    )
)
"""Of Verilog and SystemVerilog: names that a wire must not have."""
