"""Paths of a placement, from the SDF that nextpnr writes."""

from __future__ import annotations

from pathlib import Path

import placed_timing as timing
import pytest


def register(name: str, setup: int = 300) -> str:
    return f"""
  (CELL
    (CELLTYPE "TRELLIS_FF")
    (INSTANCE {name})
    (DELAY
      (ABSOLUTE
        (IOPATH CLK Q (430:477:525) (430:477:525))
      )
    )
    (TIMINGCHECK
      (SETUPHOLD (posedge DI) (posedge CLK) (0:0:{setup}) (267:285:303))
      (SETUPHOLD (negedge DI) (posedge CLK) (0:0:{setup}) (267:285:303))
    )
    )"""


def lut(name: str, *ports: str) -> str:
    paths = "".join(f"\n        (IOPATH {p} F (0:0:200) (0:0:200))" for p in ports)
    return f"""
  (CELL
    (CELLTYPE "TRELLIS_COMB")
    (INSTANCE {name})
    (DELAY
      (ABSOLUTE{paths}
      )
    )
    )"""


def wire(source: str, load: str, delay: int) -> str:
    return f"\n        (INTERCONNECT {source} {load} (1:1:{delay}) (1:1:{delay}))"


WIRES = (
    wire("core.a.x_TRELLIS_FF_Q/Q", r"core.b.y\$1_LUT4_Z/A", 1000)
    + wire("core.a.x_TRELLIS_FF_Q_1/Q", r"core.b.y\$1_LUT4_Z/B", 3000)
    + wire(r"core.b.y\$1_LUT4_Z/F", "core.c.z_TRELLIS_FF_Q/DI", 500)
    + wire(r"core.b.y\$1_LUT4_Z/F", "core.c.z_TRELLIS_FF_Q_1/DI", 700)
    + wire("core.c.z_TRELLIS_FF_Q/Q", "core.a.x_TRELLIS_FF_Q/DI", 100)
    # From a pin: no path between registers, whatever it takes.
    + wire("pin/O", "core.a.x_TRELLIS_FF_Q_1/DI", 99000)
)


@pytest.fixture
def sdf(tmp_path: Path) -> Path:
    cells = [
        *(f"core.a.x_TRELLIS_FF_Q{n}" for n in ("", "_1")),
        *(f"core.c.z_TRELLIS_FF_Q{n}" for n in ("", "_1")),
    ]
    text = f'(DELAYFILE\n  (CELL\n    (CELLTYPE "top")\n    (INSTANCE ){WIRES}\n  )'
    text += "".join(map(register, cells)) + lut(r"core.b.y\$1_LUT4_Z", "A", "B")
    path = tmp_path / "placed.sdf"
    path.write_text(text + "\n)\n", encoding="utf-8")
    return path


def test_each_pair_of_names_counts_once_with_its_longest_path(sdf: Path) -> None:
    longest, other = timing.worst(sdf)
    # Clock to output, wire, table, wire, set-up.
    assert longest == (
        (525 + 3000 + 200 + 700 + 300) / 1000, 2, ["a: x", "b: y", "c: z"]
    )  # fmt: skip
    assert other == ((525 + 100 + 300) / 1000, 1, ["c: z", "a: x"])


def test_the_table_names_clock_and_paths(sdf: Path) -> None:
    lines = timing.table(sdf, rows=1).splitlines()
    assert lines[0] == "Worst paths: 211.6 MHz"
    assert lines[-1] == "| 4.72 | 2 | a: x > b: y > c: z |"


def test_a_shorter_wire_shows(sdf: Path) -> None:
    sdf.write_text(sdf.read_text(encoding="utf-8").replace("1:1:3000", "1:1:900"), encoding="utf-8")
    assert timing.worst(sdf)[0][0] == 2.725


def test_no_path_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty.sdf"
    empty.write_text("(DELAYFILE\n)\n", encoding="utf-8")
    assert timing.table(empty) == "no path between registers\n"
