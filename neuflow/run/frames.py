"""Images to frames of memory words and back, as the program's ports say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from neuflow.errors import InputError
from neuflow.ir import Port, Program, Words

WORD_LOW, WORD_HIGH = -(1 << 15), (1 << 15) - 1


def frame_count(program: Program, images: int) -> int:
    """Frames that hold ``images`` images; the last may be partly filled."""
    return -(-images // program.batch)


def image_count(program: Program, inputs: Mapping[str, Words]) -> int:
    """Check names, shapes and range of ``inputs``; return how many images they hold.

    Raises ``InputError`` where a name is missing or unknown, shapes differ from [N, C, H, W] of the
    port, image counts differ or are 0, or a word does not fit.
    """
    ports = {port.tensor.name: port for port in program.inputs}
    if set(inputs) != set(ports):
        raise InputError(
            f"inputs are {_names(inputs)}; the program takes {_names(ports)}: give exactly those"
        )
    counts = {}
    for name, port in ports.items():
        words = inputs[name]
        if words.ndim != 4 or words.shape[1:] != port.tensor.shape:
            want = ", ".join(str(size) for size in port.tensor.shape)
            raise InputError(f"input {name!r} has shape {words.shape}; give (N, {want})")
        if words.size and not (words.min() >= WORD_LOW and words.max() <= WORD_HIGH):
            raise InputError(f"input {name!r} has words outside 16 bits; quantise them first")
        counts[name] = words.shape[0]
    if len(set(counts.values())) != 1:
        raise InputError(f"inputs hold different numbers of images: {counts}; give equally many")
    images = next(iter(counts.values()))
    if images == 0:
        raise InputError("the batch is empty; give at least one image")
    return images


def _names(names: Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in names)


def addresses(port: Port, batch: int) -> NDArray[np.int64]:
    """Return the word of a frame at which each value lies, int64 [batch, C, H, W].

    A tensor lies record by record: word ``offset + n image_step + y record_step + c W + x``. With
    the batch along x: ``offset + k batch + n``, where k counts the image's values in C, H, W order.
    """
    channels, height, width = port.tensor.shape
    image = np.arange(batch).reshape(-1, 1, 1, 1)
    if port.along_x:
        value = np.arange(port.tensor.size).reshape(1, channels, height, width)
        return port.offset + value * batch + image
    c = np.arange(channels).reshape(1, -1, 1, 1)
    y = np.arange(height).reshape(1, 1, -1, 1)
    x = np.arange(width)
    return port.offset + image * port.image_step + y * port.record_step + c * width + x


def pack(program: Program, inputs: Mapping[str, Words]) -> NDArray[np.int16]:
    """Lay images out as frames, int16 [frames, input_words]; what no image fills is zero."""
    images = image_count(program, inputs)
    frames = frame_count(program, images)
    memory = np.zeros((frames, program.input_words), np.int16)
    for port in program.inputs:
        words = np.zeros((frames * program.batch, *port.tensor.shape), np.int16)
        words[:images] = inputs[port.tensor.name]
        memory[:, addresses(port, program.batch)] = words.reshape(
            frames, program.batch, *port.tensor.shape
        )
    return memory


def holes(program: Program) -> NDArray[np.bool_]:
    """Return which words of a frame no input takes, bool [input_words]: room for other channels."""
    free = np.ones(program.input_words, bool)
    for port in program.inputs:
        free[addresses(port, program.batch)] = False
    return free


def unpack(program: Program, memory: NDArray[np.int16], images: int) -> dict[str, Words]:
    """Read the outputs of ``images`` images from frames, int16 [frames, output_words]."""
    outputs = {}
    for port in program.outputs:
        words = memory[:, addresses(port, program.batch)].astype(np.int64)
        outputs[port.tensor.name] = words.reshape(-1, *port.tensor.shape)[:images]
    return outputs
