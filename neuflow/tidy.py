"""Print the netlist of an export as Verilog for people, and for simulators.

Registers of one clock and reset share a process, those of one enable a branch of it; what a cell
computes is written where it is used once (:mod:`neuflow.expressions`). What only the registers of
one branch need is computed in that branch, so that a simulator passes over it while the enable is
low: an idle unit costs next to nothing.
"""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from neuflow.expressions import KEYWORDS, Expressions, literal
from neuflow.netlist import Cell, Module, Sig, Wire, parse, simplify, size

COLUMNS = 100
RESET_UNDER_ENABLE = "$sdffce"
"""Its reset is printed as part of its next value."""


def print_verilog(rtlil: str) -> dict[str, str]:
    """Return the Verilog of every module of an RTLIL text: module name -> text."""
    modules = {module.name: module for module in parse(rtlil)}
    for module in modules.values():
        simplify(module, modules)
    names = {name: public_names(module) for name, module in modules.items()}
    return {
        name.removeprefix("\\"): Printer(module, modules, names).text()
        for name, module in modules.items()
    }


def public_names(module: Module) -> dict[str, str]:
    """Return wire -> Verilog name for those that people named, and for ports, which come first.

    A name is made of letters, digits and _; ``data$7`` becomes data_7, and a number is appended
    where a name is a keyword or taken.
    """
    names: dict[str, str] = {}
    taken = set(KEYWORDS)
    for wire in sorted(module.wires.values(), key=lambda wire: (not wire.port, wire.order)):
        if wire.name.startswith("$"):
            continue
        base = re.sub(r"\W+", "_", wire.name.replace("$", "_")).strip("_")
        base = base if base and not base[0].isdigit() else f"s{base}"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        names[wire.name] = name
    return names


class Branch(NamedTuple):
    """What decides whether a register takes its next value."""

    clock: Sig
    reset: Sig
    enable: Sig
    polarity: tuple[int, int, int]
    """Of clock, reset and enable: 1 where high, or rising."""


def branch_of(register: Cell) -> Branch:
    """Return the branch of a flip-flop."""
    pins, parameters = register.pins, register.parameters
    polarity = [parameters.get(f"{pin}_POLARITY", 1) for pin in ("CLK", "SRST", "EN")]
    reset, enable = pins.get("SRST", ()), pins.get("EN", ())
    if register.kind == RESET_UNDER_ENABLE:
        reset, polarity[1] = (), 1
    return Branch(pins["CLK"], reset, enable, (polarity[0], polarity[1], polarity[2]))


def escaped(name: str) -> str:
    """Return a module's name as Verilog writes it."""
    name = name.removeprefix("\\")
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else f"\\{name} "


def wrapped(line: str) -> str:
    """Return ``line`` with its end, broken at blanks where it is longer than ``COLUMNS``."""
    if len(line) <= COLUMNS:
        return f"{line}\n"
    indent = " " * (len(line) - len(line.lstrip()))
    lines = textwrap.wrap(
        line, COLUMNS, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) + "\n"


def together(indent: str, parts: Iterable[str]) -> str:
    """Return ``parts`` one behind the other, as many on a line as fit."""
    return wrapped(indent + " ".join(parts))


