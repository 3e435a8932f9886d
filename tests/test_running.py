"""``docs/machine.md``, "Running a program": a host that knows that page alone makes the same frames."""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuflow
from neuflow import layout
from neuflow.run import frames
from tests.onnx_builder import build, conv, node, normal, onnx

PAGE = 4096


def sections(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return the grid's hash and the sections, every length and CRC looked at."""
    magic, version, grid, length, count = struct.unpack_from("<8sI32sQI", data)
    assert (magic, version, length) == (b"neuflow\0", layout.PROGRAM_VERSION, len(data))
    assert struct.unpack_from("<I", data, PAGE - 4)[0] == zlib.crc32(data[: PAGE - 4])
    found = {}
    for number in range(count):
        name, offset, size, crc = struct.unpack_from("<16sQQI", data, 56 + 36 * number)
        assert size % PAGE == 0 and zlib.crc32(data[offset : offset + size]) == crc
        found[name.rstrip(b"\0").decode()] = data[offset : offset + size]
    return grid, found


def plain(value: Any) -> Any:
    """Return JSON of a host section with its lists and objects as such."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        ((key, inner), *more) = value.items()
        if not more and key == "tuple":
            return plain(inner)
        if not more and key[0].isupper():
            return plain(inner)
        return {key: plain(item) for key, item in value.items()}
    return value


def places(port: dict[str, Any], batch: int) -> dict[tuple[int, ...], int]:
    """Return the word of a frame at which each value (n, c, y, x) lies."""
    channels, height, width = port["tensor"]["shape"]
    found = {}
    for n, c, y, x in itertools.product(*map(range, (batch, channels, height, width))):
        if port["along_x"]:
            found[n, c, y, x] = port["offset"] + ((c * height + y) * width + x) * batch + n
        else:
            record = port["offset"] + n * port["image_step"] + y * port["record_step"]
            found[n, c, y, x] = record + c * width + x
    return found


MODELS = {
    "images": (build([conv("x", "c", "w"), node("Relu", ["c"], "y")], {"w": normal(4, 3, 3, 3)}), 2),
    "vectors": (build([node("Gemm", ["x", "w"], "y")], {"w": normal(9, 5)}, {"x": ("N", 9)}), 3),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_host_that_knows_the_page_alone(name: str, tmp_path: Path) -> None:
    model, batch = MODELS[name]
    onnx.save(model, tmp_path / "m.onnx")
    x = normal(batch, *((3, 6, 8) if name == "images" else (9,)))
    program = neuflow.compile(tmp_path / "m.onnx", "tiny", x, batch=batch)
    program.save(tmp_path / "m.nfp")
    grid, found = sections((tmp_path / "m.nfp").read_bytes())
    host = plain(json.loads(found["host"].rstrip(b"\0")))

    assert int.from_bytes(grid[:4], "big") == int(program.grid.hash()[:8], 16)
    assert found["device"][: len(program.ir.device)] == program.ir.device
    for key in ("batch", "work_words", "input_words", "output_words"):
        assert host[key] == getattr(program.ir, key)

    (port,) = host["inputs"]
    frame = np.zeros(host["input_words"], np.int64)
    tensor = port["tensor"]
    values = x.astype(np.float64).reshape(batch, *tensor["shape"])
    top = 1 << (tensor["bits"] - 1)
    for place, word in places(port, batch).items():
        exact = values[place] * 2.0 ** tensor["point"]
        frame[word] = min(max(int(np.floor(exact + 0.5)), -top), top - 1)
    words = neuflow.api.quantise_inputs(program.ir, x)
    assert np.array_equal(frame, frames.pack(program.ir, words)[0])

    (port,) = host["outputs"]
    out = np.arange(host["output_words"], dtype=np.int16)
    got = frames.unpack(program.ir, out[None], batch)["y"]
    for place, word in places(port, batch).items():
        assert got[place] == out[word]
