"""What a netlist of yosys for the ECP5 lacks: gates in adders, registers in multipliers, copies, places.

Commercial flows do all four by themselves, yosys and nextpnr none. They leave the function as it
is: a gate moves into the look-up table of the adder's bit it feeds, a register into the multiplier
it feeds or is fed by, a copy of a busy driver has the inputs of its original, and what makes up the
convolver's rows gets places in their order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

Cells = dict[str, dict[str, Any]]
Net = int | str
"""Number of a net, or a constant."""
Load = tuple[str, str, int]
"""Cell, port, bit of the port."""

CARRY = "CCU2C"
ADDS = "1001011010101010"
"""Look-up table of a carry cell's bit, from the last entry to the first: with D, A ^ B ^ C, else A."""

MULTIPLIER, MEMORY = "MULT18X18D", "DP16KD"
OPERANDS = {"A": 18, "B": 18}
PRODUCT_BITS = 36
ENABLES = {"INPUTA": "CE0", "INPUTB": "CE1", "OUTPUT": "CE2"}
"""Register of a multiplier -> the enable given to it."""

FEWEST_ALIKE = 4
"""The four multipliers of a DSP block share its enables, so small groups would waste places."""

OUTPUTS = {"LUT4": "Z", "TRELLIS_FF": "Q", "PFUMX": "Z"}
"""Cells that may be copied, with their output."""

NOT_COUNTED = {"CLK", "CLKA", "CLKB", "WCK", "CIN"}
"""Ports with wires of their own: clocks and carries."""


def natural(name: str) -> list[int | str]:
    """Return a key that sorts ``x10`` behind ``x9``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def nets_of(cells: Cells) -> tuple[dict[int, str], dict[int, list[Load]]]:
    """Return which cell drives a net, and what it feeds."""
    driver: dict[int, str] = {}
    loads: dict[int, list[Load]] = defaultdict(list)
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            for at, bit in enumerate(bits):
                if isinstance(bit, str):
                    continue
                if cell["port_directions"][port] == "output":
                    driver[bit] = name
                else:
                    loads[bit].append((name, port, at))
    return driver, loads


def plain_register(cell: dict[str, Any]) -> tuple[Net, Net] | None:
    """Return (clock, enable) of a register that is not reset, else None."""
    parameters, connections = cell["parameters"], cell["connections"]
    enable = {"1 ": "1", "CE": connections.get("CE", ["1"])[0]}.get(parameters.get("CEMUX", "1 "))
    usual = parameters.get("CLKMUX", "CLK") == "CLK" and parameters.get("REGSET") == "RESET"
    reset = connections.get("LSR", ["0"]) != ["0"]
    if cell["type"] != "TRELLIS_FF" or reset or enable is None or not usual:
        return None
    return connections["CLK"][0], enable


class Adders:
    """Carry cells of ``cells``, which :meth:`absorb` gives the gates in front of them.

    A bit of a CCU2C has a look-up table of A, B, C, D, its sum bit without the carry, and hands on
    as carry either the one it gets or a function of A and B alone, which yosys makes ``A``. It adds with
    ``A ^ B ^ C``, C a constant (1: subtract) and D = 1, so a gate of two inputs that feeds nothing
    else may be computed in there. Source: the simulation model of CCU2C in yosys.
    """

    def __init__(self, cells: Cells):
        self.cells = cells
        self.driver, self.loads = nets_of(cells)

    def absorb(self) -> int:
        """Move gates of one or two inputs and one load into carry cells; return how many."""
        names = [name for name, cell in self.cells.items() if cell["type"] == CARRY]
        return sum(self._absorb(name, bit) for name in names for bit in "01")

    def _absorb(self, name: str, bit: str) -> bool:
        cell = self.cells[name]
        ports, init = cell["connections"], f"INIT{bit}"
        minus = ports[f"C{bit}"][0]
        adds = cell["parameters"][init] == ADDS and ports[f"D{bit}"] == ["1"]
        if not adds or minus not in ("0", "1"):
            return False
        for gated, other in ("BA", "AB"):
            gate = self._gate(ports[f"{gated}{bit}"][0])
            if gate is None:
                continue
            driver, inputs, truth = gate
            low, high = [*inputs, "0"][:2]
            ports |= {
                f"A{bit}": ports[f"{other}{bit}"],
                f"B{bit}": [low],
                f"C{bit}": [high],
            }
            table = [a ^ int(minus) ^ truth[b + 2 * c] for c in (0, 1) for b in (0, 1) for a in (0, 1)]
            # Where the sum bit is 0 both sides are alike, and the side that stays is the carry.
            carry = "01" * 4 if gated == "A" and minus == "1" else ADDS[8:]
            cell["parameters"][init] = "".join(map(str, reversed(table))) + carry
            del self.cells[driver]
            return True
        return False

    def _gate(self, net: Net) -> tuple[str, list[int], list[int]] | None:
        """Return name, at most two inputs and truth table of a net's gate, if it may move."""
        name = "" if isinstance(net, str) else self.driver.get(net, "")
        cell = self.cells.get(name)
        if cell is None or cell["type"] != "LUT4" or len(self.loads[int(net)]) != 1:
            return None
        nets = [cell["connections"][port][0] for port in "ABCD"]
        inputs = sorted({n for n in nets if not isinstance(n, str)})
        if not 1 <= len(inputs) <= 2:
            return None
        init = int(cell["parameters"]["INIT"], 2)
        truth = []
        for row in range(4):
            value = {n: row >> k & 1 for k, n in enumerate(inputs)} | {"0": 0, "1": 1}
            truth.append(init >> sum(value[n] << k for k, n in enumerate(nets)) & 1)
        return name, inputs, truth