class Printer:
    """Prints one module."""

    def __init__(
        self, module: Module, modules: dict[str, Module], names: Mapping[str, dict[str, str]]
    ) -> None:
        self.module, self.modules, self.public = module, modules, names
        self.names = dict(names[module.name])
        self.write = Expressions(module, self.names)
        self.registers = {
            chunk.wire for cell in module.cells if cell.is_register for chunk in cell.pins["Q"]
        }
        self.steps: set[str] = set()
        self._branches: dict[str, Branch | None] = {}

    def text(self) -> str:
        """Return the text of the module."""
        instances = "".join(self._instance(cell) for cell in self.module.cells if cell.is_instance)
        processes = self._processes()
        assigns = "".join(self._assigns())
        return self._head() + self._declarations() + assigns + instances + processes + "endmodule\n"

    # --- declarations -----------------------------------------------------------------------------

    def _head(self) -> str:
        ports = sorted((w for w in self.module.wires.values() if w.port), key=lambda w: w.order)
        lines = []
        for wire in ports:
            kind = "reg" if wire.name in self.registers else "wire"
            lines.append(f"  {wire.port} {kind}{self._range(wire)} {self._declared(wire)}")
        return f"module {escaped(self.module.name)} (\n" + ",\n".join(lines) + "\n);\n"

    @staticmethod
    def _range(wire: Wire) -> str:
        return f" [{wire.high}:{wire.low}]" if wire.width > 1 else ""

    def _declared(self, wire: Wire) -> str:
        name = self.names[wire.name]
        is_set = wire.name in self.registers and wire.init
        return f"{name} = {literal(wire.init).text}" if is_set else name

    def _declarations(self) -> str:
        kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
        for wire in self.module.wires.values():
            if wire.port or wire.name not in self._used:
                continue
            kind = "reg" if wire.name in self.registers | self.steps else "wire"
            kinds[kind, self._range(wire)].append(self._declared(wire))
        return "".join(
            wrapped(f"  {kind}{width} {', '.join(names)};")
            for (kind, width), names in sorted(kinds.items())
        )

    @property
    def _used(self) -> set[str]:
        """Wires that the text names."""
        return self.registers | self.write.seen.keys()

    # --- what drives wires ------------------------------------------------------------------------

    def _assigns(self) -> list[str]:
        lines = []
        for driven, driver in self.module.connects:
            lines.append(wrapped(f"  assign {self.write.target(driven)} = {self.write.value(driver)};"))
        for cell in self.module.cells:
            if cell.is_instance or cell.is_register:
                continue
            if self.write.driver.get(self.write.whole(cell.pins["Y"])) is not cell:
                target = self.write.target(cell.pins["Y"])
                lines.append(wrapped(f"  assign {target} = {self.write.cell(cell).text};"))
        while self.write.pending:
            wire = self.write.pending.pop(0)
            text = self.write.cell(self.write.driver[wire]).text
            lines.append(wrapped(f"  assign {self.names[wire]} = {text};"))
        return lines

    def _instance(self, cell: Cell) -> str:
        given = ", ".join(f".{name}({value})" for name, value in cell.parameters.items())
        ports = self.public.get(cell.kind, {})
        pins = []
        for pin, sig in cell.pins.items():
            driven = cell.is_output(pin, self.modules)
            text = self.write.target(sig) if driven else self.write.signal(sig, 0).text
            pins.append(f".{ports.get(chr(92) + pin, pin)}({text})")
        head = f"{escaped(cell.kind)} {f'#({given}) ' if given else ''}{self._instance_name(cell)}"
        connected = f"{', '.join(pins)});"
        if len(line := f"  {head} ({connected}") <= COLUMNS:
            return f"{line}\n"
        return f"  {head} (\n{together('    ', [connected])}"

    def _instance_name(self, cell: Cell) -> str:
        base = name = re.sub(r"\W+", "_", cell.name).strip("_")
        number = 1
        while name in KEYWORDS or name in self.names.values():
            number += 1
            name = f"{base}_{number}"
        self.names[f"instance {cell.name}"] = name
        return name

    # --- registers --------------------------------------------------------------------------------

    def _processes(self) -> str:
        processes: dict[Branch, dict[Branch, list[Cell]]] = {}
        for cell in self.module.cells:
            if cell.is_register:
                branch = branch_of(cell)
                process = branch._replace(enable=(), polarity=(*branch.polarity[:2], 1))
                processes.setdefault(process, {}).setdefault(branch, []).append(cell)
        return "".join(self._process(*item) for item in processes.items())

    def _process(self, process: Branch, branches: dict[Branch, list[Cell]]) -> str:
        edge = "posedge" if process.polarity[0] else "negedge"
        lines = [f"  always @({edge} {self.write.target(process.clock)}) begin\n"]
        indent = "    "
        if process.reset:
            condition = self._condition(process.reset, process.polarity[1])
            lines.append(wrapped(f"    if ({condition}) begin"))
            resets = [
                f"{self.write.target(cell.pins['Q'])} <= {self._reset_value(cell)};"
                for cells in branches.values()
                for cell in cells
            ]
            lines += [together("      ", resets), "    end else begin\n"]
            indent = "      "
        for branch, cells in branches.items():
            lines.append(self._branch(branch, cells, indent))
        return "".join(lines) + ("    end\n" if process.reset else "") + "  end\n"

    @staticmethod
    def _reset_value(cell: Cell) -> str:
        width = size(cell.pins["Q"])
        return literal(format(cell.parameters["SRST_VALUE"], f"0{width}b")).text

    def _condition(self, sig: Sig, polarity: int) -> str:
        text = self.write.signal(sig, 0).text
        return text if polarity else f"!({text})"

    def _branch(self, branch: Branch, cells: list[Cell], indent: str) -> str:
        takes = [
            f"{self.write.target(cell.pins['Q'])} <= {self._next(cell)};" for cell in cells
        ]
        if not branch.enable:
            return "".join(wrapped(f"{indent}{take}") for take in takes)
        condition = self._condition(branch.enable, branch.polarity[2])
        statements = self._steps(branch) + takes
        if len(statements) == 1:
            return wrapped(f"{indent}if ({condition}) {statements[0]}")
        lines = [wrapped(f"{indent}  {statement}") for statement in statements]
        return wrapped(f"{indent}if ({condition}) begin") + "".join(lines) + f"{indent}end\n"

    def _next(self, cell: Cell) -> str:
        """Return what a register takes when it is enabled."""
        if cell.kind != RESET_UNDER_ENABLE:
            return self.write.value(cell.pins["D"])
        value = self.write.signal(cell.pins["D"], size(cell.pins["D"])).text
        reset = self._condition(cell.pins["SRST"], cell.parameters["SRST_POLARITY"])
        return f"({reset}) ? {self._reset_value(cell)} : {value}"

    def _steps(self, branch: Branch) -> list[str]:
        """Return assignments to the wires that ``branch`` alone needs, in an order that works."""
        texts: dict[str, str] = {}
        needs: dict[str, list[str]] = {}
        mine = self._take(branch, 0)
        roots = list(mine)
        while mine:
            wire = mine.pop(0)
            before = len(self.write.pending)
            texts[wire] = self.write.cell(self.write.driver[wire]).text
            mine += self._take(branch, before)
        found = {self.names[wire]: wire for wire in texts}
        for wire, text in texts.items():
            needs[wire] = [found[name] for name in re.findall(r"\w+", text) if name in found]
        self.steps |= set(texts)
        order: dict[str, None] = {}

        def visit(wire: str) -> None:
            if wire not in order:
                for need in needs[wire]:
                    visit(need)
                order[wire] = None

        for wire in [*roots, *texts]:
            visit(wire)
        return [f"{self.names[wire]} = {texts[wire]};" for wire in order]

    def _take(self, branch: Branch, first: int) -> list[str]:
        """Take from the pending wires those from ``first`` on that ``branch`` alone needs."""
        pending = self.write.pending
        mine = [wire for wire in pending[first:] if self._branch_of(wire) == branch]
        pending[first:] = [wire for wire in pending[first:] if wire not in set(mine)]
        return mine

    def _branch_of(self, wire: str) -> Branch | None:
        """Return the branch whose registers alone depend on ``wire``, None where there is none."""
        if wire not in self._branches:
            self._branches[wire] = None  # what is met again on the way depends on itself
            found = {self._branch_that_reads(*reader) for reader in self.write.readers[wire]}
            self._branches[wire] = found.pop() if len(found) == 1 else None
        return self._branches[wire]

    def _branch_that_reads(self, cell: Cell | None, pin: str) -> Branch | None:
        if cell is None or cell.is_instance:
            return None
        if cell.is_register:
            under = pin == "D" or (pin == "SRST" and cell.kind == RESET_UNDER_ENABLE)
            return branch_of(cell) if under and "EN" in cell.pins else None
        name = self.write.whole(cell.pins["Y"])
        return self._branch_of(name) if self.write.driver.get(name) is cell else None
