"""Print the netlist of an export as Verilog for people, and for simulators.

Registers of one clock share a process, in branches by enable (:mod:`neuflow.branches`), and their
reset comes last; what a cell computes is written where it is used once
(:mod:`neuflow.expressions`). What only the registers of one branch need is computed in that branch,
so that a simulator passes over it while the enable is low: an idle unit costs next to nothing.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping

from neuflow.branches import RESET_UNDER_ENABLE, Conditions, Literal, Node, common
from neuflow.expressions import KEYWORDS, Expressions, literal
from neuflow.netlist import Cell, Module, Sig, Wire, parse, simplify, size

COLUMNS = 100
_COPY = re.compile(r"\w+ <= [\w']+;")
"""Several of these stand on a line."""


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
        self._leaves: dict[str, Node] = {}
        self._tests: dict[str, list[Node | None]] = defaultdict(list)
        self._places: dict[str, Node | None] = {}

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
        return f"  {head} (\n{together('    ', [', '.join(pins)])}  );\n"

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
        clocks: dict[tuple[Sig, int], list[Cell]] = {}
        for cell in self.module.cells:
            if cell.is_register:
                clock = cell.pins["CLK"], cell.parameters.get("CLK_POLARITY", 1)
                clocks.setdefault(clock, []).append(cell)
        conditions = Conditions(self.write.driver)
        trees = [conditions.tree(cells) for cells in clocks.values()]
        for tree in trees:
            self._note(tree)
        return "".join(
            self._process(*clock, tree, cells)
            for (clock, cells), tree in zip(clocks.items(), trees, strict=True)
        )

    def _note(self, node: Node) -> None:
        """Note which node each register lies in, and where conditions are tested."""
        self._leaves |= {cell.name: node for cell in node.cells if node.parent}
        for inner in node.nodes:
            for condition in inner.conditions:
                self._tests[condition.bit[0]].append(node if node.parent else None)
            self._note(inner)

    def _process(self, clock: Sig, edge: int, tree: Node, cells: list[Cell]) -> str:
        edges = "posedge" if edge else "negedge"
        lines = [f"  always @({edges} {self.write.target(clock)}) begin\n"]
        lines += self._inside(tree, "    ")
        resets: dict[tuple[Sig, int], list[Cell]] = {}
        for cell in cells:
            if "SRST" in cell.pins and cell.kind != RESET_UNDER_ENABLE:
                reset = cell.pins["SRST"], cell.parameters.get("SRST_POLARITY", 1)
                resets.setdefault(reset, []).append(cell)
        for reset, those in resets.items():
            takes = [f"{self.write.target(c.pins['Q'])} <= {self._reset_value(c)};" for c in those]
            lines.append(wrapped(f"    if ({self._condition(*reset)}) begin"))
            lines += [together("      ", takes), "    end\n"]
        return "".join(lines) + "  end\n"

    @staticmethod
    def _reset_value(cell: Cell) -> str:
        width = size(cell.pins["Q"])
        return literal(format(cell.parameters["SRST_VALUE"], f"0{width}b")).text

    def _condition(self, sig: Sig, polarity: int) -> str:
        text = self.write.signal(sig, 0).text
        return text if polarity else f"!({text})"

    def _inside(self, node: Node, indent: str) -> list[str]:
        """Return what stands under the conditions of ``node``."""
        before = len(self.write.pending)
        takes = [f"{self.write.target(c.pins['Q'])} <= {self._next(c)};" for c in node.cells]
        inner = [line for child in node.nodes for line in self._branch(child, indent)]
        if node.parent:
            takes = self._steps(node, before) + takes
        lines: list[str] = []
        for plain, some in itertools.groupby(takes, lambda take: bool(_COPY.fullmatch(take))):
            texts = list(some)
            lines += [together(indent, texts)] if plain else [wrapped(indent + x) for x in texts]
        return lines + inner

    def _branch(self, node: Node, indent: str) -> list[str]:
        binds = 100 if len(node.conditions) > 1 else 0
        tests = [self._tested(condition, binds) for condition in node.conditions]
        head = f"{indent}if ({' && '.join(tests)})"
        lines = self._inside(node, f"{indent}  ")
        if len(lines) == 1 and lines[0].count("\n") == 1:
            return [wrapped(f"{head} {lines[0].strip()}")]
        return [wrapped(f"{head} begin"), *lines, f"{indent}end\n"]

    def _tested(self, condition: Literal, several: int) -> str:
        text = self._condition(condition.sig, condition.positive)
        return f"({text})" if several and not re.fullmatch(r"!?\(?\w+\)?", text) else text

    def _next(self, cell: Cell) -> str:
        """Return what a register takes when it is enabled."""
        value = self.write.value(cell.pins["D"])
        if cell.kind != RESET_UNDER_ENABLE:
            return value
        reset = self._condition(cell.pins["SRST"], cell.parameters["SRST_POLARITY"])
        return f"({reset}) ? {self._reset_value(cell)} : {value}"

    def _steps(self, node: Node, first: int) -> list[str]:
        """Return assignments to the wires that ``node`` alone needs, in an order that works."""
        texts: dict[str, str] = {}
        needs: dict[str, list[str]] = {}
        mine = self._take(node, first)
        roots = list(mine)
        while mine:
            wire = mine.pop(0)
            before = len(self.write.pending)
            texts[wire] = self.write.cell(self.write.driver[wire]).text
            mine += self._take(node, before)
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

    def _take(self, node: Node, first: int) -> list[str]:
        """Take from the pending wires those from ``first`` on that belong to ``node``."""
        pending = self.write.pending
        mine = [wire for wire in pending[first:] if self._place(wire) is node]
        taken = set(mine)
        pending[first:] = [wire for wire in pending[first:] if wire not in taken]
        return mine

    def _place(self, wire: str) -> Node | None:
        """Return the innermost node that holds all that depends on ``wire``; None: the module."""
        if wire not in self._places:
            self._places[wire] = None  # what is met again on the way depends on itself
            found = [place for reader in self.write.readers[wire] for place in self._reader(*reader)]
            found += self._tests[wire]
            place = found[0] if found else None
            for other in found[1:]:
                place = common(place, other)
            self._places[wire] = place if place and place.parent else None
        return self._places[wire]

    def _reader(self, cell: Cell | None, pin: str) -> list[Node | None]:
        """Return where a pin of ``cell`` is read; nowhere where nothing depends on it."""
        if cell is None or cell.is_instance:
            return [None]
        if cell.is_register:
            if pin == "EN":
                return []  # see _tests
            under = pin == "D" or (pin == "SRST" and cell.kind == RESET_UNDER_ENABLE)
            return [self._leaves.get(cell.name) if under else None]
        name = self.write.whole(cell.pins["Y"])
        if self.write.driver.get(name) is not cell:
            return [None]
        used = self.write.readers[name] or self._tests[name]
        return [self._place(name)] if used and self._is_used(name) else []

    def _is_used(self, wire: str) -> bool:
        """Whether anything but conditions that were taken apart reads ``wire``."""
        if self._tests[wire]:
            return True
        return any(
            cell is None
            or cell.is_instance
            or (pin != "EN" if cell.is_register else self._is_read(cell))
            for cell, pin in self.write.readers[wire]
        )

    def _is_read(self, cell: Cell) -> bool:
        name = self.write.whole(cell.pins["Y"])
        return self.write.driver.get(name) is not cell or self._is_used(name)
