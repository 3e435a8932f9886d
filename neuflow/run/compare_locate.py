"""From a word of a WRITE packet back to the network: layer, map, row, pixel, and its operands.

The program holds the quantised graph; the compiler's own passes, run again on it, give the pieces
and the places of all tensors, so that nothing of them is said twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.convolver_model import tap_order
from neuflow.blocks.parameters_model import Form
from neuflow.compiler import Stages, run_passes
from neuflow.compiler.allocate import Space
from neuflow.compiler.geometry import ConvShape, backward, connections, conv_shape
from neuflow.compiler.mapping import Chain, Piece, Region, Span
from neuflow.compiler.schedule import Schedule
from neuflow.compiler.turn import Turn
from neuflow.compiler.weights import Weights, memory_order
from neuflow.fixed import PARTIAL_WORDS
from neuflow.grid import GridConfig
from neuflow.ir import Program, Words
from neuflow.run import golden
from neuflow.run.device import Device, Written
from neuflow.run.device_convolver import DeviceConvolver
from neuflow.run.measure import origin

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Spot:
    """A word of a tensor: ``image`` of the whole run; ``sum_word`` 0..2 of a partial sum, else None.

    ``exists``: False for partial sums of lanes and maps that no output has.
    """

    turn: Turn
    piece: Piece
    image: int
    map: int
    row: int
    pixel: int
    sum_word: int | None = None
    exists: bool = True


@dataclass(frozen=True)
class Tap:
    """A product of a sum, or an operand of another unit (without weights).

    Words as golden has them; ``found_*``: as they lie in the program's and the grid's memory.
    """

    tensor: str
    channel: int
    row: int
    pixel: int
    word: int
    found_word: int
    weight: int | None = None
    found_weight: int | None = None

    @property
    def differs(self) -> bool:
        """Whether what the grid reads is not what golden reads."""
        return (self.word, self.weight) != (self.found_word, self.found_weight)


@dataclass(frozen=True)
class Sum:
    """An accumulator, bias included: that of golden, and that of the device section's words."""

    row: int
    pixel: int
    golden: int
    device: int


@dataclass(frozen=True)
class Operands:
    """What an output value is made from: its sums, and the taps of sum ``chosen``."""

    sums: tuple[Sum, ...]
    chosen: int
    taps: tuple[Tap, ...]


