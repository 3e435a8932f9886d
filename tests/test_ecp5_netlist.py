"""Moved gates, moved registers and copied drivers compute what the netlist of yosys computes."""

from __future__ import annotations

import copy
import random
import re
from collections import Counter
from typing import Any

import ecp5_netlist as ecp5
import pytest

Cells = dict[str, dict[str, Any]]
CLOCK = 2
INPUTS = range(10, 74)


class Simulator:
    """Cells of an ECP5, cycle by cycle; registers begin at 0."""

    def __init__(self, cells: Cells):
        self.cells = cells
        self.kept: dict[tuple[str, str], int] = {}

    def _bit(self, nets: dict[int, int], bits: list[Any]) -> int:
        return int(bits[0]) if isinstance(bits[0], str) else nets.get(bits[0], 0)

    def _word(self, nets: dict[int, int], name: str, operand: str) -> int:
        ports = self.cells[name]["connections"]
        word = sum(self._bit(nets, ports[f"{operand}{k}"]) << k for k in range(18))
        return word - (1 << 18) if word >> 17 else word

    def _product(self, nets: dict[int, int], name: str) -> int:
        """The product as it stands in front of an output register."""
        words = []
        for operand in "AB":
            inside = f"REG_INPUT{operand}_CLK" in self.cells[name]["parameters"]
            kept = self.kept.get((name, operand), 0)
            words.append(kept if inside else self._word(nets, name, operand))
        return words[0] * words[1]

    def _add(self, nets: dict[int, int], cell: dict[str, Any]) -> None:
        """A carry cell as Lattice's simulation model describes it."""
        ports = cell["connections"]
        carry = self._bit(nets, ports["CIN"])
        for k in "01":
            init = int(cell["parameters"][f"INIT{k}"], 2)
            at = sum(self._bit(nets, ports[f"{p}{k}"]) << n for n, p in enumerate("ABCD"))
            propagates, generates = init >> at & 1, init >> (at & 3) & 1
            nets[ports[f"S{k}"][0]] = propagates ^ carry
            carry = carry if propagates else generates
        nets[ports["COUT"][0]] = carry

    def _settle(self, nets: dict[int, int]) -> None:
        for _ in range(8):
            for name, cell in self.cells.items():
                ports = cell["connections"]
                if cell["type"] == "TRELLIS_FF":
                    nets[ports["Q"][0]] = self.kept.get((name, "Q"), 0)
                elif cell["type"] == "LUT4":
                    at = sum(self._bit(nets, ports[p]) << k for k, p in enumerate("ABCD"))
                    nets[ports["Z"][0]] = int(cell["parameters"]["INIT"], 2) >> at & 1
                elif cell["type"] == "CCU2C":
                    self._add(nets, cell)
                elif cell["type"] == "PFUMX":
                    half = "ALUT" if self._bit(nets, ports["C0"]) else "BLUT"
                    nets[ports["Z"][0]] = self._bit(nets, ports[half])
                else:
                    inside = "REG_OUTPUT_CLK" in cell["parameters"]
                    product = self.kept.get((name, "P"), 0) if inside else self._product(nets, name)
                    for k in range(36):
                        nets[ports[f"P{k}"][0]] = product >> k & 1

    def step(self, inputs: dict[int, int]) -> dict[int, int]:
        """Return all nets of this cycle, then go to the next."""
        nets = dict(inputs)
        self._settle(nets)
        after = dict(self.kept)
        for name, cell in self.cells.items():
            ports, parameters = cell["connections"], cell["parameters"]
            if cell["type"] == "TRELLIS_FF":
                if parameters["CEMUX"] == "1 " or self._bit(nets, ports["CE"]):
                    after[name, "Q"] = self._bit(nets, ports["DI"])
            for operand in "AB":
                if enable := parameters.get(f"REG_INPUT{operand}_CE"):
                    if self._bit(nets, ports[enable]):
                        after[name, operand] = self._word(nets, name, operand)
            if enable := parameters.get("REG_OUTPUT_CE"):
                if self._bit(nets, ports[enable]):
                    after[name, "P"] = self._product(nets, name)
        self.kept = after
        return nets


