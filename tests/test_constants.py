"""What the importer folds is what onnxruntime computes, under every operator set that changed it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from neuflow.compiler import constants
from neuflow.compiler.importer_step import Step
from neuflow.compiler.load import OLDEST_OPSET, load
from neuflow.errors import ModelError
from tests.onnx_builder import IR_VERSION, build, node, normal

X = normal(2, 3, 4, 5)
POSITIVE = np.abs(X) + 0.1
NEWEST = 26  # of onnxruntime
Case = tuple[list[Any], dict[str, Any]]


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def of(*arrays: Any, **attrs: Any) -> Case:
    """Return a case: inputs, None where one is left out, and attributes."""
    return list(arrays), attrs


UNARY = """Abs Asinh Atan Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu GlobalAveragePool GlobalMaxPool
HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Mish Neg NonZero Reciprocal Relu Round Selu Shape
Sigmoid Sign Sin Sinh Size Softplus Softsign Tan Tanh ThresholdedRelu""".split()
REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()
TERMS = """Add Sub Mul Div Max Min Pow PRelu Sum Mean Equal Greater Less GreaterOrEqual
LessOrEqual""".split()
WHOLE = "Add Sub Mul Div Mod Max Min Equal Greater Less".split()
BYTES = np.random.default_rng(0).integers(-128, 128, (3, 4)).astype(np.int8)

CASES: dict[str, list[Case]] = {op: [of(X)] for op in UNARY}
CASES |= {f"Reduce{op}": [
    *(of(POSITIVE, keepdims=keep, axes=axes) for keep in (0, 1) for axes in ([1], [1, 2], [-1])),
    *(of(POSITIVE, ints(*axes), keepdims=keep) for keep in (0, 1) for axes in ([1], [1, 2], [-1])),
    of(POSITIVE), of(POSITIVE, keepdims=0),
] for op in REDUCTIONS}  # fmt: skip
CASES |= {op: [of(X, axis=axis, keepdims=keep) for axis in (0, 1, -1) for keep in (0, 1)]
          for op in ("ArgMax", "ArgMin")}  # fmt: skip
CASES |= {op: [of(POSITIVE, POSITIVE[0, 0])] for op in TERMS}
for op in WHOLE:
    CASES.setdefault(op, []).append(of(ints(-7, 7, -8, 9), ints(2, -2, 3, -3)))
for op in ("Softmax", "LogSoftmax", "Hardmax"):
    CASES[op] = [of(X, axis=-1), of(X, axis=3), of(X[0, 0]), of(X[0, 0, 0], axis=0)]
CASES |= {
    "Acos": [of(np.clip(X, -0.9, 0.9))], "Asin": [of(np.clip(X, -0.9, 0.9))],
    "Atanh": [of(np.clip(X, -0.9, 0.9))], "Acosh": [of(POSITIVE + 1)], "Log": [of(POSITIVE)],
    "Sqrt": [of(POSITIVE)], "Not": [of(X > 0)],
    "And": [of(X > 0, X > 0.5)], "Or": [of(X > 0, X > 0.5)], "Xor": [of(X > 0, X > 0.5)],
    "BitwiseAnd": [of(ints(5, -6), ints(3, 3))], "BitwiseOr": [of(ints(5, -6), ints(3, 3))],
    "BitwiseNot": [of(ints(5, -6))],
    "BitShift": [of(np.uint32([5, 6]), np.uint32([1, 2]), direction=way) for way in ("LEFT", "RIGHT")],
    "Cast": [of(x, to=kind) for x in (np.float32([-2.7, 2.7, 0, 1e3]), ints(-3, 0, 4), np.array([True]))
             for kind in (1, 6, 7, 9, 10, 11, 3)],
    "CastLike": [of(X, ints(1))],
    "Clip": [of(X, min=-0.5, max=0.5), of(X), of(X, np.float32(0)), of(X, np.float32(0), np.float32(1)),
             of(X, np.float32(1), np.float32(-1))],
    "Compress": [of(X, np.array([True, False, True]), axis=1)],
    "Concat": [of(X, X[:, :1], axis=1), of(X, X[:, :1], axis=-3)],
    "Constant": [of(value_float=1.5), of(value_ints=[1, 2]), of(value_int=3), of(value_floats=[1.0, 2])],
    "ConstantOfShape": [of(ints(2, 3)), of(ints())],
    "Conv": [of(X, normal(3, 3, 2, 2), B := normal(3), pads=[1, 0, 0, 1], strides=[2, 1]),
             of(X, normal(3, 1, 2, 3), group=3, dilations=[2, 1]),
             of(X, normal(3, 3, 2, 2), auto_pad="SAME_LOWER"), of(X[0], normal(3, 4, 3), pads=[1, 0])],
    "AveragePool": [of(X, kernel_shape=[3, 2], strides=[2, 2], pads=[0, 1, 1, 0], count_include_pad=n)
                    for n in (0, 1)],
    "DepthToSpace": [of(normal(1, 8, 2, 2), blocksize=2, mode=mode) for mode in ("DCR", "CRD")],
    "SpaceToDepth": [of(normal(1, 2, 4, 4), blocksize=2)],
    "DequantizeLinear": [
        of(BYTES, np.float32(0.1), np.int8(3)), of(BYTES, normal(4), np.zeros(4, np.int8)),
        of(BYTES, normal(3), axis=0), of(BYTES, normal(3, 2), axis=1, block_size=2),
        of(BYTES.astype(np.int32), np.float32(0.1)),
        of(BYTES.view(np.uint8), np.float32(0.1), np.uint8(128)),
    ],
    "QuantizeLinear": [of(X, np.float32(0.05), np.int8(3)),
                       of(np.float32([0.5, 1.5, -1.5]), np.float32(1))],
    "Dropout": [of(X), of(X, ratio=0.3), of(X, np.float32(0.3))],
    "BatchNormalization": [of(X, B, B, B, np.abs(B), epsilon=0.1)],
    "LayerNormalization": [of(X, normal(5), normal(5)), of(X, normal(4, 5), axis=2)],
    "Einsum": [of(normal(2, 3), normal(3, 4), equation="ij,jk->ik")],
    "Expand": [of(normal(3, 1), ints(2, 1, 4))], "EyeLike": [of(normal(3, 4), k=1)],
    "Flatten": [of(X, axis=axis) for axis in (0, 1, 3)],
    "Gather": [of(X, ints(1, 0), axis=1), of(X, ints(-1), axis=2), of(ints(1, 2, 3), np.array(-2))],
    "GatherElements": [of(X, np.zeros((2, 1, 4, 5), np.int64), axis=1)],
    "GatherND": [of(X, np.array([[0, 1], [1, 2]])), of(X, np.array([[0], [1]]), batch_dims=1)],
    "ScatterElements": [of(X, np.zeros((1, 3, 4, 5), np.int64), normal(1, 3, 4, 5), axis=0)],
    "ScatterND": [of(X, np.array([[0, 1], [1, 2]]), normal(2, 4, 5))],
    "Gemm": [of(normal(2, 3), normal(4, 3), normal(4), transB=1, alpha=0.5, beta=2.0),
             of(normal(3, 2), normal(3, 4), transA=1)],
    "MatMul": [of(normal(2, 3), normal(3, 4)), of(normal(5, 2, 3), normal(3))],
    "Mod": [of(X, X[0, 0] + 3, fmod=1), of(ints(-7, 7, -8, 9), ints(2, -2, 3, -3))],
    "OneHot": [of(ints(1, 0), np.int64(3), np.float32([0.5, 2]), axis=0)],
    "Pad": [of(X, pads=[0, 1, 0, 2, 0, 0, 1, 1], value=0.5), of(X, ints(0, 1, 0, 2, 0, 0, 1, 1)),
            of(X, ints(0, 1, 0, 2, 0, 0, 1, 1), np.float32(0.5)),
            of(X, ints(1, 1), np.float32(0), ints(-1)),
            of(X, ints(0, 1, 1, 1, 0, 1, 1, 1), mode="edge"),
            of(X, ints(0, 1, 1, 1, 0, 1, 1, 1), mode="reflect")],
    "Range": [of(np.int64(1), np.int64(9), np.int64(3)),
              of(np.float32(5), np.float32(1), np.float32(-1.5))],
    "Reshape": [of(X, ints(0, -1)), of(X, ints(-1, 0, 5)), of(X, ints(6, 20), allowzero=1)],
    "Slice": [of(X, starts=[1, -2], ends=[3, 9], axes=[1, 2]), of(X, starts=[0, 1], ends=[1, -1]),
              of(X, ints(1, -1), ints(3, -9), ints(1, 3), ints(1, -2)), of(X, ints(0, 1), ints(1, 3))],
    "Split": [of(X, axis=1, split=[1, 2]), of(X, ints(1, 2), axis=1), of(X, axis=0, num_outputs=2)],
    "Squeeze": [of(X[:1]), of(X[:1], axes=[0]), of(X[:1], ints(-4))],
    "Unsqueeze": [of(X[0], axes=[0, 2]), of(X[0], ints(-1, 0))],
    "Swish": [], "Tile": [of(X, ints(2, 1, 3, 1))], "TopK": [of(X, ints(2), axis=1)],
    "Transpose": [of(X, perm=[3, 1, 0, 2]), of(X)], "Trilu": [of(X), of(X, np.int64(1), upper=0)],
    "Where": [of(X > 0, X, np.float32(0))],
    "CumSum": [of(X, np.array(1)), of(X, np.array(-1), exclusive=1, reverse=1)],
}  # fmt: skip
UNKNOWN_TO_ONNXRUNTIME = {"Swish"}


def versions(op: str) -> Iterator[int]:
    """Yield the least operator set of every form that ``op`` has had."""
    forms = {}
    for opset in range(NEWEST, OLDEST_OPSET - 1, -1):
        try:
            forms[onnx.defs.get_schema(op, opset, "").since_version] = opset
        except onnx.defs.SchemaError:  # not yet
            break
    yield from forms.values()


def one_node(op: str, case: Case, opset: int) -> tuple[NodeProto, ModelProto, dict[str, Any]]:
    arrays, attrs = case
    feeds = {f"i{place}": np.asarray(array) for place, array in enumerate(arrays)}
    results = ["y", "y2"] if op in ("Split", "TopK") else ["y"]
    made = helper.make_node(op, list(feeds), results, "n", **attrs)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in results]
    graph = helper.make_graph([made], "one", inputs, outputs)
    version = helper.make_opsetid("", opset)
    ir_version = IR_VERSION if opset < 21 else 10
    return made, helper.make_model(graph, opset_imports=[version], ir_version=ir_version), feeds


def by_onnxruntime(model: ModelProto, feeds: dict[str, Any]) -> list[NDArray[Any]] | None:
    """Return what onnxruntime computes; None where this form of the operation is not valid."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, feeds))
    except Exception:  # it has a kind of error for every reason
        return None


