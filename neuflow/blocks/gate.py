"""Clock gates: a part says when its state may change, and its clock stands still otherwise.

A part with a port ``awake`` may be placed behind a gate. While ``awake`` is 0 an edge of the clock would
change nothing that anyone can see; so it is left out on silicon, where it costs power, and in
simulators, where it costs time. FPGAs let it pass (``rtl/neuflow_clock_gate.v``): both behave alike,
and the Python simulator always leaves it out, so that every test of a part shows a wrong ``awake``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import (
    Cat,
    ClockDomain,
    DomainRenamer,
    EnableInserter,
    Module,
    ResetSignal,
    Signal,
    Value,
)

from neuflow.blocks.place import gated_clock, is_export, place_instance


def fires(*streams: Any) -> Value:
    """Return whether a beat passes in any of the streams."""
    return Cat(*(stream.valid & stream.ready for stream in streams)).any()


def stay_awake(m: Module, awake: Signal, *causes: Any, settle: int) -> None:
    """Drive ``awake``: while one of ``causes`` holds and ``settle`` cycles longer.

    ``causes`` cover what changes by itself; ``settle`` counts the registers one behind the other that
    only follow those changes. After a reset, too, they settle.
    """
    active, left = Signal(name="stirs"), Signal(range(settle + 1), init=settle, name="settling")
    m.d.comb += [active.eq(Cat(*causes).any()), awake.eq(active | (left != 0))]
    with m.If(active):
        m.d.sync += left.eq(settle)
    with m.Elif(left != 0):
        m.d.sync += left.eq(left - 1)


def add_gated(m: Module, name: str, part: Any, platform: Any) -> None:
    """Add ``part``, which has ``awake``, to ``m`` behind a clock gate."""
    share_gate(m, name, {name: part}, platform)


def share_gate(
    m: Module, name: str, parts: Mapping[str, Any], platform: Any, kind: str = ""
) -> None:
    """Add ``parts``, which have ``awake``, to ``m`` behind one clock gate, open while any is awake.

    For small parts: a gate costs a simulator more than a cycle of theirs. The Python simulator leaves
    out the edges of each by itself. ``kind``: that of all parts, if they are placed (see ``place``).
    """
    if not is_export(platform):
        for part_name, part in parts.items():
            m.submodules[part_name] = EnableInserter(part.awake)(part)
        return
    awake = Cat(part.awake for part in parts.values()).any()
    if kind:
        clock = gated_clock(m, name, awake)
        for part_name, part in parts.items():
            place_instance(m, part_name, kind, part, platform, clock)
        return
    domain = _add_domain(m, f"{name}_gated", name, awake)
    for part_name, part in parts.items():
        m.submodules[part_name] = DomainRenamer(domain)(part)


def gate_registers(m: Module, domain: str, awake: Value, platform: Any) -> Any:
    """Return ``m`` with its registers of ``domain`` behind a clock gate, open while ``awake`` is 1.

    For what is seldom at work in a part: unlike a part of its own it needs no ports.
    """
    if not is_export(platform):
        return DomainRenamer({domain: "sync"})(EnableInserter({domain: awake})(m))
    _add_domain(m, domain, domain, awake)
    return m


def _add_domain(m: Module, name: str, gate: str, awake: Value) -> str:
    """Add a clock domain to ``m`` behind a gate that is open while ``awake`` is 1; return its name."""
    domain = ClockDomain(name, local=True)
    m.domains += domain
    m.d.comb += [domain.clk.eq(gated_clock(m, gate, awake)), domain.rst.eq(ResetSignal())]
    return name


__all__ = ["add_gated", "fires", "gate_registers", "share_gate", "stay_awake"]
