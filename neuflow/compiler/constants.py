"""Operations on constants alone, computed once, by ONNX's reference evaluator.

The evaluator is no authority: of some operations, and of old operator sets, it gives other values than
ONNX defines, in silence. So only what tests hold against onnxruntime is folded; all else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

if TYPE_CHECKING:
    from neuflow.compiler.importer_step import Step

Array = NDArray[Any]

FOLDED = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift
    BitwiseAnd BitwiseNot BitwiseOr Cast CastLike Ceil Celu Clip Compress Concat Constant
    ConstantOfShape Conv Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf
    Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Hardmax Identity IsInf IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max Mean Min Mish Mod Mul Neg
    NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu
    Unsqueeze Where Xor
    """.split()
)
"""Operations that ``tests/test_constants.py`` compares with onnxruntime, under every operator set."""

FLATTENS = ("Hardmax", "LogSoftmax", "Softmax")
"""Before operator set 13 these work over all axes from theirs on; the evaluator over that one alone."""

EVALUATED_AS = {"DequantizeLinear": 19}
"""Least operator set that the evaluator knows of an operation whose meaning was the same before."""


def fold(step: Step, opset: int) -> dict[str, Array]:
    """Return the results of a node, all of whose inputs are constants, by name."""
    node = step.node
    inputs = {n: v for n, v in zip(node.input, step.values, strict=True) if isinstance(v, np.ndarray)}
    if node.op_type not in FOLDED or _is_misread(step, opset):
        raise step.refuse(
            "this operation on constants is not computed here",
            "fold the constants first, by onnxruntime or onnxsim",
        )
    try:
        results = _evaluator(node, inputs, opset).run(None, inputs)
    except Exception as error:  # the evaluator raises whatever its operator's code does
        text = " ".join(str(error).split())[:120]
        raise step.refuse(
            f"this operation on constants cannot be computed ({text})", "export it again"
        ) from None
    names = [name for name in node.output if name]
    return {name: np.asarray(result) for name, result in zip(names, results, strict=True)}


def _is_misread(step: Step, opset: int) -> bool:
    """Whether the evaluator gives other values than ONNX defines, or random ones."""
    kind = step.node.op_type
    if kind in FLATTENS and opset < 13:
        rank = np.asarray(step.constant(0, "data")).ndim
        return bool(step.attrs.get("axis", 1) % max(rank, 2) != rank - 1)
    if kind == "Dropout":
        return bool(step.number(2, "training_mode", 0))
    if kind == "Unsqueeze":  # attributes: inserted in the order that they are listed
        axes = step.attrs.get("axes", [])
        return sorted(axes) != list(axes)
    return kind == "BatchNormalization" and opset < 14  # taken for training


def _evaluator(node: NodeProto, inputs: Mapping[str, Array], opset: int) -> ReferenceEvaluator:
    """Return ONNX's reference evaluator for one node, under the model's operator set."""
    declared = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in inputs.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "constant", declared, outputs)
    version = max(opset, EVALUATED_AS.get(node.op_type, opset))
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)]))