def cell(kind: str, parameters: dict[str, str] | None = None, **ports: Any) -> dict[str, Any]:
    outputs = {"Q", "Z", "S0", "S1", "COUT"} | {f"P{k}" for k in range(36)}
    return {
        "type": kind,
        "parameters": parameters or {},
        "attributes": {},
        "port_directions": {p: "output" if p in outputs else "input" for p in ports},
        "connections": {p: [net] for p, net in ports.items()},
    }


def register(d: Any, q: int, enable: int | None = None) -> dict[str, Any]:
    usual = {"CLKMUX": "CLK", "REGSET": "RESET", "LSRMUX": "LSR"}
    if enable is None:
        return cell("TRELLIS_FF", usual | {"CEMUX": "1 "}, CLK=CLOCK, DI=d, Q=q, LSR="0")
    return cell("TRELLIS_FF", usual | {"CEMUX": "CE"}, CLK=CLOCK, DI=d, Q=q, LSR="0", CE=enable)


GATES = {"and": 0x8, "and not": 0x2, "or": 0xE, "exclusive or": 0x6, "not": 0x5}
"""Truth tables of (x, y); the last of x alone."""


def adder(gate: int, minus: str, gated: str) -> Cells:
    """Two bits: 10, 11 plus or minus a gate of 20, 21 with 30; the gate at ``gated``."""
    cells: Cells = {}
    ports: dict[str, Any] = {"CIN": 40, "COUT": 102, "D0": "1", "D1": "1"}
    for k in (0, 1):
        init = "".join(str(gate >> (row & 3) & 1) for row in reversed(range(16)))
        cells[f"gate{k}"] = cell("LUT4", {"INIT": init}, A=20 + k, B=30, C="0", D="0", Z=90 + k)
        plain = "B" if gated == "A" else "A"
        ports |= {f"{gated}{k}": 90 + k, f"{plain}{k}": 10 + k, f"C{k}": minus, f"S{k}": 100 + k}
    cells["carry"] = cell("CCU2C", {"INIT0": ecp5.ADDS, "INIT1": ecp5.ADDS}, **ports)
    return cells


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("minus", "01")
@pytest.mark.parametrize("gated", "AB")
def test_gates_move_into_adders_and_sums_stay(gate: str, minus: str, gated: str) -> None:
    before = adder(GATES[gate], minus, gated)
    after = copy.deepcopy(before)
    assert ecp5.Adders(after).absorb() == 2 and list(after) == ["carry"]
    for seed in range(20):
        assert same(before, after, {100, 101, 102}, seed)
    # Seen by the comparison: another gate.
    init = after["carry"]["parameters"]["INIT1"]
    after["carry"]["parameters"]["INIT1"] = ("1" if init[0] == "0" else "0") + init[1:]
    assert not all(same(before, after, {100, 101, 102}, seed) for seed in range(20))


def test_a_gate_that_others_read_stays_outside_the_adder() -> None:
    before = adder(GATES["and"], "0", "B")
    before["spy"] = register(90, 5000)
    after = copy.deepcopy(before)
    assert ecp5.Adders(after).absorb() == 1 and "gate0" in after
    assert same(before, after, {100, 101, 102, 5000})


def row_of_multipliers(count: int) -> Cells:
    """Words with an enable times one weight; products in registers with another enable."""
    cells: Cells = {f"b{k}": register(30 + k, 1000 + k) for k in range(16)}
    for n in range(count):
        words = {}
        for k in range(18):
            words |= {f"A{k}": 2000 + 100 * n + min(k, 15), f"B{k}": 1000 + min(k, 15)}
        for k in range(16):
            cells[f"a{n}_{k}"] = register(10 + (k + n) % 16, 2000 + 100 * n + k, 50)
        products = {f"P{k}": 3000 + 100 * n + k for k in range(36)}
        cells[f"mult{n}"] = cell("MULT18X18D", **words, **products)
        for k in range(32):
            cells[f"p{n}_{k}"] = register(3000 + 100 * n + k, 4000 + 100 * n + k, 51)
    return cells


