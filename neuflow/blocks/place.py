"""Placing parts: as submodules in the Python simulator, as instances of a module when exported.

Amaranth prints one Verilog module for every instance. For people who read the Verilog, each kind
of part is instead elaborated once, in a module of its own, and placed by ``Instance``.
``neuflow/verilog.py`` passes an :class:`ExportPlatform`, which collects the kinds it meets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Value
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


def place(m: Module, name: str, kind: str, component: Component, platform: Any) -> None:
    """Add ``component`` to ``m`` as ``name``; all components of one ``kind`` must be alike.

    Exported, the part becomes an instance of module ``neuflow_<kind>``. Its ports are driven and
    read through ``component`` in either case.
    """
    if not is_export(platform):
        m.submodules[name] = component
        return
    platform.kinds.setdefault(kind, component)
    component._MustUse__used = True  # only the first of a kind is elaborated
    ports = {
        ("i_" if flow == Flow.In else "o_") + port: value
        for port, flow, value in flat_ports(component)
    }
    m.submodules[name] = Instance(
        f"neuflow_{kind}", i_clk=ClockSignal(), i_rst=ResetSignal(), **ports
    )
