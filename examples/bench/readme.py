"""The README's table, made from ``docs/bench.json``: ``python -m examples.bench.readme``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
    "work, batch 1 unless said", "cycles an image", "of peak MACs", "over layer roofline",
    "frames/s at the assumed clock", "judges",
)  # fmt: skip
BEGIN, END = "<!-- bench: begin -->\n", "<!-- bench: end -->\n"


def short_table(rows: list[dict[str, Any]]) -> str:
    """Return one line a work: what the grid's judges gave; they agree in every cycle."""
    judges: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["judge"] in ("rtl", "cycle"):
            judges.setdefault(row["title"], []).append(row)
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for title, found in judges.items():
        row = found[0]
        cells = (
            title,
            f"{row['cycles_per_image']:,.0f}",
            f"{row['mac_utilisation']:.3f}",
            f"{row['cycles'] / row['layer_roofline_cycles']:.3f}",
            f"{row['clock_hz'] / row['cycles_per_image']:,.1f}",
            " == ".join(entry["judge"] for entry in found),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str, rows: list[dict[str, Any]]) -> str:
    """Return the README with the table between its marks made anew."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{short_table(rows)}{END}{tail}"


def main() -> None:
    """Bring README.md up to date."""
    rows = json.loads((ROOT / "docs" / "bench.json").read_text(encoding="utf-8"))["rows"]
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