class Locator:
    """Knows where each word of a program's WRITE packets belongs.

    ``known``: False where this compiler lays the program out in another way than the file has it;
    then nothing but the layer can be named.
    """

    def __init__(self, program: Program, inputs: Mapping[str, Words]) -> None:
        self.program = program
        nouns = {"graph": None, "quantised": program.graph}
        stages = Stages(
            None, program.grid, batch=program.batch, cuts=dict(program.cuts), nouns=nouns
        )
        self.schedule: Schedule = run_passes(stages, "schedule")["schedule"]
        self.known = str(self.schedule) == program.schedule
        self.turns = {turn.label: turn for turn in self.schedule.turns}
        self.tensors = self._golden(inputs) if self.known else {}

    def _golden(self, inputs: Mapping[str, Words]) -> dict[str, Words]:
        """Evaluate every tensor of the machine's own graph; frames are filled up with zeros."""
        graph, batch = self.schedule.mapping.graph, self.program.batch
        filled = {}
        for name, words in inputs.items():
            missing = -len(words) % batch
            filled[name] = np.pad(words, ((0, missing), (0, 0), (0, 0), (0, 0)))
        values = golden.evaluate(self.program.graph, filled)
        for node in graph.nodes:
            if node.output not in values:
                operands = [values[name] for name in node.inputs]
                made = operands[0] if node.op == "copy" else golden.OPERATIONS[node.op](
                    node, graph.bits, *operands
                )
                values[node.output] = made
        return values

    # Words of a packet.

    def turn(self, written: Written) -> tuple[Turn, Piece]:
        """Return the pass and the piece that a WRITE packet belongs to."""
        label = origin(self.program, written.config.word).rsplit("/column", 1)[0]
        turn = self.turns[label]
        return turn, next(p for p in turn.pieces if p.column == written.column)

    def golden_words(self, written: Written) -> Int | None:
        """Return what golden has for a WRITE packet; None for partial sums."""
        turn, piece = self.turn(written)
        if piece.partial_out:
            return None
        chain, first = turn.chain, written.frame * self.program.batch
        tensor = self.tensors[chain.output]
        if chain.reorder:
            whole = tensor[first + piece.image].reshape(-1)
        else:
            whole = self._box(chain, tensor, first, piece.image, piece.out).reshape(-1)
        return whole[written.first :][: len(written.words)]

    def _box(self, chain: Chain, tensor: Words, first: int, image: int, box: Region) -> Int:
        """Return a box of a tensor as the chain sees it, in the order of streams (y, map, x)."""
        maps, rows, cols = (slice(span.lo, span.hi) for span in box)
        if chain.batched:
            bands = tensor[first : first + self.program.batch].reshape(*chain.shapes[-1][1:], -1)
            return bands[rows, cols, maps].transpose(0, 2, 1)
        return tensor[first + image][maps, rows, cols].transpose(1, 0, 2)

    def spot(self, written: Written, number: int) -> Spot:
        """Return where word ``number`` of a packet belongs."""
        turn, piece = self.turn(written)
        number += written.first
        chain, out, part = turn.chain, piece.out, None
        if piece.partial_out:
            shape, grid = conv_shape(chain, piece), self.program.grid
            sizes = (shape.groups(grid), shape.blocks(grid), grid.pixels, PARTIAL_WORDS, grid.maps)
            group, block, lane, part, each = _unravel(number, sizes)
            out = backward(chain, out)[0]
            row, pixel = divmod(group * grid.pixels + lane, shape.pitch)
            channel = block * grid.maps + each
        elif chain.reorder:
            channel, row, pixel = _unravel(number, chain.shapes[-1])
        else:
            box = (out.rows.size, out.maps.size, out.cols.size)
            row, channel, pixel = _unravel(number, box)
        channel, row, pixel = channel + out.maps.lo, row + out.rows.lo, pixel + out.cols.lo
        exists = channel < out.maps.hi and row < out.rows.hi and pixel < out.cols.hi
        image = written.frame * self.program.batch + piece.image
        if chain.batched:
            band = row * chain.shapes[-1][2]
            image, row, pixel = written.frame * self.program.batch + band + pixel, 0, 0
        return Spot(turn, piece, image, channel, row, pixel, part, exists)

    # Operands.

    def operands(self, device: Device, spot: Spot) -> Operands:
        """Return what the value at ``spot`` is made from; call it while its packet is written."""
        chain = spot.turn.chain
        if chain.reorder or not spot.exists:
            return Operands((), 0, ())
        y, x = spot.row, spot.pixel
        if chain.batched:
            y, x = divmod(spot.image % self.program.batch, chain.shapes[-1][2])
        at = Region(Span(spot.map, spot.map + 1), Span(y, y + 1), Span(x, x + 1))
        boxes = (at,) if spot.sum_word is not None else backward(chain, at)
        taps = [] if spot.sum_word is not None else [
            tap
            for step, box in zip(chain.steps, boxes, strict=False)
            if step.operand is not None
            for tap in self._words(device, spot, step.operand, box)
        ]  # fmt: skip
        if chain.head is None:
            return Operands((), 0, (*self._words(device, spot, chain.source, boxes[0]), *taps))
        used = self._device_weights(spot)
        sums, products = [], []
        for row in range(boxes[0].rows.lo, boxes[0].rows.hi):
            for pixel in range(boxes[0].cols.lo, boxes[0].cols.hi):
                one, its = self._sum(device, spot, (row, pixel), used)
                sums.append(one)
                products.append(its)
        chosen = next((i for i, one in enumerate(sums) if one.golden != one.device), 0)
        return Operands(tuple(sums), chosen, (*products[chosen], *taps))

    def _words(self, device: Device, spot: Spot, tensor: str, box: Region) -> Iterator[Tap]:
        """Yield the words of a box of a tensor, golden's and those in the grid's memory."""
        batched = spot.turn.chain.batched
        for channel in range(box.maps.lo, box.maps.hi):
            for row in range(box.rows.lo, box.rows.hi):
                for pixel in range(box.cols.lo, box.cols.hi):
                    yield self._tap(
                        device, spot, tensor, (channel, 0, 0) if batched else (channel, row, pixel)
                    )

    def _tap(
        self, device: Device, spot: Spot, tensor: str, at: tuple[int, int, int],
        weight: int | None = None, found: int | None = None,
    ) -> Tap:  # fmt: skip
        """Return one word of the image of ``spot``; 0 outside the tensor (padding)."""
        words, (channel, row, pixel) = self.tensors[tensor], at
        inside = 0 <= row < words.shape[2] and 0 <= pixel < words.shape[3]
        word = int(words[spot.image, channel, row, pixel]) if inside else 0
        there = int(device.memory.data[self._address(device, spot, tensor, at)]) if inside else 0
        return Tap(tensor, channel, row, pixel, word, there, weight, found)

    def _address(
        self, device: Device, spot: Spot, tensor: str, at: tuple[int, int, int]
    ) -> int:
        place, (channel, row, pixel) = self.schedule.places[tensor], at
        frame, image = divmod(spot.image, self.program.batch)
        start = {
            Space.WORK: device.work,
            Space.INPUT: device.input + frame * self.program.input_words,
            Space.OUTPUT: device.output + frame * self.program.output_words,
            Space.SCRATCHPAD: device.scratchpad,
        }[place.space]
        inner = place.of(image) + row * place.record + channel * place.channel
        return start + place.base + inner + pixel * place.pixel

    # Sums of products.

    def _sum(
        self, device: Device, spot: Spot, at: tuple[int, int],
        used: tuple[NDArray[np.bool_], Int, int],
    ) -> tuple[Sum, list[Tap]]:  # fmt: skip
        """Return the accumulator at one (row, pixel) of the head's output, and its products.

        ``used``: see :meth:`_device_weights`. For partial sums only the products of the parts so
        far count, and no bias.
        """
        chain = spot.turn.chain
        assert chain.head is not None
        (row, pixel), (mask, found, bias) = at, used
        weights = np.asarray(chain.head.attrs["weight"])[spot.map]
        golden_bias = int(chain.head.attrs["bias"][spot.map])
        if spot.sum_word is not None:
            golden_bias = bias = 0
        taps = []
        for index in np.ndindex(weights.shape):
            if mask[index] and (weights[index] or found[index]):
                source = self._input(spot, index, row, pixel)
                pair = (int(weights[index]), int(found[index]))
                taps.append(self._tap(device, spot, chain.source, source, *pair))
        expected = golden_bias + sum(tap.word * (tap.weight or 0) for tap in taps)
        there = bias + sum(tap.found_word * (tap.found_weight or 0) for tap in taps)
        return Sum(row, 0 if chain.batched else pixel, expected, there), taps

    def _input(
        self, spot: Spot, index: tuple[int, ...], row: int, pixel: int
    ) -> tuple[int, int, int]:
        """Return channel, row, pixel of the input that weight ``index`` of a map multiplies."""
        chain = spot.turn.chain
        assert chain.head is not None
        if chain.is_dense:
            channels, height, width = chain.source_shape
            c, y, x = np.unravel_index(index[0], (channels, height, width))
            return int(c), int(y), int(x)
        attrs, (channel, ky, kx) = chain.head.attrs, index
        per_group = np.asarray(attrs["weight"]).shape[1]
        each = len(attrs["weight"]) // attrs["groups"]
        return (
            spot.map // each * per_group + channel,
            row * attrs["stride"][0] - attrs["pads"][0] + ky * attrs["dilation"][0],
            pixel * attrs["stride"][1] - attrs["pads"][1] + kx * attrs["dilation"][1],
        )

    def _parts(self, spot: Spot) -> list[tuple[Turn, Piece]]:
        """Return the pieces whose products go into the sum at ``spot``, in order."""
        found = []
        for turn in self.schedule.turns:
            if turn.chain is not spot.turn.chain:
                continue
            for piece in turn.pieces:
                if (piece.image, piece.out) == (spot.piece.image, spot.piece.out):
                    found.append((turn, piece))
            if turn is spot.turn:
                break
        return found

    def _device_weights(self, spot: Spot) -> tuple[NDArray[np.bool_], Int, int]:
        """Return which weights of the map are used, what the device section has, and its bias."""
        chain, grid = spot.turn.chain, self.program.grid
        assert chain.head is not None
        shape = np.asarray(chain.head.attrs["weight"]).shape[1:]
        mask, words, bias = np.zeros(shape, bool), np.zeros(shape, np.int64), 0
        packed = Weights(self.schedule, grid)
        begin = self._weights_begin(packed)
        section = np.frombuffer(self.program.device, "<i2").astype(np.int64)
        for turn, piece in self._parts(spot):
            packet = packed.of(turn, piece).within(section[begin:])
            number = spot.map - piece.out.maps.lo
            form = piece.form(chain)
            taps, parameters = _unpacked(conv_shape(chain, piece), form, packet, number, grid)
            box = _taps_read(chain, piece, spot.map)
            mask[box] = True
            words[box] = taps.reshape(words[box].shape)
            bias = int(parameters[0])
        return mask, words, bias

    def _weights_begin(self, packed: Weights) -> int:
        """Return the first word (16 bit) of the packed weights in the device section."""
        (_, first), *_ = packed.labels()
        return 2 * next(word for word, label in self.program.origins if label == first)


