"""Verilog of a grid: one module per kind of part, the wrapper, and the tables that go with them.

The only importer of ``amaranth.back.verilog``. The text depends on the grid's parameters alone:
same bytes for every run, every hash seed and every directory.
"""

from __future__ import annotations

import gc
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuflow import files, layout
from neuflow.grid import GridConfig
from neuflow.tidy import drop_unread

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

    from neuflow.blocks.place import ExportPlatform

# The yosys of the wheel, not one that this machine happens to have: the text must not depend on it.
os.environ["AMARANTH_USE_YOSYS"] = "builtin"

CORE = "neuflow_core"
"""Module that holds the whole grid; ``neuflow_top`` wraps it with clean port names."""

HANDWRITTEN = ("neuflow_ram.v", "neuflow_top.v")
"""Files of ``rtl/`` that go along as they are."""


def export(component: Component, name: str) -> dict[str, str]:
    """Return Verilog of ``component`` as module ``name``, and of every kind of part it places.

    Parameters
    ----------
    component : any Amaranth component; it must not have been elaborated before.
    name : name of its module.

    Returns
    -------
    Module name -> Verilog text. Each kind is printed once, however often it is placed.
    """
    from amaranth.hdl import UnusedElaboratable

    with warnings.catch_warnings():
        # Of the parts of a kind only the first is elaborated; the others lend their ports alone.
        warnings.simplefilter("ignore", UnusedElaboratable)
        texts = _export(component, name)
        gc.collect()
    return texts


def _export(component: Component, name: str) -> dict[str, str]:
    from neuflow.blocks.place import ExportPlatform

    pending: dict[str, Any] = {name: component}
    done: dict[str, str] = {}
    while pending:
        module, part = pending.popitem()
        platform = ExportPlatform()
        done[module] = _convert(part, module, platform)
        for kind, found in platform.kinds.items():
            if f"neuflow_{kind}" not in done:
                pending.setdefault(f"neuflow_{kind}", found)
    return dict(sorted(done.items()))


def _convert(component: Component, name: str, platform: ExportPlatform) -> str:
    """Print one module; it has ports ``clk`` and ``rst`` even where nothing in it is clocked."""
    from amaranth.back import verilog
    from amaranth.hdl import ClockDomain, Fragment
    from amaranth.hdl._ir import PortDirection
    from amaranth.lib.wiring import Flow

    from neuflow.blocks.place import flat_ports

    sync: Any = ClockDomain("sync")
    fragment = Fragment.get(component, platform)
    fragment.add_domains(sync)
    ports: dict[str, Any] = {
        "clk": (sync.clk, PortDirection.Input), "rst": (sync.rst, PortDirection.Input)
    }  # fmt: skip
    for port, flow, value in flat_ports(component):
        direction = PortDirection.Input if flow == Flow.In else PortDirection.Output
        ports[port] = (value, direction)
    text, _ = verilog.convert_fragment(
        fragment, ports, name, emit_src=False, strip_internal_attrs=True
    )
    return drop_unread(str(text))


def generate(grid: GridConfig, top: Component | None = None) -> dict[str, str]:
    """Return all files an FPGA engineer takes for ``grid``: file name -> text.

    ``top``: another component with the ports of ``blocks.top.Top``, for tests.

    ``*.v`` in the order of ``files.f``, ``lint.vlt`` (waivers), ``registers.json``,
    ``neuflow_registers.h`` (C), ``layouts.md`` and ``grid.json`` (parameters and their hash).
    """
    from neuflow.blocks.top import Top

    parts = export(Top(grid) if top is None else top, CORE)
    sources = {f"{name}.v": text for name, text in parts.items()}
    sources |= {name: files.read_text(f"rtl/{name}") for name in HANDWRITTEN}
    sources["neuflow_top.v"] = with_parameters(sources["neuflow_top.v"], grid)
    order = sorted(sources, key=lambda name: (name == "neuflow_top.v", name))
    return {
        **{name: sources[name] for name in order},
        "files.f": "".join(f"{name}\n" for name in order),
        "lint.vlt": files.read_text("rtl/lint.vlt"),
        "registers.json": registers_json(grid),
        "neuflow_registers.h": layout.to_header(),
        "layouts.md": layout.to_markdown(),
        "grid.json": grid_json(grid),
    }


def with_parameters(text: str, grid: GridConfig) -> str:
    """Set the defaults of the wrapper's parameters to those of ``grid``.

    ``COLUMNS`` and ``BUS_WORDS`` shape the wrapper's ports; set here, a tool needs no options.
    """
    for name, value in (("COLUMNS", grid.columns), ("BUS_WORDS", grid.bus_words)):
        head, found, tail = text.partition(f"parameter {name} = ")
        if found:
            digits = len(tail) - len(tail.lstrip("0123456789"))
            text = f"{head}{found}{value}{tail[digits:]}"
    return text


def registers_json(grid: GridConfig) -> str:
    """Return the register map with this grid's constant values, as JSON."""
    parameters = grid.columns | grid.maps << 8 | grid.pixels << 16 | grid.bus_words << 24
    constants = {
        "ID": layout.IDENTITY,
        "VERSION": layout.HARDWARE_VERSION,
        "GRID_HASH": int(grid.hash()[:8], 16),
        "PARAMETERS": parameters,
    }
    registers = [
        {
            "name": register.name,
            "address": register.address,
            "access": register.access,
            "doc": register.doc,
            **({"value": constants[register.name]} if register.name in constants else {}),
        }
        for register in layout.REGISTERS
    ]
    errors = {error.name: error.value for error in layout.Error}
    return json.dumps({"registers": registers, "errors": errors}, indent=2) + "\n"


def grid_json(grid: GridConfig) -> str:
    """Return the parameters that shape the hardware, and their hash, as JSON."""
    import dataclasses

    values = dataclasses.asdict(grid)
    for key in ("clock_hz", "clock_source", "memory"):
        del values[key]
    return json.dumps({**values, "hash": grid.hash()}, indent=2) + "\n"


def write(grid: GridConfig, directory: Path) -> list[Path]:
    """Write :func:`generate` to ``directory``; files whose text is unchanged are left alone."""
    texts = generate(grid)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in texts.items():
        path = directory / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            files.write_text(path, text)
        paths.append(path)
    return paths


def layouts_page() -> str:
    """Return ``docs/layouts.md``: the tables of ``neuflow/layout.py`` with a heading."""
    return f"# Bit layouts\n\nGenerated from `neuflow/layout.py`.\n\n{layout.to_markdown()}"


if __name__ == "__main__":
    print(layouts_page(), end="")
