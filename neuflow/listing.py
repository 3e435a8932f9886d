"""The stages of a program as text, for people: ``neuflow inspect``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from neuflow import layout
from neuflow.blocks.convolver_model import channel_steps
from neuflow.grid import GridConfig
from neuflow.ir import Node, Program, Tensor
from neuflow.layout import Cause, Kind, Layout, Opcode, Relocate, RouterIn, RouterOut

_NAMES = {
    "input": {port.value: port.name for port in RouterIn},
    "output": {port.value: port.name for port in RouterOut},
}


def stage(program: Program, name: str) -> str:
    """Return one stage as text: graph, quantised, mapping, schedule or program."""
    if name == "graph":
        return graph(program)
    if name == "quantised":
        return quantised(program)
    if name == "program":
        return disassemble(program)
    return str({"mapping": program.mapping, "schedule": program.schedule}[name])


def graph(program: Program) -> str:
    """Return the operations with the shapes of one image's tensors."""
    lines = [f"{program.graph.name}: (C, H, W) of one image"]
    for node in program.graph.nodes:
        lines.append(f"{node.output:<24} {_shape(program, node.output):<16} {_call(node)}")
    for host in program.graph.host:
        lines.append(f"{host.output:<24} {'on the host':<16} {host.op}({host.input})")
    return "\n".join(lines)


def _call(node: Node) -> str:
    plain = {k: v for k, v in node.attrs.items() if isinstance(v, int | float | str | tuple)}
    attrs = "".join(f", {key}={value}" for key, value in plain.items())
    weight = node.attrs.get("weight")
    size = f", weight {'x'.join(map(str, weight.shape))}" if weight is not None else ""
    return f"{node.op}({', '.join(node.inputs)}{attrs}{size})"


def _shape(program: Program, name: str) -> str:
    return "x".join(str(size) for size in program.graph.tensors[name].shape)


def quantised(program: Program) -> str:
    """Return the tensors' formats and the range of every integer constant."""
    lines = [f"{program.graph.name}: value = word * scale * 2**-point, scale 1 where none is named"]
    for name in program.graph.inputs:
        lines.append(f"{_format(program.graph.tensors[name]):<40} input")
    for node in program.graph.nodes:
        constants = "".join(f", {k} {_range(v)}" for k, v in node.attrs.items() if _is_constant(v))
        tensor = program.graph.tensors[node.output]
        lines.append(f"{_format(tensor):<40} {node.op} {node.name}{constants}")
    return "\n".join(lines)


def _format(tensor: Tensor) -> str:
    scale = "" if tensor.scale == 1 else f", scale {tensor.scale:.4f}"
    return f"{tensor.name}: {tensor.bits} bits, point {tensor.point}{scale}"


def _is_constant(value: object) -> bool:
    return isinstance(value, np.ndarray | int | np.integer)


def _range(value: Any) -> str:
    if np.ndim(value) == 0:
        return str(int(value))
    low, high = int(np.min(value)), int(np.max(value))
    return str(low) if low == high else f"{low}..{high}"


def disassemble(program: Program) -> str:
    """Return the device section's instructions, one a line: word, packet, fields; and origins.

    Behind a CONV_ARRAY packet stands how its pass splits the MACs of all its taps, and at the end
    the same for all passes of a frame (the first causes of ``layout.Cause``).
    """
    starts = dict(program.origins)
    arrays = dict(array_packets(program.device))
    lines = []
    for at, text in instructions(program.device):
        if at in starts:
            lines.append(f"# {starts[at]}")
        lines.append(f"{at:>6}  {text}")
        if at in arrays:
            lines[-1] += f"  # MACs: {_macs(tap_macs(arrays[at], program.grid))}"
    lines.append(f"# MACs of all taps of a frame: {_macs(frame_macs(program))}")
    return "\n".join(lines)