class Multipliers:
    """Registers around the multipliers of ``cells``, which :meth:`absorb` moves inside."""

    def __init__(self, cells: Cells):
        self.cells = cells
        self.driver, self.loads = nets_of(cells)
        self.moved: set[str] = set()  # operand registers; others may read them too

    def absorb(self) -> int:
        """Move operand and product registers into groups of like multipliers; return how many."""
        groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for name, cell in self.cells.items():
            if cell["type"] == MULTIPLIER:
                groups[tuple(self._around(name).items())].append(name)
        number = 0
        for around, names in groups.items():
            clocks = {control[0] for _, control in around}
            if len(names) >= FEWEST_ALIKE and len(clocks) == 1:
                for name in names:
                    self._absorb(name, dict(around))
                number += len(names)
        _, loads = nets_of(self.cells)
        for name in self.moved:
            if not loads[self.cells[name]["connections"]["Q"][0]]:
                del self.cells[name]
        return number

    def _around(self, name: str) -> dict[str, tuple[Net, Net]]:
        """Return register -> (clock, enable) of what might move into a multiplier."""
        bits = self.cells[name]["connections"]
        found: dict[str, tuple[Net, Net]] = {}
        for operand, width in OPERANDS.items():
            nets = {bits[f"{operand}{k}"][0] for k in range(width)}
            drivers = [self.driver.get(net, "") for net in nets if not isinstance(net, str)]
            self._enter(found, f"INPUT{operand}", drivers)
        products = [bits[f"P{k}"][0] for k in range(PRODUCT_BITS) if bits.get(f"P{k}")]
        users = [self.loads[net] for net in products if self.loads[net]]
        if all(len(user) == 1 and user[0][1] == "DI" for user in users):
            self._enter(found, "OUTPUT", [user[0][0] for user in users])
        return found

    def _enter(self, found: dict[str, tuple[Net, Net]], register: str, names: list[str]) -> None:
        """Note a register whose bits are all plain and have one clock and one enable."""
        controls = {plain_register(self.cells[n]) if n in self.cells else None for n in names}
        if len(controls) == 1 and (control := controls.pop()) is not None:
            found[register] = control

    def _absorb(self, name: str, around: dict[str, tuple[Net, Net]]) -> None:
        cell = self.cells[name]
        bits = cell["connections"]

        def connect(port: str, net: Net) -> None:
            bits[port], cell["port_directions"][port] = [net], "input"

        connect("RST0", "0")
        for register, (clock, enable) in around.items():
            connect("CLK0", clock)
            connect(ENABLES[register], enable)
            pins = {"CLK": "CLK0", "CE": ENABLES[register], "RST": "RST0"}
            cell["parameters"] |= {f"REG_{register}_{pin}": port for pin, port in pins.items()}
        for operand, width in OPERANDS.items():
            for port in (f"{operand}{k}" for k in range(width)):
                if f"INPUT{operand}" in around and not isinstance(bits[port][0], str):
                    register = self.driver[bits[port][0]]
                    self.moved.add(register)
                    bits[port] = [*self.cells[register]["connections"]["DI"]]
        if "OUTPUT" in around:
            for port in (f"P{k}" for k in range(PRODUCT_BITS)):
                users = self.loads[bits[port][0]] if bits.get(port) else []
                if users:
                    bits[port] = self.cells.pop(users[0][0])["connections"]["Q"]


BLOCKS = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
"""Columns of an ECP5-85F in which a block of four multipliers, or of four block RAMs, begins.
Source of all places here: the device database of nextpnr."""
DENSEST = 3 / 4
"""Part of a row's places that is given away: wires around a full row do not suffice."""