def same(before: Cells, after: Cells, nets: set[int], seed: int = 1) -> bool:
    """Whether ``nets`` are equal in every one of 60 random cycles."""
    dice = random.Random(seed)
    one, other = Simulator(before), Simulator(after)
    for _ in range(60):
        inputs = {net: dice.getrandbits(1) for net in INPUTS}
        a, b = one.step(inputs), other.step(inputs)
        if any(a[net] != b[net] for net in nets):
            return False
    return True


PRODUCTS = {4000 + 100 * n + k for n in range(4) for k in range(32)}


def test_registers_move_into_multipliers_and_products_stay() -> None:
    before = row_of_multipliers(4)
    after = copy.deepcopy(before)
    assert ecp5.Multipliers(after).absorb() == 4
    kinds = [c["type"] for c in after.values()]
    assert kinds == ["MULT18X18D"] * 4
    assert same(before, after, PRODUCTS)
    # Seen by the comparison: an enable that is not that of the register.
    after["mult2"]["connections"]["CE2"] = [50]
    assert not same(before, after, PRODUCTS)


def test_a_register_that_others_read_stays_beside_the_multiplier() -> None:
    before = row_of_multipliers(4)
    before["spy"] = register(2005, 5000)
    after = copy.deepcopy(before)
    assert ecp5.Multipliers(after).absorb() == 4
    assert "a0_5" in after and "a0_4" not in after
    assert same(before, after, PRODUCTS | {5000})


def test_a_product_that_others_read_stays_outside() -> None:
    before = row_of_multipliers(4)
    for n in range(4):
        before[f"spy{n}"] = register(3000 + 100 * n, 5000 + n)
    after = copy.deepcopy(before)
    assert ecp5.Multipliers(after).absorb() == 4
    assert "p0_0" in after and "a0_0" not in after
    assert same(before, after, PRODUCTS | {5000, 5003})


@pytest.mark.parametrize("what", [{"LSR": [60]}, {"CE": [52]}])
def test_registers_with_a_reset_or_unlike_enables_stay(what: dict[str, list[int]]) -> None:
    before = row_of_multipliers(4)
    for n in range(4):
        before[f"a{n}_3"]["connections"] |= what
    after = copy.deepcopy(before)
    ecp5.Multipliers(after).absorb()
    assert "a0_3" in after and "a0_4" in after and "b3" not in after


def test_few_multipliers_alike_are_left_alone() -> None:
    cells = row_of_multipliers(3)
    before = copy.deepcopy(cells)
    assert ecp5.Multipliers(cells).absorb() == 0 and cells == before


def busy(loads: int) -> Cells:
    """A register, a look-up table and a wide one, each with many loads."""
    cells: Cells = {"core.state": register(100, 101, 20)}
    inputs = {"A": 101, "B": 11, "C": 12, "D": 101}
    cells["core.lut"] = cell("LUT4", {"INIT": "0110100110010110"}, **inputs, Z=100)
    for half, net, init in (("a", 110, "1" * 8 + "0" * 8), ("b", 111, "01" * 8)):
        cells[f"core.half_{half}"] = cell("LUT4", {"INIT": init}, **inputs, Z=net)
    cells["core.wide"] = cell("PFUMX", ALUT=110, BLUT=111, C0=13, Z=112)
    for n in range(loads):
        cells[f"core.x{n}"] = register(101, 200 + n)
        cells[f"core.y{n}"] = register(14, 400 + n, 100)
        cells[f"core.z{n}"] = register(15, 600 + n, 112)
    return cells


def test_no_driver_keeps_more_loads_than_allowed_and_nothing_else_changes() -> None:
    before = busy(50)
    after = copy.deepcopy(before)
    copies = ecp5.Fanout(after).limit(8)
    kinds = [c["type"] for name, c in after.items() if "_copy" in name]
    assert kinds.count("TRELLIS_FF") + kinds.count("PFUMX") + kinds.count("LUT4") == len(kinds)
    assert copies > 15 and kinds.count("PFUMX") == 6
    _, loads = ecp5.nets_of(after)
    drivers = {c["connections"][ecp5.OUTPUTS[c["type"]]][0] for c in after.values()}
    counted = {net: [x for x in loads[net] if x[1] not in ecp5.NOT_COUNTED] for net in drivers}
    assert max(len(users) for users in counted.values()) <= 8
    results = {base + n for base in (200, 400, 600) for n in range(50)}
    assert same(before, after, results)
    name = next(name for name in after if name.startswith("core.wide_copy"))
    after[name]["connections"]["C0"] = ["0"]
    assert not same(before, after, results)