def array_packets(device: bytes) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield (word, fields) of each CONV_ARRAY packet; the field ``columns`` is how many take it."""
    words = np.frombuffer(device[: len(device) // 4 * 4], "<u4")
    for at, _ in instructions(device):
        head = layout.INSTRUCTION.unpack([int(words[at])])
        if head["opcode"] == Opcode.CONFIG and head["kind"] == Kind.CONV_ARRAY:
            payload = words[at + 1 : at + 1 + head["length"]]
            fields = layout.CONV_ARRAY.unpack([int(word) for word in payload])
            yield at, fields | {"columns": head["columns"].bit_count()}


def tap_macs(array: dict[str, int], grid: GridConfig) -> dict[Cause, int]:
    """Return how the MACs of a pass's taps split, in all columns that take the packet."""
    channels = array["channels"] * array["columns"] * array["blocks"]
    kernel = array["kernel_y"], array["kernel_x"]
    taps = channels * channel_steps(*kernel, grid.maps, bool(array["gather"]))
    real, lanes = array["width_out"] * array["height_out"], array["groups"] * grid.pixels
    if array["by_tap"]:
        few = channels * (1 if array["gather"] else array["kernel_y"])
    else:
        few = taps if array["by_block"] else taps // array["blocks"]
    remainder = few * (grid.maps - array["maps"])
    return {
        Cause.USEFUL: real * (taps * grid.maps - remainder),
        Cause.EDGE_LANES: taps * (lanes - real) * grid.maps,
        Cause.MAP_REMAINDER: real * remainder,
    }


def frame_macs(program: Program) -> dict[Cause, int]:
    """Return how the MACs of all taps of a frame split: what the grid counts as well."""
    totals = dict.fromkeys(layout.MAC_CAUSES, 0)
    for _, fields in array_packets(program.device):
        for cause, macs in tap_macs(fields, program.grid).items():
            totals[cause] += macs
    return totals


def _macs(split: dict[Cause, int]) -> str:
    return ", ".join(f"{cause.name} {macs}" for cause, macs in split.items())


def instructions(device: bytes) -> Iterator[tuple[int, str]]:
    """Yield (word, text) of each instruction up to END or the first that is illegal."""
    words = np.frombuffer(device[: len(device) // 4 * 4], "<u4")
    at = 0
    while at < len(words):
        fields = layout.INSTRUCTION.unpack([int(words[at])])
        if fields["opcode"] == Opcode.CONFIG:
            length = fields["length"]
            payload = [int(word) for word in words[at + 1 : at + 1 + length]]
            yield at, _config(fields, payload)
            at += 1 + length
        elif fields["opcode"] == Opcode.FENCE:
            but = " but for the last WRITE" if fields["left"] else ""
            yield at, f"FENCE columns {_columns(fields['columns'])}{but}"
            at += 1
        elif fields["opcode"] == Opcode.END and at + 2 < len(words):
            yield at, f"END input step {words[at + 1]}, output step {words[at + 2]}"
            return
        else:
            yield at, f"ILLEGAL 0x{int(words[at]):08X}"
            return


def _columns(mask: int) -> str:
    found = [str(bit) for bit in range(layout.COLUMN_BITS) if mask >> bit & 1]
    return ",".join(found) or "none"


def _config(fields: dict[str, int], payload: list[int]) -> str:
    if fields["kind"] not in {kind.value for kind in Kind}:
        return f"CONFIG of unknown kind {fields['kind']}"
    kind = Kind(fields["kind"])
    unit = layout.UNITS[kind]
    moved = Relocate(fields["relocate"])
    where = f" +{moved.name}" if moved else ""
    head = f"{kind.name} sub {fields['sub']} columns {_columns(fields['columns'])}{where}:"
    records = [payload[i : i + unit.words] for i in range(0, len(payload), unit.words)]
    return " ".join([head, *(_record(unit, record) for record in records)])


def _record(unit: Layout, words: list[int]) -> str:
    values = unit.unpack(words)
    shown = []
    for key, value in values.items():
        names = _NAMES.get(key, {})
        shown.append(f"{key}={names.get(value, value)}")
    return f"({', '.join(shown)})"
