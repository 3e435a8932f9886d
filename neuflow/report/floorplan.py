"""Picture: one pass on the grid's floor plan, its routes read from the program's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

from neuflow.ir import Program
from neuflow.layout import (
    SCRATCHPAD,
    AluOp,
    Kind,
    Operand,
    RouterIn,
    RouterOut,
    Row,
    WindowOp,
)
from neuflow.report import routes
from neuflow.report.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    matplotlib_defaults,
    new_figure,
)

PORT_COLORS = {
    Kind.READ_ROWS: SKY,
    Kind.READ_WEIGHTS: ORANGE,
    Kind.READ_OPERAND: PURPLE,
    Kind.WRITE: VERMILLION,
}
PORT_NAMES = {
    Kind.READ_ROWS: "rows",
    Kind.READ_WEIGHTS: "weights",
    Kind.READ_OPERAND: "operand",
    Kind.WRITE: "write",
}


def floorplan_figure(program: Program, label: str, title: str) -> Figure:
    """Draw the grid as a floor plan with the routes of one pass, read from the program's words.

    Tiles and DMA ports are boxes, tinted where the pass uses them; arrows are what moves packets;
    a black dot is where a packet is copied (multicast).

    Parameters
    ----------
    label : of the pass, a key of ``routes.passes(program)``.
    """
    with matplotlib_defaults():
        return _Floorplan(routes.plan(program, label)).draw(title)


class _Floorplan:
    """Draws one plan. Units of the picture: tiles are ``WIDE`` x ``HIGH``, y grows upwards."""

    WIDE, HIGH = 2.85, 1.4
    ACROSS, DOWN = 3.75, 1.78
    ROUTER = 0.34  # width of the router, at the left of its tile
    LANE = 0.2
    BAR = 0.55  # from the scratchpad's bars to those of external memory

    def __init__(self, plan: routes.Plan) -> None:
        self.plan, self.grid = plan, plan.grid
        # A rows or weights line takes a lane of its own where it leaves its column.
        wide = [line for line in plan.lines if line.operand is None]
        self.lanes = {
            (line.port, line.column): 0.25 + self.LANE * index
            for index, line in enumerate(wide)
            if line.listeners != (line.column,)
        }
        self.ports_y = self.HIGH / 2 + 0.55 + self.LANE * (len(wide) + 1)
        self.write_y = self._y(self.grid.rows - 1) - self.HIGH / 2 - 0.75
        self.beyond = self.BAR if self.grid.scratchpad_words else 0.0
        self.left = -0.7
        self.right = self.ACROSS * (self.grid.columns - 1) + self.WIDE + 0.25

    # Places.

    def _x(self, column: int) -> float:
        return column * self.ACROSS

    def _y(self, row: int) -> float:
        return -row * self.DOWN

    def _router_x(self, column: int) -> float:
        return self._x(column) + 0.1 + self.ROUTER / 2

    def _units_of(self, row: int) -> list[tuple[Kind, int]]:
        if row == Row.CONVOLVER:
            return [(Kind.CONV_ARRAY, 0)]
        if row == Row.OPERATOR:
            return [(Kind.ALU, 0), (Kind.ALU, 1), (Kind.WINDOW, 0)]
        return [(Kind.MAPPER, 0)] if row == Row.MAPPER else [(Kind.ROUTER, 0), (Kind.ROUTER, 1)]

    def _unit_box(self, column: int, row: int, index: int) -> tuple[float, float, float, float]:
        """Return x, y (lower left), width and height of a unit in its tile."""
        count = len(self._units_of(row))
        area = self.HIGH - 0.52  # above: the tile's name; below: links to the east and the west
        height = area / count - 0.04
        bottom = self._y(row) + self.HIGH / 2 - 0.24 - (index + 1) * area / count + 0.02
        return self._x(column) + 0.95, bottom, self.WIDE - 1.05, height

    def _drop_x(self, column: int, port: Kind) -> float:
        """Return where a read port's line meets the convolver."""
        place = {Kind.READ_ROWS: 1.5, Kind.READ_WEIGHTS: 2.4, Kind.READ_OPERAND: 0.05}
        return self._x(column) + place[port]

    # Drawing.

    def draw(self, title: str) -> Figure:
        """Return the whole picture."""
        top, bottom = self.ports_y + 1.15 + self.beyond, self.write_y - 0.95 - self.beyond
        width, height = self.right - self.left + 0.2, top - bottom
        scale = max(0.78, 7.5 / width)
        figure = new_figure(width * scale, height * scale + 1.3)
        high = figure.get_figheight()
        self.axes = figure.add_axes((0, 0.78 / high, 1, height * scale / high))
        self.axes.set(xlim=(self.left - 0.1, self.right + 0.1), ylim=(bottom, top))
        self.axes.axis("off")
        self._mesh()
        self._memories(top - 0.42, bottom + 0.07)
        for column in range(self.grid.columns):
            for row in range(self.grid.rows):
                self._tile(column, row)
            for port in PORT_NAMES:
                self._port(column, port)
        for line in self.plan.lines:
            self._line(line)
        for hop in self.plan.hops:
            self._hop(hop)
        for column, source in self.plan.writes:
            self._write(column, source)
        figure.suptitle(title, fontsize=12, y=1 - 0.1 / high, va="top")
        figure.legend(handles=_legend(), ncol=3, loc="lower center", frameon=False, fontsize=9,
                      bbox_to_anchor=(0.5, 0.06 / high), borderaxespad=0)  # fmt: skip
        return figure

    def _box(
        self, x: float, y: float, wide: float, high: float, face: str, edge: str = GREY
    ) -> None:
        self.axes.add_patch(
            FancyBboxPatch((x, y), wide, high, boxstyle="round,pad=0,rounding_size=0.05",
                           facecolor=face, edgecolor=edge, linewidth=0.9)
        )  # fmt: skip

    def _text(self, x: float, y: float, text: str, size: float = 8, **style: Any) -> None:
        style = {"ha": "center", "va": "center", "color": BLACK, **style}
        self.axes.text(x, y, text, fontsize=size, zorder=6, **style)

    def _path(self, points: Sequence[tuple[float, float]], color: str, arrow: bool = True) -> None:
        """Draw a line through ``points``, with an arrow head at its end."""
        xs, ys = zip(*points, strict=True)
        # White below, so that crossing lines can be told from meeting ones.
        for width, shade in ((3.6, "white"), (1.8, color)):
            self.axes.plot(xs, ys, color=shade, linewidth=width, zorder=4,
                           solid_capstyle="butt", solid_joinstyle="miter")  # fmt: skip
        if arrow:
            self.axes.annotate(
                "", points[-1], points[-2], zorder=5, annotation_clip=False,
                arrowprops={"arrowstyle": "-|>,head_length=0.55,head_width=0.26", "color": color,
                            "linewidth": 0, "shrinkA": 0, "shrinkB": 0},
            )  # fmt: skip

    def _dot(self, x: float, y: float) -> None:
        self.axes.plot([x], [y], marker="o", markersize=5, color=BLACK, zorder=7)

    def _mesh(self) -> None:
        """Draw the links between routers that exist, used or not."""
        for column in range(self.grid.columns):
            x, last = self._router_x(column), self._y(self.grid.rows - 1)
            for offset in (-0.09, 0.09):
                self.axes.plot([x + offset] * 2, [0, last], color=LIGHT, linewidth=1.2, zorder=0)
        for column in range(self.grid.columns - 1):
            start = self._router_x(column) + self.ROUTER / 2
            reach = [start, start + self.ACROSS - self.ROUTER]
            for row in range(self.grid.rows):
                for lane in (0.12, 0.22):
                    y = self._y(row) - self.HIGH / 2 + lane
                    self.axes.plot(reach, [y, y], color=LIGHT, linewidth=1.2, zorder=1.5)

    def _tile(self, column: int, row: int) -> None:
        x, y = self._x(column), self._y(row) - self.HIGH / 2
        routed = any((hop.column, hop.row) == (column, row) for hop in self.plan.hops)
        self._box(x, y, self.WIDE, self.HIGH, "white" if routed else PALE)
        name = "FIFO tile" if row >= Row.FIFO else Row(row).name.lower()
        shade = BLACK if routed else GREY
        self._text(x + 0.52, y + self.HIGH - 0.13, name, 8.5, ha="left", weight="bold",
                   color=shade)  # fmt: skip
        self._box(x + 0.1, y + 0.1, self.ROUTER, self.HIGH - 0.2, YELLOW if routed else LIGHT)
        self._text(
            x + 0.1 + self.ROUTER / 2, y + self.HIGH / 2, "router", 8, rotation=90, color=shade
        )
        for index, (kind, sub) in enumerate(self._units_of(row)):
            box = self._unit_box(column, row, index)
            text = self._unit_text(column, row, kind, sub)
            used = text is not None
            self._box(*box, "#CFE8DD" if used else LIGHT)
            middle = (box[0] + box[2] / 2, box[1] + box[3] / 2)
            self._text(*middle, text or _idle_name(kind, sub), 7.5, color=BLACK if used else GREY)

    def _unit_text(self, column: int, row: int, kind: Kind, sub: int) -> str | None:
        """Return what the unit does in this pass, or None where it does nothing."""
        if kind is Kind.ROUTER:  # a FIFO has no configuration: it works where a route feeds it
            fed = any(
                (h.column, h.row, h.output) == (column, row, RouterOut.LOCAL0 + sub)
                for h in self.plan.hops
            )
            return f"FIFO {sub}" if fed else None
        fields = self.plan.units.get((kind, sub, column))
        if fields is None:
            return None
        if kind is Kind.CONV_ARRAY:
            drain = self.plan.units.get((Kind.CONV_DRAIN, 0, column), {"maps": 0})
            what = "steps by tap" if fields["by_tap"] else "kernel"
            size = f"{fields['kernel_y']}×{fields['kernel_x']} {what}"
            macs = f"{self.grid.maps}×{self.grid.pixels} MACs"
            return f"{macs}\n{size}\n{fields['channels']} → {drain['maps']} maps"
        if kind is Kind.ALU:
            return f"{AluOp(fields['op']).name.lower()}"
        if kind is Kind.WINDOW:
            op = WindowOp(fields["op"]).name.lower()
            return f"window {op} {fields['kernel_y']}×{fields['kernel_x']}"
        return "mapper: 8 segments"

    def _port(self, column: int, port: Kind) -> None:
        used = (
            any(c == column for c, _ in self.plan.writes)
            if port is Kind.WRITE
            else any((line.port, line.column) == (port, column) for line in self.plan.lines)
        )
        if port is Kind.WRITE:
            x, y = self._rail_x(column), self.write_y
        else:
            x, y = self._drop_x(column, port), self.ports_y
        self._box(x - 0.42, y - 0.16, 0.84, 0.32, PORT_COLORS[port] if used else LIGHT)
        self._text(x, y, PORT_NAMES[port], 8, color=BLACK if used else GREY)
        far = 0.0 if self._near(column, port) else self.beyond
        if used and port is Kind.WRITE:
            self._path([(x, y - 0.16), (x, y - 0.54 - far)], PORT_COLORS[port])
        elif used:
            self._path([(x, y + 0.73 + far), (x, y + 0.16)], PORT_COLORS[port])

    def _near(self, column: int, port: Kind) -> bool:
        """Whether what a port reads or writes lies in the scratchpad."""
        record = self.plan.units.get((port, 0, column))
        return bool(self.grid.scratchpad_words and record and record["base"] >= SCRATCHPAD)

    def _memories(self, reads_y: float, writes_y: float) -> None:
        """Draw external memory at the picture's ends, and the scratchpad, if any, before it."""
        axi = f"(AXI4, {self.grid.bus_bits} bit)"
        self._memory(reads_y, f"external memory: reads {axi}")
        self._memory(writes_y, f"external memory: writes {axi}")
        if self.grid.scratchpad_words:
            size = f"({self.grid.scratchpad_words:,} words)"
            columns = range(self.grid.columns)
            near = {port for port in PORT_NAMES if any(self._near(c, port) for c in columns)}
            reads = bool(near - {Kind.WRITE})
            self._memory(reads_y - self.BAR, f"scratchpad: reads {size}", reads)
            self._memory(writes_y + self.BAR, f"scratchpad: writes {size}", Kind.WRITE in near)

    def _memory(self, y: float, text: str, used: bool = True) -> None:
        fill = PALE if used else LIGHT
        self._box(self.left, y, self.right - self.left, 0.34, fill)
        # Before lines that go on to what lies behind.
        ground = {"facecolor": fill, "edgecolor": "none", "pad": 1}
        middle = (self.left + self.right) / 2
        self._text(middle, y + 0.17, text, 8.5, color=BLACK if used else GREY, bbox=ground)

    def _rail_x(self, column: int) -> float:
        """Return where the global line to the write port runs: left of the tiles."""
        return self._x(column) - 0.2

    def _line(self, line: routes.Line) -> None:
        """Draw a read port's line down to all that listen."""
        color, start = PORT_COLORS[line.port], self.ports_y - 0.16
        if line.operand is not None:
            self._operand(line)
            return
        box = self._unit_box(line.column, Row.CONVOLVER, 0)
        end = box[1] + box[3]
        own = self._drop_x(line.column, line.port)
        if (line.port, line.column) not in self.lanes:
            self._path([(own, start), (own, end)], color)
            return
        lane = self.HIGH / 2 + self.lanes[line.port, line.column]
        drops = [self._drop_x(column, line.port) for column in line.listeners]
        self._path([(own, start), (own, lane)], color, arrow=False)
        reach = (min(own, *drops), max(own, *drops))
        self._path([(reach[0], lane), (reach[1], lane)], color, arrow=False)
        for drop in drops:
            self._path([(drop, lane), (drop, end)], color)
        if len(drops) > 1:
            for drop in drops[:-1] if own == drops[0] else drops:
                self._dot(drop, lane)
            self._text(own + 0.1, start - 0.12, f"×{len(drops)}", 8, ha="left")

    def _operand(self, line: routes.Line) -> None:
        """Draw the operand line: partial sums of the convolver, or the operator tile's input."""
        x, color = self._drop_x(line.column, Kind.READ_OPERAND), PORT_COLORS[line.port]
        rail, start = self._x(line.column) - 0.42, self.ports_y - 0.16
        if line.operand is Operand.CONVOLVER:
            box = self._unit_box(line.column, Row.CONVOLVER, 0)
            turn = self.HIGH / 2 + 0.08
            aim = box[0] + 0.1
            self._path([(x, start), (x, turn), (aim, turn), (aim, box[1] + box[3])], color)
            return
        y = self._y(Row.OPERATOR) + 0.36
        edge = self._x(line.column) + 0.1
        self._path([(rail, start), (rail, y), (edge, y)], color)

    def _write(self, column: int, source: int) -> None:
        """Draw the global line to the write port, from operator tile (1) or last tile (0)."""
        row = Row.OPERATOR if source else self.grid.rows - 1
        y, rail = self._y(row) - 0.05, self._rail_x(column)
        edge = self._x(column) + 0.1
        self._path([(edge, y), (rail, y), (rail, self.write_y + 0.16)], VERMILLION)

    def _hop(self, hop: routes.Hop) -> None:
        """Draw one router output, and the local result that feeds it."""
        x, y = self._router_x(hop.column), self._y(hop.row)
        half = self.HIGH / 2 - 0.1
        gap = self.DOWN - 2 * half
        side = self.ROUTER / 2
        if hop.output is RouterOut.NORTH:
            self._path([(x - 0.09, y + half), (x - 0.09, y + half + gap)], BLUE)
        elif hop.output is RouterOut.SOUTH:
            self._path([(x + 0.09, y - half), (x + 0.09, y - half - gap)], BLUE)
        elif hop.output is RouterOut.EAST:
            lane = y - half + 0.12
            self._path([(x + side, lane), (x + self.ACROSS - side, lane)], BLUE)
        elif hop.output is RouterOut.WEST:
            lane = y - half + 0.02
            self._path([(x - side, lane), (x - self.ACROSS + side, lane)], BLUE)
        elif hop.output >= RouterOut.LOCAL0:
            self._operand_of_unit(hop)
        if hop.input >= RouterIn.LOCAL0:
            self._result_of_unit(hop)
        if hop.copies > 1:
            self._dot(x, y + half - 0.1)

    def _operand_of_unit(self, hop: routes.Hop) -> None:
        number = hop.output - RouterOut.LOCAL0
        # An operator tile's outputs: ALU 0 a, b; ALU 1 a, b; window. All else: one a unit.
        index, shift = divmod(number, 2) if hop.row == Row.OPERATOR else (number, 0)
        box = self._unit_box(hop.column, hop.row, index)
        y = box[1] + box[3] * (0.85 - 0.3 * shift)
        self._path([(self._router_x(hop.column) + self.ROUTER / 2, y), (box[0], y)], BLUE)

    def _result_of_unit(self, hop: routes.Hop) -> None:
        index = hop.input - RouterIn.LOCAL0
        box = self._unit_box(hop.column, hop.row, index)
        y = box[1] + box[3] * 0.2
        self._path([(box[0], y), (self._router_x(hop.column) + self.ROUTER / 2, y)], GREEN)


def _idle_name(kind: Kind, sub: int) -> str:
    names: Mapping[Kind, str] = {
        Kind.CONV_ARRAY: "array",
        Kind.ALU: f"operator {sub}",
        Kind.WINDOW: "window",
        Kind.MAPPER: "mapper",
    }
    return names.get(kind, f"FIFO {sub}")


def _legend() -> list[Any]:
    """Return the keys of the floor plan's colours."""
    lines = (
        (SKY, "rows line"),
        (ORANGE, "weights line"),
        (PURPLE, "operand line"),
        (BLUE, "link between routers, or operand to a unit"),
        (GREEN, "result of a unit"),
        (VERMILLION, "global line to the write port"),
    )
    handles = [Line2D([], [], color=color, linewidth=2, label=label) for color, label in lines]
    dot = Line2D([], [], color=BLACK, marker="o", markersize=5, linestyle="",
                 label="multicast: one packet, several takers")  # fmt: skip
    idle = Line2D([], [], color=LIGHT, linewidth=2, label="link not used; grey: unit not used")
    return [*handles, dot, idle]