def _unpacked(
    conv: ConvShape, form: Form, packet: tuple[Int, Int], number: int, grid: GridConfig
) -> tuple[Int, Int]:
    """Return weights (channels, ky, kx) and (bias, m, s, zero) of map ``number`` of a piece.

    ``packet``: its words of parameters and of weights.
    """
    lanes = grid.maps if conv.by_tap else 1  # of a map
    gather = conv.gathers(grid)
    fields = {
        "blocks": conv.blocks(grid), "channels": conv.channels_added, "kernel_y": conv.kernel_y,
        "kernel_x": conv.row_steps(grid) if conv.by_tap else conv.kernel_x,
        "gather": int(gather), "stream_weights": 1,
    }  # fmt: skip
    parameters, blocks = DeviceConvolver(grid)._weights(fields, asdict(form), *packet)
    of_lanes = blocks.transpose(0, 2, 1).reshape(len(blocks) * grid.maps, -1)
    mine = of_lanes[number * lanes : (number + 1) * lanes, : conv.steps(grid)].T
    words = mine.reshape(conv.channels_added, -1)
    if conv.by_tap:
        order, _ = tap_order(conv.kernel_y, conv.kernel_x, lanes, gather)
        words = words[:, np.argsort(order.reshape(-1))[(order < 0).sum() :]]
    taps = words.reshape(conv.channels_added, conv.kernel_y, conv.kernel_x)
    return taps, parameters[:, number * lanes]


def _taps_read(chain: Chain, piece: Piece, number: int) -> tuple[Int, ...]:
    """Return which weights (channel, ky, kx; or input) of map ``number`` a piece has."""
    part, conv = piece.part, conv_shape(chain, piece)
    assert part is not None and chain.head is not None
    if chain.is_dense:
        return (memory_order(chain.source_shape)[part.channels.lo : part.channels.hi],)
    channels = np.array(conv.read or range(conv.channels_added))
    if piece.by_tap:
        channels = connections(chain, piece.out.maps, part)[number - piece.out.maps.lo]
    # The channels of a group are numbered from its first one.
    first = part.channels.lo % chain.head.attrs["weight"].shape[1]
    return np.ix_(first + channels, range(*part.ky), range(*part.kx))


def _unravel(number: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the indices of value ``number`` of an array of ``sizes``."""
    return tuple(int(index) for index in np.unravel_index(number, sizes))


__all__ = ["Locator", "Operands", "Spot", "Sum", "Tap"]