@pytest.mark.parametrize("op", sorted(constants.FOLDED - UNKNOWN_TO_ONNXRUNTIME))
def test_an_operation_that_is_folded_gives_what_onnxruntime_gives(op: str) -> None:
    compared = 0
    for opset in versions(op):
        for case in CASES[op]:
            made, model, feeds = one_node(op, case, opset)
            want = by_onnxruntime(model, feeds)
            if want is None:
                continue
            attrs = {a.name: helper.get_attribute_value(a) for a in made.attribute}
            try:
                got = constants.fold(Step(made, list(feeds.values()), attrs), opset)
            except ModelError:  # refused, not wrong
                continue
            for array, result in zip(want, got.values(), strict=True):
                assert result.shape == array.shape and result.dtype == array.dtype, (opset, case)
                np.testing.assert_allclose(result, array, rtol=1e-4, atol=1e-5, err_msg=str(opset))
            compared += 1
    assert compared


K = normal(1, 3, 2, 2)
MISREAD: dict[str, tuple[NodeProto, dict[str, Any], int]] = {
    "softmax over all axes from the second on": (node("Softmax", ["k"], "c"), {"k": K}, 12),
    "as many ones as axes": (node("Hardmax", ["k"], "c", axis=2), {"k": K}, 7),
    "standing normalisation": (
        node("BatchNormalization", ["k", "s", "s", "s", "v"], "c"),
        {"k": K, "s": normal(3), "v": np.ones(3, np.float32)}, 9,
    ),
    "random zeros": (
        node("Dropout", ["k", "r", "t"], "c"),
        {"k": K, "r": np.float32(0.5), "t": np.array(True)}, 13,
    ),
    "axes out of order": (node("Unsqueeze", ["k"], "c", axes=[1, 0]), {"k": K[0, :, 0]}, 11),
    "windows that begin before the data": (
        node("MaxPool", ["k"], "c", kernel_shape=[2, 2], auto_pad="SAME_LOWER"), {"k": K}, 12,
    ),
    "neighbouring channels": (node("LRN", ["k"], "c", size=3, alpha=0.5), {"k": K}, 13),
    "a sequence": (node("SequenceConstruct", ["k", "k1"], "c"), {"k": K, "k1": K[0]}, 13),
}  # fmt: skip


@pytest.mark.parametrize(("made", "weights", "opset"), MISREAD.values(), ids=MISREAD)
def test_what_the_evaluator_computes_otherwise_is_refused(
    made: NodeProto, weights: dict[str, Any], opset: int
) -> None:
    last = node("Add", ["x", "c"], "y")
    model = build([made, last], weights, {"x": (1, 3, 2, 2)}, opset=opset)
    with pytest.raises(ModelError, match=r"constants is not computed here; fold the constants first"):
        load(model)
