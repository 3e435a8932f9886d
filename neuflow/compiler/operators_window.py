"""ONNX operators that slide a window: pooling, means over height and width, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neuflow.compiler.importer import Importer
from neuflow.compiler.importer_graph import image_shape
from neuflow.compiler.importer_step import Data, Step, Value
from neuflow.ir import Shape

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def window_of(
    step: Step, shape: tuple[int, ...], kernel: Sequence[int]
) -> tuple[Pair, Pair, Pads]:
    """Return stride, dilation (y, x) and pads (top, left, bottom, right) of a Conv or pool."""
    rank = len(kernel)
    stride = list(step.attrs.get("strides", [1] * rank))
    dilation = list(step.attrs.get("dilations", [1] * rank))
    mode = _auto_pad(step)
    before, after = [0] * rank, [0] * rank
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        for axis in range(rank):
            size, reach = shape[2 + axis], (kernel[axis] - 1) * dilation[axis] + 1
            out = -(-size // stride[axis])
            total = (out - 1) * stride[axis] + reach - size
            if total < -1:  # ONNX does not say whether the places left over go in part before
                raise step.refuse(
                    f"{mode} with stride {stride[axis]} and a kernel that reaches over {reach} leaves "
                    f"{-total} places out", "write its pads instead of auto_pad",
                )
            total = max(total, 0)
            small, large = total // 2, total - total // 2
            upper = mode == "SAME_UPPER"
            before[axis], after[axis] = (small, large) if upper else (large, small)
    elif mode == "NOTSET":
        pads = list(step.attrs.get("pads", [0] * (2 * rank)))
        before, after = pads[:rank], pads[rank:]
    if min(before + after) < 0:
        raise step.refuse(f"has negative pads {before + after}", "crop the input before the model")
    for axis in range(rank):  # inference may see a place where there is none
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        padded = shape[2 + axis] + before[axis] + after[axis]
        if reach > padded:
            raise step.refuse(
                f"its kernel reaches over {reach}, the padded data are {padded} long",
                "give larger inputs, or pad more",
            )
    if rank == 1:
        stride, dilation, before, after = [1, *stride], [1, *dilation], [0, *before], [0, *after]
    return (
        (int(stride[0]), int(stride[1])),
        (int(dilation[0]), int(dilation[1])),
        (int(before[0]), int(before[1]), int(after[0]), int(after[1])),
    )


def _auto_pad(step: Step) -> str:
    """Return what says how to pad; refuse what ONNX does not know, and two that contradict."""
    mode = step.attrs.get("auto_pad", b"NOTSET").decode()
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise step.refuse(f"auto_pad is {mode!r}", "use NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    pads = list(step.attrs.get("pads", ()))
    if any(pads) if mode == "VALID" else pads and mode != "NOTSET":
        raise step.refuse(f"has both auto_pad {mode} and pads {pads}", "write its pads alone")
    return mode


# --- operators: pooling -------------------------------------------------------------------------


def pool(importer: Importer, step: Step) -> Value:
    """MaxPool, AveragePool."""
    data = step.data()
    kernel = [int(k) for k in step.attrs["kernel_shape"]]
    if len(kernel) not in (1, 2):
        raise step.refuse(f"is over {len(kernel)} spatial dimensions", "1-D and 2-D are possible")
    stride, dilation, pads = window_of(step, data.shape, kernel)
    if dilation != (1, 1):
        raise step.refuse(f"dilations {list(dilation)} are not 1", "use dilations of 1")
    if step.attrs.get("storage_order", 0):
        raise step.refuse("storage_order is 1", "use 0")
    if len(kernel) == 1:
        kernel = [1, *kernel]
    size, out = image_shape(data.shape[1:]), image_shape(step.shapes[0][1:])
    stretched, grown = _stretch(size, out, (kernel[0], kernel[1]), stride, pads)
    if grown and any(end >= k for end, k in zip(stretched[2:], kernel, strict=True)):
        raise step.refuse(
            "ceil_mode = 1 makes windows begin behind the data, which only some tools leave out",
            "use ceil_mode = 0, or operator set 22",
        )
    pads = stretched
    if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        raise step.refuse(
            f"pads {list(pads)} reach the kernel {kernel}", "use pads smaller than the kernel"
        )
    attrs = {"kind": "max", "kernel": (kernel[0], kernel[1]), "stride": stride, "pads": pads}
    if step.node.op_type == "AveragePool":
        padded = bool(step.attrs.get("count_include_pad", 0))
        if padded and grown:
            raise step.refuse(
                "ceil_mode = 1 makes windows reach beyond the padded input", "use ceil_mode = 0"
            )
        attrs |= {"kind": "average"} if padded else _mean(step, size, out, attrs)
    return importer.emit(step, "pool", [data], attrs)


def _mean(step: Step, size: Shape, out: Shape, attrs: dict[str, Any]) -> dict[str, Any]:
    """Return how to average over real values alone: by one divisor, or one that changes."""
    counts = [
        {min(at * s - p + k, n) - max(at * s - p, 0) for at in range(many)}
        for n, many, k, s, p in zip(
            size[1:], out[1:], attrs["kernel"], attrs["stride"], attrs["pads"][:2], strict=True
        )
    ]
    if min(min(found) for found in counts) < 1:
        raise step.refuse("has windows that lie wholly in padding", "use ceil_mode = 0")
    if all(len(found) == 1 for found in counts):
        return {"kind": "average", "divisor": counts[0].pop() * counts[1].pop()}
    return {"kind": "mean"}


def _stretch(
    size: Shape, out: Shape, kernel: Pair, stride: Pair, pads: Pads
) -> tuple[Pads, bool]:
    """Lengthen the pads at the end until all windows of ``out`` fit (ceil_mode)."""
    ends, grown = [], False
    for axis in range(2):
        have = pads[2 + axis]
        need = (out[1 + axis] - 1) * stride[axis] + kernel[axis] - size[1 + axis] - pads[axis]
        grown |= need > have
        # A longer pad than any window reaches would count as padded, and change nothing.
        ends.append(max(0, need))
    return (pads[0], pads[1], ends[0], ends[1]), grown


def global_pool(importer: Importer, step: Step) -> Value:
    """GlobalAveragePool, GlobalMaxPool."""
    data = step.data()
    _, height, width = image_shape(data.shape[1:])
    kind = "average" if step.node.op_type == "GlobalAveragePool" else "max"
    attrs = {"kind": kind, "kernel": (height, width), "stride": (1, 1), "pads": (0, 0, 0, 0)}
    return importer.emit(step, "pool", [data], attrs)


def reduce_mean(importer: Importer, step: Step) -> Value:
    """ReduceMean over height and width."""
    data = step.data()
    axes_input = step.constant(1, "axes")
    axes = step.attrs.get("axes") if axes_input is None else axes_input.reshape(-1).tolist()
    rank = len(data.shape)
    found = sorted(int(a) % rank for a in axes) if axes is not None else []
    if rank not in (3, 4) or found != list(range(2, rank)):
        raise step.refuse(
            f"reduces axes {found or 'all'}", "only the mean over height and width is possible"
        )
    _, height, width = image_shape(data.shape[1:])
    attrs = {
        "kind": "average", "kernel": (height, width), "stride": (1, 1), "pads": (0, 0, 0, 0),
    }  # fmt: skip
    pooled = importer.emit(step, "pool", [data], attrs, (*data.shape[:2], *[1] * (rank - 2)))
    return Data(pooled.name, step.shapes[0], data.elem)


# --- padding ------------------------------------------------------------------------------------


def pad(importer: Importer, step: Step) -> Value:
    """Pad with zeros in height and width; ``simplify`` folds it into what follows, or copies."""
    data = step.data()
    mode = step.attrs.get("mode", b"constant").decode()
    if mode != "constant":
        raise step.refuse(f"mode is {mode!r}", "only padding with zeros is possible")
    fill = step.number(2, "value", step.attrs.get("value", 0.0))
    before, after = _pad_amounts(step, len(data.shape))
    if fill != 0.0 and any(before + after):
        raise step.refuse(f"fills with {fill:g}", "pad with 0; other values are not possible")
    if any(before[:2] + after[:2]):
        raise step.refuse(
            "pads the batch or the channels", "pad height and width; more channels: a 1x1 Conv"
        )
    if min(before + after) < 0:
        raise step.refuse(f"has negative pads {before + after}", "crop the input before the model")
    if not any(before + after):
        return data
    lead = [0] * (4 - len(data.shape))  # 1-D data have height 1
    (top, left), (bottom, right) = lead + before[2:], lead + after[2:]
    return importer.emit(step, "pad", [data], {"pads": (top, left, bottom, right)})


def _pad_amounts(step: Step, rank: int) -> tuple[list[int], list[int]]:
    """Return how much is added before and after each axis."""
    given = step.constant(1, "pads")
    pads = step.attrs.get("pads") if given is None else given.reshape(-1).tolist()
    chosen = step.constant(3, "axes")
    axes = list(range(rank)) if chosen is None else [int(a) % rank for a in chosen.reshape(-1)]
    if rank not in (3, 4) or pads is None or len(pads) != 2 * len(axes):
        raise step.refuse(f"pads {pads} of {rank} dimensions", "pad images: N, C, H, W or N, C, L")
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[place]), int(pads[place + len(axes)])
    return before, after
