"""Placing parts: as submodules in the Python simulator, as instances of a module when exported.

Amaranth prints one Verilog module for every instance. For people who read the Verilog, each kind
of part is instead elaborated once, in a module of its own, and placed by ``Instance``.
``neuflow/verilog.py`` passes an :class:`ExportPlatform`, which collects the kinds it meets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from amaranth.hdl import ClockSignal, EnableInserter, Instance, Module, ResetSignal, Signal, Value
from amaranth.lib.wiring import Component, Flow


@dataclass
class ExportPlatform:
    """Passed to ``elaborate`` by the Verilog export. ``kinds``: module name -> component."""

    kinds: dict[str, Component] = field(default_factory=dict)


def is_export(platform: Any) -> bool:
    """Whether ``elaborate`` runs for the Verilog export."""
    return isinstance(platform, ExportPlatform)


def flat_ports(component: Component) -> list[tuple[str, Flow, Value]]:
    """Return (Verilog name, direction, value) of every port, as the export names them."""
    return [
        ("__".join(str(part) for part in path), member.flow, Value.cast(value))
        for path, member, value in component.signature.flatten(component)
    ]


def gated_clock(m: Module, name: str, awake: Value) -> Signal:
    """Place a clock gate (see ``neuflow.blocks.gate``) and return the clock behind it."""
    clock = Signal(name=f"{name}_clk")
    m.submodules[f"{name}_gate"] = Instance(
        "neuflow_clock_gate", i_clk=ClockSignal(), i_rst=ResetSignal(), i_awake=awake, o_gated=clock
    )
    return clock


def place(m: Module, name: str, kind: str, component: Component, platform: Any) -> None:
    """Add ``component`` to ``m`` as ``name``; all components of one ``kind`` must be alike.

    Exported, the part becomes an instance of module ``neuflow_<kind>``. Its ports are driven and
    read through ``component`` in either case. A part with a port ``awake`` stands behind a clock gate.
    """
    sleeps = "awake" in component.signature.members
    if is_export(platform):
        clock = gated_clock(m, name, component.awake) if sleeps else ClockSignal()
        place_instance(m, name, kind, component, platform, clock)
    else:
        m.submodules[name] = EnableInserter(component.awake)(component) if sleeps else component


def place_instance(
    m: Module, name: str, kind: str, component: Component, platform: ExportPlatform, clock: Value
) -> None:
    """Add ``component`` to ``m`` as an instance of module ``neuflow_<kind>`` with such a clock."""
    platform.kinds.setdefault(kind, component)
    component._MustUse__used = True  # only the first of a kind is elaborated
    ports = {
        ("i_" if flow == Flow.In else "o_") + port: value
        for port, flow, value in flat_ports(component)
    }
    m.submodules[name] = Instance(f"neuflow_{kind}", i_clk=clock, i_rst=ResetSignal(), **ports)
