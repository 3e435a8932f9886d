"""The report's figures, layer by layer and in all, as plain values and as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuflow.grid import GridConfig
from neuflow.layout import Cause
from neuflow.report.energy import COUNTED, EnergyTable, energy, published

COLUMNS = (
    ("name", "layer", "<20", ""),
    ("operator", "operator", "<14", ""),
    ("macs", "MACs", ">14", ",d"),
    ("cycles", "cycles", ">12", ",d"),
    ("mac_utilisation", "utilisation", ">12", ".3f"),
    ("gops", "GOPS", ">9", ".2f"),
    ("energy_per_image", "mJ/image", ">11", ".4g"),
    ("gops_per_watt", "GOPS/W", ">9", ".1f"),
)
"""Key, heading, alignment and format of the table's columns."""

CAUSES = [(f"{cause.name.lower()}", cause.name.lower().replace("_", " ")) for cause in Cause]
"""Key and heading of where MAC-cycles went."""


def figures(grid: GridConfig, stats: Mapping[str, Any], energies: EnergyTable) -> dict[str, Any]:
    """Return the report as plain values (what the JSON holds).

    GOPS count 2 operations a MAC, nominal MACs, at the clock of ``stats``. Words over the bus are
    the nominal ones of a layer, and those that were counted in the total.
    """
    layers = [
        _row(grid, stats, layer, layer["cycles"], layer["words"], energies)
        for layer in stats["layers"]
    ]
    total = {"name": "total", "operator": "", "macs": stats["macs"], "stalls": stats["stalls"]}
    words = sum(stats["memory_words"].values())
    return {
        "program": stats["program"],
        "grid": stats["grid"],
        "images": stats["images"],
        "clock_hz": stats["clock_hz"],
        "clock_source": stats["clock_source"],
        "images_per_second": stats["clock_hz"] / stats["cycles_per_image"],
        "peak_gops": 2 * grid.macs * stats["clock_hz"] / 1e9,
        "layers": layers,
        "total": _row(grid, stats, total, stats["cycles"], words, energies),
        "layer_roofline_cycles": stats["layer_roofline_cycles"],
        "network_roofline_cycles": stats["network_roofline_cycles"],
        "energy_table": {"name": energies.name, "entries": dict(energies.entries)},
        "energy_counts": COUNTED,
        "published_not_measured_by_us": published(),
    }


def _row(
    grid: GridConfig,
    stats: Mapping[str, Any],
    layer: Mapping[str, Any],
    cycles: int,
    words: int,
    energies: EnergyTable,
) -> dict[str, Any]:
    macs = layer["macs"]
    joules = energy(grid, macs, words, energies)
    seconds = cycles / stats["clock_hz"]
    return {
        "name": layer["name"],
        "operator": layer["operator"],
        "macs": macs,
        "cycles": cycles,
        "mac_utilisation": macs / (cycles * grid.macs) if cycles else None,
        "gops": 2 * macs / seconds / 1e9 if cycles else None,
        "bus_words": words,
        "energy_per_image": joules / stats["images"] * 1e3,
        "gops_per_watt": 2 * macs / joules / 1e9 if joules else None,
        "mac_cycles": dict(layer["stalls"]),
    }


def text(report: Mapping[str, Any]) -> str:
    """Return the report for people."""
    clock = f"{report['clock_hz'] / 1e6:g} MHz ({report['clock_source']})"
    lines = [
        f"{report['program']} on {report['grid']}, {report['images']} images, rtl, {clock}",
        "",
        " ".join(f"{heading:{align}}" for _, heading, align, _ in COLUMNS),
        *(_line(row) for row in (*report["layers"], report["total"])),
        "",
        *_causes(report),
        "",
        (f"{report['images_per_second']:,.2f} images/s and all GOPS at {clock}; peak "
        f"{report['peak_gops']:g} GOPS; 2 operations a MAC, nominal MACs"),
        (f"layer roofline {report['layer_roofline_cycles']:,.0f} cycles, network roofline "
        f"{report['network_roofline_cycles']:,.0f} cycles"),
        "",
        f"Energy is an estimate by table {report['energy_table']['name']!r}, not measured:",
        f"  {report['energy_counts']}",
    ]
    for name, entry in report["energy_table"]["entries"].items():
        lines.append(f"  {name}: {entry['value']:g} {entry['unit']}, {entry['technology']}")
        lines.append(f"    {entry['source']}")
        lines.append(f"    checked: {entry['checked']}")
    lines += ["", "Published by others, not measured by us:"]
    for entry in report["published_not_measured_by_us"]:
        rate = f"{entry['gops']} of {entry['peak_gops']} GOPS, {entry['watts']:g} W"
        lines.append(f"  {entry['what']}: {rate}, {entry['gops_per_watt']:g} GOPS/W")
        lines.append(f"    {entry['kind']} ({entry['source']})")
    return "\n".join(lines) + "\n"


def _causes(report: Mapping[str, Any]) -> list[str]:
    """Return where the MAC-cycles went: per cent of a layer's multipliers x cycles."""
    lines = [
        "Where the MAC-cycles went, per cent of multipliers x cycles (causes: docs/layouts.md):",
        f"{'layer':<20} " + " ".join(f"{heading:>13}" for _, heading in CAUSES),
    ]
    for row in (*report["layers"], report["total"]):
        whole = sum(row["mac_cycles"].values())
        shares = (100 * row["mac_cycles"][key] / whole if whole else 0.0 for key, _ in CAUSES)
        lines.append(f"{row['name']:<20} " + " ".join(f"{share:>13.2f}" for share in shares))
    return lines


def _line(row: Mapping[str, Any]) -> str:
    cells = []
    for key, _, align, form in COLUMNS:
        value = row[key]
        shown = "-" if value is None else f"{value:{form}}"
        cells.append(f"{shown:{align}}")
    return " ".join(cells).rstrip()