@dataclass(frozen=True)
class Sites:
    """Where cells of a type may lie: ``rows``, those in the middle first, ``blocks`` of a row, those
    in the middle, so that no wire crosses all the device, and in a block the column from the
    block's first -> the place's name."""

    rows: tuple[int, ...]
    blocks: tuple[int, ...]
    block: dict[int, str]

    def spread(self, number: int) -> list[str]:
        """Return ``number`` places over as few rows as ``DENSEST`` allows, to and fro; or none."""
        places: list[str] = []
        for turn, y in enumerate(self.rows):
            if number > DENSEST * len(places):
                row = [f"X{x + at}/Y{y}/{name}" for x in self.blocks for at, name in self.block.items()]
                places += row[:: -1 if turn % 2 else 1]
        if number > DENSEST * len(places):
            return []
        return [places[k * len(places) // number] for k in range(number)]


SITES = {
    MULTIPLIER: Sites(
        (34, 58, 10), BLOCKS[2:12], {0: "MULT18_0", 1: "MULT18_1", 4: "MULT18_4", 5: "MULT18_5"}
    ),
    MEMORY: Sites((46, 22, 70, 82), BLOCKS[3:10], {0: "EBR0", 2: "EBR1", 4: "EBR2", 6: "EBR3"}),
}
IN_ROWS = {
    MULTIPLIER: re.compile(r"\bmap(?P<second>\d+)\.product(?P<first>\d+)_"),
    MEMORY: re.compile(r"\brow_store\.banks\.bank(?P<first>\d+)\.memory\.(?P<second>\d+)"),
}
"""Cells of the convolver that get places: the multipliers lane by lane, the row buffer bank by bank."""


def place_rows(cells: Cells) -> int:
    """Give the convolver's multipliers and row banks places along the rows; return how many.

    The maps of a lane share its word and neighbouring lanes hand their sums on, so they lie side by
    side. nextpnr's placers fill one row of each and scatter the lanes over it.
    """
    number = 0
    for kind, sites in SITES.items():
        found = []
        for name, cell in cells.items():
            if cell["type"] == kind and (match := IN_ROWS[kind].search(name)):
                found.append((int(match["first"]), int(match["second"]), name))
        for (_, _, name), place in zip(sorted(found), sites.spread(len(found)), strict=False):
            cells[name]["attributes"]["BEL"] = place
            number += 1
    return number


class Fanout:
    """The nets of ``cells``, which :meth:`limit` changes in place."""

    def __init__(self, cells: Cells):
        self.cells = cells
        self.driver, every = nets_of(cells)
        self.loads = defaultdict(
            list,
            {net: [x for x in loads if x[1] not in NOT_COUNTED] for net, loads in every.items()},
        )
        self.next_net = 1 + max([*self.driver, *self.loads], default=0)

    def limit(self, most: int) -> int:
        """Copy drivers until none that may be copied has more than ``most`` loads; return copies.

        Loads are dealt out in the order of their names, so that those of one copy lie together. The
        enables of multipliers stay together, see ``FEWEST_ALIKE``.
        """
        copies = 0
        waiting = sorted(net for net, loads in self.loads.items() if len(loads) > most)
        while waiting:
            net = waiting.pop()
            name = self.driver.get(net, "")
            kept = [load for load in self.loads[net] if self._stays(load)]
            loads = [load for load in self.loads[net] if not self._stays(load)]
            if len(loads) <= most or not name or not self._may_copy(name):
                continue
            loads.sort(key=lambda load: (natural(load[0]), load[1], load[2]))
            parts = -(-len(loads) // most)
            size = -(-len(loads) // parts)
            self.loads[net] = kept + loads[:size]
            for start in range(size, len(loads), size):
                copies += 1
                self._move(loads[start : start + size], net, self._copy(name, copies))
            waiting += sorted(self._inputs(name))
        return copies

    def _stays(self, load: Load) -> bool:
        return self.cells[load[0]]["type"] == MULTIPLIER and load[1].startswith("CE")

    def _inputs(self, name: str) -> set[int]:
        cell = self.cells[name]
        return {
            bit
            for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "input"
            for bit in bits
            if not isinstance(bit, str)
        }

    def _halves(self, name: str) -> list[str]:
        """Return the look-up tables of a wide one, which go with it."""
        connections = self.cells[name]["connections"]
        return [self.driver.get(connections[port][0], "") for port in ("ALUT", "BLUT")]

    def _may_copy(self, name: str) -> bool:
        kind = self.cells[name]["type"]
        if kind == "PFUMX":
            return all(self.cells.get(h, {}).get("type") == "LUT4" for h in self._halves(name))
        return kind in OUTPUTS

    def _copy(self, name: str, number: int) -> int:
        """Copy a driver; return its new output."""
        cell = self.cells[name]
        connections = {port: list(bits) for port, bits in cell["connections"].items()}
        if cell["type"] == "PFUMX":
            for port, half in zip(("ALUT", "BLUT"), self._halves(name), strict=True):
                connections[port] = [self._copy(half, number)]
        net = self.next_net
        self.next_net += 1
        connections[OUTPUTS[cell["type"]]] = [net]
        copy = f"{name}_copy{number}"
        self.cells[copy] = {**cell, "connections": connections}
        self.driver[net] = copy
        for bit in self._inputs(copy):
            ports = [p for p, bits in connections.items() if bit in bits and p not in NOT_COUNTED]
            self.loads[bit] += [(copy, port, 0) for port in ports]
        return net

    def _move(self, loads: list[Load], before: int, after: int) -> None:
        """Give loads another driver."""
        for name, port, at in loads:
            bits = self.cells[name]["connections"][port]
            assert bits[at] == before
            bits[at] = after
        self.loads[after] = loads
