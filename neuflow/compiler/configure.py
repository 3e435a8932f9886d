"""A turn to configuration packets: what every unit of a column is told for one pass."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks import mapper_model
from neuflow.compiler.allocate import Place, Space
from neuflow.compiler.buffers import DrainPlan, partial_words
from neuflow.compiler.cut import needs_helper
from neuflow.compiler.descriptors import box, descriptor, in_chw_order, linear
from neuflow.compiler.fit import plan_drain
from neuflow.compiler.geometry import ConvShape, backward, connections, conv_shape
from neuflow.compiler.mapping import Chain, Piece, Region, Span, Step
from neuflow.compiler.routes import Record, route, walk_routes
from neuflow.compiler.schedule import Schedule
from neuflow.compiler.turn import RowPlace, Turn
from neuflow.compiler.weights import Weights
from neuflow.grid import GridConfig
from neuflow.layout import AluOp, Kind, Operand, RouterIn, RouterOut, Row, WindowOp


class Stage(enum.IntEnum):
    """When a packet is sent: ``assemble`` orders them. The last four may go behind a fence."""

    WEIGHTS = 0  # load while earlier passes compute
    SETUP = 1  # waits for its data
    EARLY = 2  # rows that need not wait for the fence
    ROWS = 3  # what the array waits for
    OPERANDS = 4
    ROUTES = 5  # may have to wait for the end of the pass before
    WRITES = 6


@dataclass(frozen=True)
class Packet:
    """One configuration packet: fields of the unit's layout (of every ROUTE word, for a router).

    ``space``: what the field ``base`` of a READ or WRITE counts from.
    """

    stage: Stage
    kind: Kind
    sub: int
    column: int
    words: tuple[Record, ...]
    space: Space | None = None

    def values(self) -> list[dict[str, int]]:
        """Return the fields of each record of the packet."""
        return [dict(record) for record in self.words]


def _packet(
    stage: Stage,
    kind: Kind,
    column: int,
    fields: Mapping[str, int],
    sub: int = 0,
    space: Space | None = None,
) -> Packet:
    return Packet(stage, kind, sub, column, (tuple(sorted(fields.items())),), space)


# --- one turn -----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Configurer:
    """Makes the packets of turns."""

    grid: GridConfig
    schedule: Schedule
    weights: Weights

    def packets(self, turn: Turn) -> Iterator[Packet]:
        """Yield the packets of all columns of a turn."""
        for i, piece in enumerate(turn.pieces):
            if turn.chain.head is not None:
                yield from self.convolver(turn, i)
            partial = turn.sums[i] if piece.partial_out else None
            yield from self.operands(turn, piece, turn.sums[i])
            if partial is None:
                yield from self.steps(turn.chain, piece)
            yield from self.way_out(turn, i, partial)

    # Convolver.

    def convolver(self, turn: Turn, i: int) -> Iterator[Packet]:
        """Rows, weights, array and drain of piece ``i``; shared streams come from one column."""
        piece, chain = turn.pieces[i], turn.chain
        shape, rows = conv_shape(chain, piece), turn.rows[i]
        assert rows is not None
        alike = next(([turn.pieces[k] for k in r] for r in turn.readings() if i in r), [])
        yield from self.weights_packet(turn, piece)
        source = piece.column if rows.resident else alike[0].column
        listen = {"source": source} | _rows(rows)
        yield _packet(Stage.SETUP, Kind.CONV_ROWS, piece.column, listen)
        fields = array(shape, rows, self.grid)
        if piece.by_tap:
            fields |= _by_tap(chain, piece, shape, rows, self.grid)
        yield _packet(Stage.SETUP, Kind.CONV_ARRAY, piece.column, fields)
        drain = _drain(chain, piece, shape, self.grid)
        yield _packet(Stage.SETUP, Kind.CONV_DRAIN, piece.column, drain)
        if not rows.resident and piece is alike[0]:
            space, last = self.place(chain.source).space, rows.plan.rows
            for stage, records in (
                (Stage.EARLY, Span(0, rows.early)), (Stage.ROWS, Span(rows.early, last)),
            ):  # fmt: skip
                if records.size:
                    walk = self.rows_read(chain, piece, shape, records) | {"dest": _mask(alike)}
                    yield _packet(stage, Kind.READ_ROWS, piece.column, walk, space=space)

    def weights_packet(self, turn: Turn, piece: Piece) -> Iterator[Packet]:
        """Yield the packet that a piece's weights begin; none where they lie within an earlier one."""
        at = self.weights.of(turn, piece)
        if not at.packet:
            return
        same = [p for p in turn.pieces if self.weights.of(turn, p) == at]
        if piece is same[0]:
            walk = descriptor(at.parameters, [(at.packet, 1)]) | {"dest": _mask(same)}
            yield _packet(
                Stage.WEIGHTS, Kind.READ_WEIGHTS, piece.column, walk, space=Space.WEIGHTS
            )
        listen = {"source": same[0].column, "lead": at.beats}
        yield _packet(Stage.WEIGHTS, Kind.CONV_WEIGHTS, piece.column, listen)

    def place(self, tensor: str) -> Place:
        """Place of a tensor."""
        return self.schedule.places[tensor]

    def rows_read(
        self, chain: Chain, piece: Piece, shape: ConvShape, records: Span
    ) -> dict[str, int]:
        """Descriptor of these row records of a piece; of all, where a dense layer flattens images."""
        place, part = self.place(chain.source), piece.part
        assert part is not None
        if not chain.flattens:
            place = self.view(chain, chain.source)
            first, end = (shape.rows.lo + record * shape.every for record in records)
            rows = Span(first, min(end, shape.rows.hi))
            return box(place, piece.image, Region(part.channels, rows, shape.cols), shape.every)
        # One run for every record of every image: the flattened input in the order of memory.
        record = chain.source_shape[0] * chain.source_shape[2]
        y, word = divmod(part.channels.lo, record)
        run = min(part.channels.size, record)
        side = chain.shapes[-1][2]
        return descriptor(
            place.base + place.of(shape.rows.lo * side + shape.cols.lo) + y * place.record + word,
            [
                (shape.rows.size, side * place.image), (shape.cols.size, place.image),
                (part.channels.size // run, place.record), (run, 1),
            ],
        )  # fmt: skip

    # Operand line.

    def operands(self, turn: Turn, piece: Piece, sums: Place | None) -> Iterator[Packet]:
        """Reads on operand lines: partial sums, the stream itself, an operand of an ALU."""
        chain = turn.chain
        regions = backward(chain, piece.out)
        if piece.partial_in:
            assert sums is not None
            words = _sum_words(chain, piece, self.grid)
            yield self.operand_read(piece.column, sums, Operand.CONVOLVER, linear(sums, words))
        if chain.head is None:
            place = self.view(chain, chain.source)
            walk = box(place, piece.image, regions[0])
            if chain.reorder:
                walk = in_chw_order(place, piece.image, chain.source_shape)
            yield self.operand_read(piece.column, place, Operand.OPERATOR, walk)
        if not piece.partial_out:
            for step, region in zip(chain.steps, regions, strict=False):
                if step.operand is None:
                    continue
                place = self.view(chain, step.operand)
                column = self.helper(piece.column) if needs_helper(chain) else piece.column
                walk = box(place, piece.image, region)
                yield self.operand_read(column, place, Operand.OPERATOR, walk)

    def view(self, chain: Chain, tensor: str) -> Place:
        """Place of a tensor as the chain sees it."""
        place = self.place(tensor)
        return place.batched(chain.shapes[-1][2]) if chain.batched else place

    def operand_read(
        self, column: int, place: Place, dest: Operand, walk: dict[str, int]
    ) -> Packet:
        """Packet for the operand line of a column."""
        fields = walk | {"dest": int(dest)}
        return _packet(Stage.OPERANDS, Kind.READ_OPERAND, column, fields, space=place.space)

    def helper(self, column: int) -> int:
        """Neighbour that brings a second operand: the column to the east."""
        return column + 1

    # Operator and mapper tiles.

    def steps(self, chain: Chain, piece: Piece) -> Iterator[Packet]:
        """Configuration of the units that the stream passes."""
        regions = backward(chain, piece.out)
        alus = 0
        tensors = self.schedule.mapping.graph.tensors
        for step, before, after in zip(chain.steps, regions, regions[1:], strict=False):
            attrs = step.node.attrs
            narrow = int((tensors[step.node.output].bits or 16) == 8)
            if step.node.op == "alu":
                fields = {name: attrs[name] for name in ("shift_a", "shift_b", "shift")}
                fields |= {"op": AluOp[attrs["kind"].upper()], "narrow": narrow}
                yield _packet(Stage.SETUP, Kind.ALU, piece.column, fields, sub=alus)
                alus += 1
            elif step.node.op == "pool":
                fields = _window(step, before, after) | {"narrow": narrow}
                yield _packet(Stage.SETUP, Kind.WINDOW, piece.column, fields)
            else:
                fields = mapper_model.fields(attrs["table"], 8 if narrow else 16)
                yield _packet(Stage.SETUP, Kind.MAPPER, piece.column, fields)

    # Routers and the write port.

    def way_out(self, turn: Turn, i: int, partial: Place | None) -> Iterator[Packet]:
        """Routes of piece ``i`` and its writes."""
        piece, chain = turn.pieces[i], turn.chain
        place = self.view(chain, chain.output)
        steps = () if partial is not None else chain.steps
        routes, source = walk_routes(chain, steps, self.grid)
        for row, records in routes.items():
            yield Packet(Stage.ROUTES, Kind.ROUTER, row, piece.column, records)
        if partial is None and needs_helper(chain):
            record = route(RouterOut.WEST, RouterIn.GLOBAL)
            yield Packet(Stage.ROUTES, Kind.ROUTER, Row.OPERATOR, self.helper(piece.column), (record,))
        if partial is not None:
            place, walks = partial, [linear(partial, _sum_words(chain, piece, self.grid))]
        elif chain.reorder:
            walks = [in_chw_order(place, piece.image, chain.shapes[-1])]
        else:
            walks = [
                box(place, piece.image, piece.out._replace(rows=rows)) for rows in turn.writes(i)
            ]
        for walk in walks:
            fields = walk | {"source": source}
            yield _packet(Stage.WRITES, Kind.WRITE, piece.column, fields, space=place.space)


def _mask(pieces: list[Piece]) -> int:
    return sum(1 << piece.column for piece in pieces)


def _sum_words(chain: Chain, piece: Piece, grid: GridConfig) -> int:
    return partial_words(conv_shape(chain, piece), grid)


# --- fields of the units --------------------------------------------------------------------------


def _rows(rows: RowPlace) -> dict[str, int]:
    plan = rows.plan
    names = (
        "scatter", "width", "channels", "rows", "channel_step", "ring_words", "pitch", "ring_rows",
        "x_step", "phase_x_step", "phase_y_step", "stride",
    )  # fmt: skip
    fields = {name: getattr(plan, name) for name in names}
    if rows.resident:
        fields["rows"] = 0
    return fields | {"base": rows.base, "ahead": rows.ahead, "two": int(rows.two)}


def array(shape: ConvShape, rows: RowPlace, grid: GridConfig) -> dict[str, int]:
    """Fields of CONV_ARRAY: docs/machine.md, "Array"."""
    plan, s = rows.plan, shape.stride
    ring = plan.ring_words or grid.row_words
    groups = shape.groups(grid)
    first, last = (shape.read[0], shape.read[-1]) if shape.read else (0, 0)
    mask = sum(1 << c - first - 1 for c in range(first, last) if c not in shape.read)
    return {
        "groups": groups, "blocks": shape.blocks(grid), "channels": shape.channels_added,
        "by_block": int(shape.block_channels > 0), "by_tap": 0, "gather": 0,
        "kernel_y": shape.kernel_y, "kernel_x": shape.kernel_x, "pitch": shape.pitch,
        "width": shape.width, "height": shape.height, "stride": s,
        "tap_x": shape.tap_x, "tap_y": shape.tap_y,
        "dilation_x": shape.dilation_x, "dilation_y": shape.dilation_y,
        "base": rows.base + first * plan.array_step, "channel_step": plan.array_step,
        "ring_words": plan.ring_words,
        "start": (shape.tap_y // s * plan.pitch + shape.tap_x // s) % ring,
        "step_x": shape.dilation_x // s % ring,
        "step_y": shape.dilation_y // s * plan.pitch % ring,
        "row_pitch": shape.row_pitch(grid) % ring,
        "phase_x": shape.tap_x % s, "phase_y": shape.tap_y % s,
        "phase_dx": shape.dilation_x % s, "phase_dy": shape.dilation_y % s,
        "phase_x_step": plan.phase_x_step, "phase_y_step": plan.phase_y_step,
        "need": plan.need, "release": plan.release, "rows": plan.rows,
        "stream_weights": int(groups == 1),
        "width_out": shape.out_width, "height_out": shape.out_height,
        "maps": shape.channel_maps or shape.maps - (shape.blocks(grid) - 1) * grid.maps,
        "absent0": mask & (1 << 32) - 1, "absent1": mask >> 32,
    }  # fmt: skip


def _by_tap(
    chain: Chain, piece: Piece, shape: ConvShape, rows: RowPlace, grid: GridConfig
) -> dict[str, int]:
    """Fields of CONV_ARRAY that are others by tap: as if a step were a tap."""
    assert piece.part is not None
    first = int(connections(chain, piece.out.maps, piece.part)[0, 0])
    gather = shape.gathers(grid)
    # From a reading to the next: one serves all steps of a row but that of last taps.
    step = grid.maps * (shape.row_steps(grid) if gather else 1)
    return {
        "by_tap": 1, "gather": int(gather), "kernel_x": shape.row_steps(grid),
        "maps": (shape.kernel_y if gather else shape.kernel_x) % grid.maps,
        "dilation_x": step, "step_x": step,
        "base": rows.base + first * rows.plan.array_step,
    }  # fmt: skip


def _drain(chain: Chain, piece: Piece, shape: ConvShape, grid: GridConfig) -> dict[str, int]:
    plan = DrainPlan(1, 1) if piece.partial_out else plan_drain(chain, piece, grid)
    assert plan is not None
    form = piece.form(chain)
    return {
        "groups": shape.groups(grid), "blocks": shape.blocks(grid), "maps": shape.maps,
        "pitch": shape.pitch, "width": shape.out_width, "height": shape.out_height,
        "partial_in": int(piece.partial_in), "partial_out": int(piece.partial_out),
        "narrow": int(chain.bits == 8), "by_tap": int(piece.by_tap),
        "slots": plan.slots, "map_step": plan.map_step, "beats": form.beats, "shift": form.shift,
    }  # fmt: skip


def _window(step: Step, before: Region, after: Region) -> dict[str, int]:
    attrs = step.node.attrs
    (ky, kx), (sy, sx), (top, left) = attrs["kernel"], attrs["stride"], attrs["pads"][:2]
    return {
        "op": WindowOp[attrs["kind"].upper()], "maps": before.maps.size,
        "width": before.cols.size, "height": before.rows.size,
        "width_out": after.cols.size, "height_out": after.rows.size,
        "kernel_x": kx, "kernel_y": ky, "stride_x": sx, "stride_y": sy,
        # Padding that is left of this piece: from its first window to its first real value.
        "pad_x": before.cols.lo - (after.cols.lo * sx - left),
        "pad_y": before.rows.lo - (after.rows.lo * sy - top),
        "m": _at(attrs["m"], after), "s": _at(attrs["s"], after), "zero": attrs["zero"],
    }  # fmt: skip


def _at(value: int | NDArray[np.int64], region: Region) -> int:
    """Return a number that may depend on the output place; within a piece it is the same."""
    return int(value if np.ndim(value) == 0 else np.asarray(value)[region.rows.lo, region.cols.lo])
