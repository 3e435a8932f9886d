"""Energy of a run: counts of operations times a table of energies. An estimate, and says so."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuflow.grid import GridConfig

HERE = Path(__file__).resolve().parent

COUNTED = (
    "Energy = MACs x (multiply + add) + on-chip words x sram + bus words x dram. On-chip words = "
    "MACs / (maps x pixels) x (maps + pixels), read by the arrays, + bus words, buffered once. "
    "Leakage, clock, control and wires are not counted."
)
"""What the estimate holds; printed with it."""


@dataclass(frozen=True)
class EnergyTable:
    """Joules of the four things that are counted, and where they come from."""

    name: str
    joules: Mapping[str, float]
    entries: Mapping[str, Mapping[str, Any]]


def table() -> EnergyTable:
    """Return the table ``energy.toml``."""
    values = tomllib.loads((HERE / "energy.toml").read_text(encoding="utf-8"))
    name = values.pop("name")
    for key, entry in values.items():
        if not entry["unit"].startswith("pJ "):
            raise ValueError(f"energy.toml: {key} must be in pJ")
    joules = {key: entry["value"] * 1e-12 for key, entry in values.items()}
    return EnergyTable(name, joules, values)


def published() -> list[dict[str, Any]]:
    """Return what others published, from ``published.toml``."""
    return list(tomllib.loads((HERE / "published.toml").read_text(encoding="utf-8"))["entry"])


def energy(grid: GridConfig, macs: int, bus_words: int, energies: EnergyTable) -> float:
    """Return joules for ``macs`` multiply-accumulates and ``bus_words`` words over the bus."""
    j = energies.joules
    steps = macs / (grid.maps * grid.pixels)
    on_chip = steps * (grid.maps + grid.pixels) + bus_words
    return macs * (j["multiply"] + j["add"]) + on_chip * j["sram"] + bus_words * j["dram"]
