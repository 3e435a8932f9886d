"""Pictures: what a pass uses is read back from its words; files are the same bytes every time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from programs import program

from examples import demo
from neuflow import layout
from neuflow.compiler import compile_graph
from neuflow.errors import ProgramError
from neuflow.grid import TINY, VIRTEX6, GridConfig
from neuflow.ir import Layer, Program
from neuflow.layout import Cause, Kind, Opcode, Operand, RouterIn, RouterOut
from neuflow.report import routes
from neuflow.report.drawing import GREY, save
from neuflow.report.floorplan import floorplan_figure
from neuflow.report.predictions import digits_figure
from neuflow.report.timeline import timeline_figure
from neuflow.run.stats import Measured
from tests.quantgraphs import Builder

PNG = b"\x89PNG\r\n\x1a\n"
ONE_RUN = {"run": 8, "count0": 1, "step0": 0, "count1": 1, "step1": 0, "count2": 1, "step2": 0}


def config(kind: Kind, columns: int, *records: dict[str, int], sub: int = 0) -> list[int]:
    """Return a CONFIG instruction with its payload."""
    payload = [word for record in records for word in layout.UNITS[kind].pack(**record)]
    head = layout.INSTRUCTION.pack(
        opcode=Opcode.CONFIG, kind=kind, sub=sub, columns=columns, length=len(payload),
        relocate=0, left=0, reserved=0,
    )  # fmt: skip
    return [*head, *payload]


def other(opcode: Opcode, columns: int = 0) -> list[int]:
    """Return the first word of an instruction without a packet."""
    return layout.INSTRUCTION.pack(
        opcode=opcode, kind=0, sub=0, columns=columns, length=0, relocate=0, left=0, reserved=0
    )


def route(output: RouterOut, source: RouterIn, peers: int | None = None) -> dict[str, int]:
    """Return a ROUTE record; ``peers``: of a multicast."""
    return {"output": output, "input": source, "peers": 1 << output if peers is None else peers}


def read(**fields: int) -> dict[str, int]:
    """Return a READ record of one run."""
    return {"base": 0, **ONE_RUN, **fields}


BOTH = 1 << RouterOut.SOUTH | 1 << RouterOut.LOCAL0

# Two passes by hand: rows of column 0 go to both columns, the operator tile's router copies what
# comes from the north to its ALU and to the south; the second pass is a lone operand line.
PARTS = [
    ("one/pass0/column0/READ_ROWS", config(Kind.READ_ROWS, 0b01, read(dest=0b11))),
    ("one/pass0/column1/READ_WEIGHTS", config(Kind.READ_WEIGHTS, 0b10, read(dest=0b10))),
    (
        "one/pass0/column0,1/ROUTER0",
        config(Kind.ROUTER, 0b11, route(RouterOut.SOUTH, RouterIn.LOCAL0)),
    ),
    (
        "one/pass0/column0/ROUTER1",
        config(
            Kind.ROUTER, 0b01,
            route(RouterOut.SOUTH, RouterIn.NORTH, BOTH),
            route(RouterOut.LOCAL0, RouterIn.NORTH, BOTH),
            route(RouterOut.EAST, RouterIn.LOCAL0),
            sub=1,
        ),
    ),
    ("one/pass0/column1/ROUTER1", config(
        Kind.ROUTER, 0b10, route(RouterOut.GLOBAL, RouterIn.WEST), sub=1)),
    ("one/pass0/column0/ALU", config(
        Kind.ALU, 0b01, {"op": 0, "shift_a": 0, "shift_b": 0, "shift": 0, "narrow": 0})),
    ("one/pass0/column1/WRITE", config(Kind.WRITE, 0b10, read(source=1))),
    ("two/pass0/fence", other(Opcode.FENCE, 0b10)),
    (
        "two/pass0/column1/READ_OPERAND",
        config(Kind.READ_OPERAND, 0b10, read(dest=Operand.OPERATOR)),
    ),
    ("end of frame", [*other(Opcode.END), 64, 64]),
]  # fmt: skip


def known(grid: GridConfig = TINY) -> Program:
    """Return the program of ``PARTS``."""
    words: list[int] = []
    origins = []
    for origin, part in PARTS:
        origins.append((len(words), origin))
        words += part
    device = np.array(words, "<u4").tobytes()
    layers = (Layer("first", "conv", 100, 10, 5, 3, (0, 1)), Layer("second", "alu", 0, 10, 0, 5, (1, 1)))
    made = program(grid=grid, device=device, layers=layers)
    return dataclasses.replace(made, origins=tuple(origins))


# --- routes ---------------------------------------------------------------------------------------


def test_packets_of_a_pass_are_found_by_their_origin():
    found = routes.passes(known())
    assert list(found) == ["one/pass0", "two/pass0"]
    assert [packet.kind for packet in found["two/pass0"]] == [Kind.READ_OPERAND]
    assert found["one/pass0"][2].columns == (0, 1)
    # Two reads, a write of 8 words but for the sizes of their layouts; 5 ROUTE words; one ALU word.
    want = 2 * layout.READ.words + layout.WRITE.words + 5 * layout.ROUTE.words + layout.ALU.words
    assert routes.config_words(found["one/pass0"]) == want


def test_a_plan_holds_every_route_of_the_pass_and_no_other():
    plan = routes.plan(known(), "one/pass0")
    assert set(plan.hops) == {
        routes.Hop(0, 0, RouterIn.LOCAL0, RouterOut.SOUTH, 1),
        routes.Hop(1, 0, RouterIn.LOCAL0, RouterOut.SOUTH, 1),
        routes.Hop(0, 1, RouterIn.NORTH, RouterOut.SOUTH, 2),
        routes.Hop(0, 1, RouterIn.NORTH, RouterOut.LOCAL0, 2),
        routes.Hop(0, 1, RouterIn.LOCAL0, RouterOut.EAST, 1),
        routes.Hop(1, 1, RouterIn.WEST, RouterOut.GLOBAL, 1),
    }
    assert plan.lines == (
        routes.Line(Kind.READ_ROWS, 0, (0, 1)),
        routes.Line(Kind.READ_WEIGHTS, 1, (1,)),
    )
    assert plan.writes == ((1, 1),)
    assert (Kind.ALU, 0, 0) in plan.units
    assert (Kind.ALU, 0, 1) not in plan.units


def test_an_operand_line_names_the_tile_that_takes_it():
    plan = routes.plan(known(), "two/pass0")
    assert plan.lines == (routes.Line(Kind.READ_OPERAND, 1, (1,), Operand.OPERATOR),)
    assert plan.hops == plan.writes == ()


def test_a_pass_that_is_not_there_is_refused():
    with pytest.raises(ProgramError, match="one/pass0, two/pass0"):
        routes.plan(known(), "three")


@pytest.mark.parametrize("device", [b"", b"\0" * 8, np.array(PARTS[0][1][:3], "<u4").tobytes()])
def test_a_damaged_program_is_refused(device):
    with pytest.raises(ProgramError, match="no instruction at program word"):
        list(routes.packets(dataclasses.replace(known(), device=device)))


# --- figures --------------------------------------------------------------------------------------


def measured(cycles: int = 1000) -> Measured:
    """Return a run of 11 windows of 100 cycles, the last of which is behind the end."""
    rng = np.random.default_rng(1)
    timeline = rng.integers(0, 20, (11, 8, 16))
    none = [0] * len(Cause)
    writes = [[none], [none, none]]
    return Measured(cycles, {}, [[400], [300, 900]], none, writes, 100, timeline.tolist())


def figures() -> dict[str, object]:
    """Return one figure of each kind, newly made."""
    rng = np.random.default_rng(2)
    return {
        "digits": digits_figure(
            rng.random((23, 1, 28, 28)), np.arange(23) % 10, np.arange(23) % 9, "digits"
        ),
        "timeline": timeline_figure(measured(), known(), 1, "timeline"),
        "floorplan": floorplan_figure(known(), "one/pass0", "floor plan"),
        "operand": floorplan_figure(known(VIRTEX6), "two/pass0", "floor plan"),
    }


def test_figures_are_written_and_the_same_bytes_again(tmp_path):
    for name, figure in figures().items():
        save(figure, tmp_path / f"{name}.png")
    for name, figure in figures().items():
        save(figure, tmp_path / "again.png")
        first = (tmp_path / f"{name}.png").read_bytes()
        assert first.startswith(PNG), name
        assert first == (tmp_path / "again.png").read_bytes(), name
        assert b"matplotlib" not in first.lower(), name


def test_a_users_matplotlibrc_changes_nothing(tmp_path):
    import matplotlib

    def write(name: str) -> bytes:
        figure = floorplan_figure(known(), "one/pass0", "floor plan")
        save(figure, tmp_path / name)
        return (tmp_path / name).read_bytes()

    plain = write("plain.png")
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 30, "lines.linewidth": 9}):
        assert write("other.png") == plain


def test_every_text_of_the_floor_plan_lies_within_the_picture():
    figure = floorplan_figure(known(VIRTEX6), "one/pass0", "floor plan")
    figure.canvas.draw()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text


def test_the_floor_plan_tells_the_scratchpad_from_memory():
    net = Builder(4)
    net.conv(net.conv(net.input(2, 6, 6), 4, (3, 3)), 2, (3, 3))
    program = compile_graph(net.build(net.nodes[-1].output), TINY)
    used = {}
    for label in ("conv0/pass0", "conv1/pass0"):
        figure = floorplan_figure(program, label, "floor plan")
        used[label] = {
            text.get_text().split(" (")[0]: text.get_color() != GREY
            for text in figure.axes[0].texts
            if text.get_text().startswith("scratchpad")
        }
    assert used == {
        "conv0/pass0": {"scratchpad: reads": False, "scratchpad: writes": True},
        "conv1/pass0": {"scratchpad: reads": True, "scratchpad: writes": False},
    }
    without = compile_graph(
        net.build(net.nodes[-1].output), dataclasses.replace(TINY, scratchpad_words=0)
    )
    figure = floorplan_figure(without, "conv0/pass0", "floor plan")
    assert not any("scratchpad" in text.get_text() for text in figure.axes[0].texts)


def test_a_run_without_a_timeline_is_refused():
    with pytest.raises(ValueError, match="no timeline"):
        timeline_figure(Measured(5, {}, [], [], []), known(), 1, "")


def test_digits_need_a_prediction_each():
    with pytest.raises(ValueError, match="2 images, 1 predictions"):
        digits_figure(np.zeros((2, 1, 28, 28)), [1], [1, 2], "")


# --- demo -----------------------------------------------------------------------------------------


def test_wrong_predictions_are_marked_below():
    lines = demo.comparison([1, 2, 3] * 20, [1, 2, 3] * 5 + [1, 9, 3] + [1, 2, 3] * 14).split("\n")
    assert lines[0] == "  true 1231231231 2312312312 3123123123 1231231231 2312312312"
    assert lines[1] == "  RTL  1231231231 2312319312 3123123123 1231231231 2312312312"
    assert lines[2].index("^") == lines[1].index("9")
    assert len(lines) == 5  # no mark below the second line


def test_sketches_fit_a_terminal_of_80_columns():
    images = np.ones((demo.SHOWN, 1, 32, 32), np.float32)
    lines = demo.sketch(images, range(demo.SHOWN)).split("\n")
    assert max(map(len, lines)) <= 80
    assert lines[0].strip() == " ".join(["#" * 12] * demo.SHOWN)
    assert [lines[-1].count(str(n)) for n in range(demo.SHOWN)] == [1] * demo.SHOWN


def test_without_a_compiler_it_shows_golden_and_says_what_is_missing(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("NEUFLOW_CACHE", str(tmp_path / "cache"))
    assert demo.main(["--out", str(tmp_path), "--images", "5"]) == 0
    shown = capsys.readouterr().out
    assert "golden (16-bit integers)   399 of 400" in shown
    last = shown.strip().splitlines()[-1]
    assert "CXX is 'no-such-compiler'" in last
    assert (tmp_path / "digits.png").is_file() and (tmp_path / "floorplan.png").is_file()