def test_loads_are_dealt_out_in_the_order_of_their_names() -> None:
    cells = busy(20)
    ecp5.Fanout(cells).limit(10)
    by_driver: dict[int, set[int]] = {}
    for n in range(20):
        by_driver.setdefault(cells[f"core.z{n}"]["connections"]["CE"][0], set()).add(n)
    assert sorted(map(sorted, by_driver.values())) == [list(range(10)), list(range(10, 20))]


def test_enables_of_multipliers_keep_one_driver() -> None:
    cells = row_of_multipliers(8)
    cells["enable"] = register(70, 51)
    ecp5.Multipliers(cells).absorb()
    for n in range(40):
        cells[f"other{n}"] = register(71, 6000 + n, 51)
    ecp5.Fanout(cells).limit(6)
    assert {cells[f"mult{n}"]["connections"]["CE2"][0] for n in range(8)} == {51}
    assert len({cells[f"other{n}"]["connections"]["CE"][0] for n in range(40)}) == 7


def convolver_rows(lanes: int, maps: int, banks: int) -> Cells:
    """Multipliers and row banks under the names that synthesis gives them, and one of each elsewhere."""
    cells: Cells = {}
    for n in range(lanes):
        for k in range(maps):
            name = f"core.array.column0_row0.convolver.array.map{k}.product{n}_TRELLIS_FF_Q_DI"
            cells[name] = cell("MULT18X18D")
    for n in range(banks):
        name = f"core.array.column0_row0.convolver.row_store.banks.bank{n}.memory.0.0"
        cells[name] = cell("DP16KD")
    cells["core.mapper.product0_TRELLIS_FF_Q_DI"] = cell("MULT18X18D")
    cells["core.control.fetcher.buffer.ram.memory.0.0"] = cell("DP16KD")
    return cells


def places(cells: Cells, kind: str, pattern: str) -> list[tuple[int, int]]:
    """Return row and column of every placed cell, in the order of their names."""
    found = []
    for name in sorted(cells, key=ecp5.natural):
        if cells[name]["type"] == kind and "BEL" in cells[name]["attributes"]:
            place = re.fullmatch(r"X(\d+)/Y(\d+)/(\w+)", cells[name]["attributes"]["BEL"])
            assert place and re.search(pattern, place[3])
            found.append((int(place[2]), int(place[1])))
    return found


def test_rows_of_the_convolver_are_spread_in_order() -> None:
    cells = convolver_rows(30, 2, 32)
    assert ecp5.place_rows(cells) == 92
    taken = [c["attributes"]["BEL"] for c in cells.values() if "BEL" in c["attributes"]]
    assert len(set(taken)) == len(taken) == 92
    banks = places(cells, "DP16KD", "EBR[0-3]")
    # To the right in one row, back in the other, in the middle of the device.
    assert Counter(row for row, _ in banks) == {46: 16, 22: 16}
    assert banks == sorted(banks[:16]) + sorted(banks[16:], reverse=True)
    assert all(31 <= column <= 93 for _, column in banks)
    multipliers = places(cells, "MULT18X18D", "MULT18_[0145]")
    assert Counter(row for row, _ in multipliers) == {34: 30, 58: 30}
    assert all(22 <= column <= 110 for _, column in multipliers)
    # Maps of a lane side by side (the second 30 are map 1), in one block or two neighbouring ones.
    pairs = zip(multipliers[:30], multipliers[30:], strict=True)
    assert all(a[0] == b[0] and abs(a[1] - b[1]) <= 9 for a, b in pairs)
    # To and fro: the last lane of a row lies beside the first of the next.
    assert abs(multipliers[14][1] - multipliers[15][1]) <= 9


def test_rows_that_would_be_too_full_get_no_places() -> None:
    cells = convolver_rows(53, 2, 1)
    assert ecp5.place_rows(cells) == 1
    assert not any(cells[n]["attributes"] for n in cells if "product" in n)
