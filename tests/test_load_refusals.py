"""What cannot be loaded is refused by a line that says why and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from neuflow.compiler.load import load
from neuflow.errors import ModelError
from tests.loaded import NORM, B, W
from tests.onnx_builder import build, node, normal


def conv_with(**weights: Any) -> ModelProto:
    return build([node("Conv", ["x", "w", "b"], "y")], {"w": W, "b": B, **weights})


def nan_weight() -> NDArray[np.float32]:
    bad = W.copy()
    bad[1, 2, 0, 0] = np.nan
    return bad


NUMBER_OF_IMAGES = [
    node("Shape", ["x"], "s"),
    node("Gather", ["s", "zero"], "i", axis=0),
    node("Cast", ["i"], "n", to=TensorProto.FLOAT),
]

OLD_FUNCTION = build([helper.make_node("Block", ["x"], ["y"], "b", domain="own")])
OLD_FUNCTION.functions.append(helper.make_function(
    "own", "Block", ["a"], ["r"], [node("Relu", ["a"], "r")], [helper.make_opsetid("", 13)]
))  # fmt: skip
OLD_FUNCTION.opset_import.append(helper.make_opsetid("own", 1))

REFUSED: dict[str, tuple[ModelProto, str]] = {
    "unknown operation": (
        build([node("Exp", ["x"], "y")]),
        r"node 'y' \(Exp\): this operation is not supported; use Sigmoid or Tanh",
    ),
    "unknown operation, no hint": (
        build([node("Floor", ["x"], "y")]),
        r"node 'y' \(Floor\): this operation is not supported; possible are Abs, Add, ",
    ),
    "Celu that falls": (
        build([node("Celu", ["x"], "y", alpha=-1.0)]),
        r"node 'y' \(Celu\): alpha is -1; use an alpha above 0",
    ),
    "slopes above and below 1": (
        build([node("PRelu", ["x", "s"], "y")], {"s": np.float32([[[0.5]], [[2]], [[1]]])}),
        r"node 'y' \(PRelu\): has a slope above 1 beside others; use slopes up to 1, or one slope",
    ),
    "slope of every place": (
        build([node("PRelu", ["x", "s"], "y")], {"s": normal(3, 6, 8)}),
        r"node 'y' \(PRelu\): its slope of shape \[3, 6, 8\] is not one value a channel; use one",
    ),
    "unknown domain": (
        build([helper.make_node("Fancy", ["x"], ["y"], name="f", domain="my.own")]),
        r"node 'f' \(Fancy\): domain 'my.own' is not ONNX's own; export with standard operators",
    ),
    "function of another operator set": (
        OLD_FUNCTION,
        r"node 'b' \(Block\): is a function of another operator set than the model; export both",
    ),
    "average ceil": (
        build([node("AveragePool", ["x"], "y", kernel_shape=[4, 4], strides=[3, 3], ceil_mode=1,
                    count_include_pad=1)]),
        r"node 'y' \(AveragePool\): ceil_mode = 1 .*; use ceil_mode = 0",
    ),
    "window behind the data": (
        build([node("MaxPool", ["x"], "y", kernel_shape=[1, 2], strides=[2, 3], ceil_mode=1)]),
        r"node 'y' \(MaxPool\): ceil_mode = 1 makes windows begin behind the data, .*; use ceil_mode",
    ),
    "dilated pool": (
        build([node("MaxPool", ["x"], "y", kernel_shape=[2, 2], dilations=[2, 2])]),
        r"node 'y' \(MaxPool\): dilations \[2, 2\] are not 1; use dilations of 1",
    ),
    "joined rows": (
        build([node("Concat", ["x", "x"], "y", axis=2)]),
        r"node 'y' \(Concat\): joins along axis 2; join channels \(axis 1\)",
    ),
    "joined constant": (
        build([node("Concat", ["x", "k"], "y", axis=1)], {"k": normal(1, 3, 6, 8)}, {"x": (1, 3, 6, 8)}),
        r"node 'y' \(Concat\): input 1 must be computed from the model's inputs, .*; ",
    ),
    "reflected padding": (
        build([node("Pad", ["x", "p"], "y", mode="reflect")], {"p": np.array([0, 0, 1, 1] * 2)}),
        r"node 'y' \(Pad\): mode is 'reflect'; only padding with zeros",
    ),
    "padding with ones": (
        build([node("Pad", ["x", "p", "v"], "y")],
              {"p": np.array([0, 0, 1, 1] * 2), "v": np.float32(1)}),
        r"node 'y' \(Pad\): fills with 1; pad with 0",
    ),
    "padded channels": (
        build([node("Pad", ["x", "p"], "y")], {"p": np.array([0, 1, 0, 0] * 2)}),
        r"node 'y' \(Pad\): pads the batch or the channels; pad height .*: a 1x1 Conv",
    ),
    "cropped": (
        build([node("Pad", ["x", "p"], "y")], {"p": np.array([0, 0, -1, 0] * 2)}),
        r"node 'y' \(Pad\): has negative pads .*; crop the input",
    ),
    "cube": (
        build([node("Pow", ["x", "e"], "y")], {"e": np.float32(3)}),
        r"node 'y' \(Pow\): raises to 3; multiply the tensor with itself by Mul",
    ),
    "root below": (
        build([node("Pow", ["x", "e"], "y")], {"e": np.float32(-0.5)}),
        r"node 'y': a power below 0 is infinite at 0; put Clip with a min above 0 before it",
    ),
    "LRN that divides by 0": (
        build([node("LRN", ["x"], "y", size=3, bias=0.0)]),
        r"node 'y' \(LRN\): alpha .* can divide by 0; use a bias",
    ),
    "maximum by channel": (
        build([node("Max", ["x", "k"], "y")], {"k": normal(3, 1, 1)}),
        r"node 'y' \(Max\): has a constant of shape \[3, 1, 1\] that is not one finite number; use",
    ),
    "broadcast": (
        build([node("Add", ["x", "z"], "y")],
              inputs={"x": ("N", 3, 6, 8), "z": ("N", 3, 1, 1)}),
        r"node 'y' \(Add\): the shapes \[N, 3, 6, 8\] and \[N, 3, 1, 1\] differ; broadcasting",
    ),
    "constant of full shape": (
        build([node("Add", ["x", "k"], "y")], {"k": normal(3, 6, 8)}),
        r"node 'y' \(Add\): the constant of shape \[3, 6, 8\] is not one value a channel",
    ),
    "constant over tensor": (
        build([node("Div", ["k", "x"], "y")], {"k": np.float32(1)}),
        r"node 'y' \(Div\): divides a constant by a tensor; ",
    ),
    "constant that adds channels": (
        build([node("Max", ["x", "k"], "y")], {"k": np.zeros((3, 1, 1), np.float32)},
              {"x": ("N", 1, 4, 4)}),
        r"node 'y' \(Max\): its constants broadcast \[N, 1, 4, 4\] to \[N, 3, 4, 4\]; give constants",
    ),
    "constant that adds dimensions": (
        build([node("Pow", ["x", "k"], "y")], {"k": np.full((1, 1, 1), 2, np.float32)}, {"x": (1, 4)}),
        r"node 'y' \(Pow\): its constants broadcast \[1, 4\] to \[1, 1, 4\]; give constants",
    ),
    "term of more dimensions": (
        build([node("Add", ["x", "k"], "y")], {"k": normal(1, 1, 4)}, {"x": (1, 4)}),
        r"node 'y' \(Add\): the constant of shape \[1, 1, 4\] is not one value a channel of \[1, 4\]",
    ),
    "norm in training, as it was before operator set 14": (
        build([helper.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], list("yabcd"), "n")],
              {"s": np.ones(3, np.float32)}, opset=9),
        r"node 'n' \(BatchNormalization\): is in training mode; export the model in evaluation mode",
    ),
    "cast to the type of numbers that are none": (
        build([node("CastLike", ["x", "k"], "c"), node("CastLike", ["c", "x"], "y")],
              {"k": np.int64(3)}),
        r"node 'c' \(CastLike\): casts data to a type that is not float; keep the data in float",
    ),
    "the number that stands for the batch, by chance": (
        build([node("Reshape", ["x", "s"], "y")], {"s": np.array([127, -1])}, {"x": ("N", 127, 4)}),
        r"node 'y' \(Reshape\): moves or mixes the batch, the first dimension: \[N, 127, 4\] -> \[127,",
    ),
    "a constant of as many images, by chance": (
        build([node("Add", ["x", "k"], "y")], {"k": np.ones((127, 4), np.float32)}, {"x": ("N", 4)}),
        r"node 'y' \(Add\): its inputs do not fit each other .*; correct the model",
    ),
    "view of another size, any number of images": (
        build([node("Reshape", ["x", "s"], "r"), node("Relu", ["r"], "y")], {"s": np.array([0, 100])}),
        r"node 'r' \(Reshape\): makes \[N, 100\] of \[N, 3, 6, 8\], another number of values; correct",
    ),
    "norm of every place": (
        build([node("BatchNormalization", ["x", "s", "s", "s", "s"], "y", spatial=0)],
              {"s": np.ones((3, 6, 8), np.float32)}, opset=7),
        r"node 'y' \(BatchNormalization\): normalises every place by itself \(spatial = 0\); use one",
    ),
    "mean over the batch": (
        build([*NUMBER_OF_IMAGES, node("Div", ["x", "n"], "y")], {"zero": np.array(0)}),
        r"node 'y': computes with the number of images, which is symbolic; export with the batch fixed",
    ),
    "places left out before and behind": (
        build([node("Conv", ["x", "w"], "y", strides=[6, 6], auto_pad="SAME_UPPER")],
              {"w": normal(4, 3, 2, 2)}),
        r"node 'y' \(Conv\): SAME_UPPER with stride 6 .* over 2 leaves 4 places out; write its pads",
    ),
    "input that is an output": (
        build([node("Relu", ["x"], "y")], outputs=["y", "x"]),
        r"output 'x': is an input too; remove it, the host knows it already",
    ),
    "division by 0": (
        build([node("Div", ["x", "k"], "y")], {"k": np.float32(0)}),
        r"node 'y' \(Div\): divides by the constant 0; correct the constant",
    ),
    "transposed data": (
        build([node("Transpose", ["x"], "y", perm=[0, 2, 3, 1])]),
        r"node 'y' \(Transpose\): changes the order of the values \(perm \[0, 2, 3, 1\]\); keep N",
    ),
    "mixed batch": (
        build([node("Flatten", ["x"], "f", axis=0), node("Relu", ["f"], "y")]),
        r"node 'f' \(Flatten\): moves or mixes the batch.*\[N, 3, 6, 8\] -> \[1, .*; keep images",
    ),
    "Softmax inside": (
        build([node("Relu", ["x"], "r"), node("Softmax", ["r"], "s", axis=1),
               node("Relu", ["s"], "y")]),
        r"node 'y' \(Relu\): uses the result of Softmax, which the host computes after the grid; ",
    ),
    "Softmax over the batch": (
        build([node("Relu", ["x"], "r"), node("Softmax", ["r"], "y", axis=0)]),
        r"node 'y' \(Softmax\): works along the batch \(axis 0\); use the axis of the classes",
    ),
    "product of tensors": (
        build([node("MatMul", ["x", "z"], "y")], inputs={"x": (4, 4), "z": (4, 4)}),
        r"node 'y' \(MatMul\): multiplies two computed matrices; one factor must be a constant",
    ),
    "product of rank 4": (
        build([node("MatMul", ["x", "w"], "y")], {"w": normal(8, 5)}),
        r"node 'y' \(MatMul\): factors have 4 and 2 dimensions, only 2 .*; flatten the data",
    ),
    "product of other sizes": (
        build([node("Reshape", ["x", "s"], "r"), node("Gemm", ["r", "w"], "y")],
              {"s": np.int64([1, 100]), "w": normal(100, 5)}, {"x": (1, 3, 6, 8)}),
        r"node 'r' \(Reshape\): makes \[1, 100\] of \[1, 3, 6, 8\], another number of values; correct",
    ),
    "Gemm of other sizes": (
        build([node("Conv", ["x", "k"], "c"), node("Reshape", ["c", "s"], "r"),
               node("MatMul", ["r", "w"], "y")],
              {"k": W, "s": np.int64([0, -1]), "w": normal(90, 5)}),
        r"node 'y' \(MatMul\): ",
    ),
    "weights that overflow when folded": (
        build([node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "y", alpha=1e38)],
              {"w": 1e3 * np.ones((144, 2), np.float32)}),
        r"node 'y': its weight, with what is folded into it, overflows float32; train or export",
    ),
    "kernel beyond the data": (
        build([node("Conv", ["x", "w"], "y", strides=[2, 2])], {"w": W}, {"x": ("N", 3, 2, 8)}),
        r"node 'y' \(Conv\): its kernel reaches over 3, the padded data are 2 long; give larger",
    ),
    "window beyond the data": (
        build([node("MaxPool", ["x"], "y", kernel_shape=[3, 3], strides=[2, 2])],
              inputs={"x": ("N", 3, 8, 2)}),
        r"node 'y' \(MaxPool\): its kernel reaches over 3, the padded data are 2 long; give larger",
    ),
    "transposed data of Gemm": (
        build([node("Gemm", ["x", "w"], "y", transA=1)], {"w": normal(4, 5)}, {"x": (4, 4)}),
        r"node 'y' \(Gemm\): transA = 1 transposes the data; export with transA = 0",
    ),
    "training norm": (
        build([node("Conv", ["x", "w"], "c"),
               node("BatchNormalization", ["c", "s", "o", "m", "v"], "y", training_mode=1)],
              {"w": W, **NORM}),
        r"node 'y' \(BatchNormalization\): is in training mode; export .*model.eval",
    ),
    "one result of two nodes": (
        build([node("Relu", ["x"], "r"), node("Neg", ["x"], "r"), node("Abs", ["r"], "y")]),
        r"node 'r' \(Neg\): computes 'r', which node 'r' \(Relu\) computes as well; give each result",
    ),
    "unknown padding": (
        build([node("Conv", ["x", "w"], "y", auto_pad="SAME")], {"w": W}),
        r"node 'y' \(Conv\): auto_pad is 'SAME'; use NOTSET, VALID, SAME_UPPER or SAME_LOWER",
    ),
    "padding said twice": (
        build([node("MaxPool", ["x"], "y", kernel_shape=[2, 2], auto_pad="VALID", pads=[1, 1, 0, 0])]),
        r"node 'y' \(MaxPool\): has both auto_pad VALID and pads \[1, 1, 0, 0\]; write its pads alone",
    ),
    "no padding, and as much as keeps the size": (
        build([node("Conv", ["x", "w"], "y", auto_pad="SAME_LOWER", pads=[0, 0, 0, 0])], {"w": W}),
        r"node 'y' \(Conv\): has both auto_pad SAME_LOWER and pads \[0, 0, 0, 0\]; write its pads",
    ),
    "order of other dimensions": (
        build([node("Transpose", ["x"], "t", perm=[0, 2, 1]), node("Relu", ["t"], "y")]),
        r"node 't' \(Transpose\): perm \[0, 2, 1\] is no order of the data's 4 dimensions; correct",
    ),
    "axis from the end of old": (
        build([node("Unsqueeze", ["x"], "u", axes=[-1]), node("Relu", ["u"], "y")],
              inputs={"x": ("N", 3)}, opset=9),
        r"node 'u' \(Unsqueeze\): axes \[-1\] count from the end, which operator set 11 came with; ",
    ),
    "normalisation over no channel": (
        build([node("LRN", ["x"], "y", size=0)]),
        r"node 'y' \(LRN\): normalises over 0 channels; use a size of 1 or more",
    ),
    "bound of no number": (
        build([node("Clip", ["x", "b"], "y")], {"b": np.float32([])}),
        r"node 'y' \(Clip\): min has shape \[0\]; give one number",
    ),
    "exponent of each channel": (
        build([node("Pow", ["x", "e"], "y")], {"e": np.ones((3, 1, 1), np.float32)}),
        r"node 'y' \(Pow\): exponent has shape \[3, 1, 1\]; give one number",
    ),
    "operand left out": (
        build([node("Sum", ["x", ""], "y")]),
        r"node 'y' \(Sum\): input 1 \(data_0\) is left out; export it again",
    ),
    "infinite attribute": (
        build([node("Elu", ["x"], "y", alpha=np.inf)]),
        r"node 'y' \(Elu\): alpha is inf; export it again, with a finite number",
    ),
    "NaN weight": (
        conv_with(w=nan_weight()),
        r"node 'y' \(Conv\): weight 'w' holds NaN or infinite values; train or export",
    ),
    "infinite bias": (
        conv_with(b=np.array([1, 2, np.inf, 0], np.float32)),
        r"node 'y' \(Conv\): bias 'b' holds NaN or infinite values",
    ),
    "missing weight": (
        build([node("Conv", ["x", "w"], "y")]),
        r"node 'y' \(Conv\): 'w' is missing, neither a weight, .*; export the model together with",
    ),
    "weight that is an input": (
        build([node("Conv", ["x", "w"], "y")], inputs={"x": (1, 3, 6, 8), "w": (1, 3, 3, 3)}),
        r"node 'y' \(Conv\): weight 'w' is computed at run time, not a constant weight; export",
    ),
    "weight of another shape": (
        conv_with(w=normal(4, 2, 3, 3)),
        r"node 'y' \(Conv\): its weight is for 2 channels, the data have 3; correct",
    ),
    "weight of another type": (
        build([node("Conv", ["x", "w"], "y")], {"w": W.astype(np.float64)}),
        r"node 'y' \(Conv\): its inputs do not fit each other \(.*type tensor\(double\)\); correct",
    ),
    "groups that do not divide": (
        build([node("Conv", ["x", "w"], "y", group=3)], {"w": normal(4, 1, 3, 3)}),
        r"node 'y' \(Conv\): 4 maps cannot be cut into 3 groups; correct",
    ),
    "bias of another length": (
        conv_with(b=normal(3)),
        r"node 'y' \(Conv\): its bias has shape \[3\], not one value for each of 4 maps; correct",
    ),
    "norm of another length": (
        build([node("BatchNormalization", ["x", "s", "o", "m", "v"], "y")], NORM),
        r"node 'y' \(BatchNormalization\): its inputs do not fit each other .*; correct",
    ),
    "norm with a matrix": (
        build([node("BatchNormalization", ["x", "s", "o", "m", "v"], "y")],
              {**{key: np.ones(3, np.float32) for key in "som"}, "v": np.ones((1, 3), np.float32)},
              opset=13),
        r"node 'y' \(BatchNormalization\): its scale, .* \[\[3\], \[3\], \[3\], \[1, 3\]\], not one",
    ),
    "no such operation": (
        build([node("Relluh", ["x"], "y")]),
        r"node 'y' \(Relluh\): ONNX has no such operation; export with standard operators",
    ),
    "Gemm of another length": (
        build([node("Gemm", ["x", "w"], "y")], {"w": normal(4, 5)}, {"x": ("N", 3)}),
        r"node 'y' \(Gemm\): its inputs do not fit each other .*; correct",
    ),
    "kernel beyond the input": (
        conv_with(w=normal(4, 3, 9, 9)),
        r"node 'y' \(Conv\): .*; ",
    ),
    "symbolic height": (
        build([node("Relu", ["x"], "y")], inputs={"x": ("N", 3, "H", 8)}),
        r"input 'x': dimension 2 is symbolic \('H'\); export with a fixed size",
    ),
    "input beyond any memory": (
        build([node("Relu", ["x"], "y")], inputs={"x": ("N", 3, 2**40, 2**40)}),
        r"input 'x': an image is beyond the machine's memory of 4 GB; export with a smaller one",
    ),
    "result beyond any memory": (
        build([node("Pad", ["x", "p"], "y")], {"p": np.array([0, 0, 0, 0, 0, 0, 0, 2**31])}),
        r"node 'y' \(Pad\): its result \[N, 3, 6, 2147483656\] is beyond the machine's memory of 4 GB",
    ),
    "five dimensions": (
        build([node("Relu", ["x"], "y")], inputs={"x": ("N", 3, 2, 4, 8)}),
        r"input 'x': 5 dimensions; at most batch, channels, height, width",
    ),
    "unused input": (
        build([node("Relu", ["x"], "y")], inputs={"x": (1, 3), "z": (1, 3)}),
        r"input 'z': no output depends on it; remove it",
    ),
    "different batches": (
        build([node("Relu", ["x"], "y"), node("Relu", ["z"], "u")],
              inputs={"x": (2, 3), "z": (3, 3)}, outputs=["y", "u"]),
        r"inputs have different batches \('x': 2, 'z': 3\); export all with the same",
    ),
    "copies alone": (
        build([node("Softmax", ["x"], "y")]),
        r"node 'y' \(Softmax\): is applied to an input; a model needs an operation before it",
    ),
    "used mask": (
        build([helper.make_node("Dropout", ["x"], ["y", "mask"], name="d")], outputs=["y", "mask"]),
        r"node 'd' \(Dropout\): its further output 'mask' is used; only the first output",
    ),
    "constant output": (
        build([node("Relu", ["x"], "y"), node("Constant", [], "k", value_float=1.0)],
              outputs=["y", "k"]),
        r"output 'k': is constant; remove it",
    ),
    "random weights": (
        build([node("RandomNormal", [], "r", shape=[1, 3, 1, 1]), node("Add", ["x", "r"], "y")]),
        r"node 'r' \(RandomNormal\): this operation is not supported; ",
    ),
    "cycle": (
        build([node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b"), node("Relu", ["b"], "y")]),
        r"node '[ab]' \(\w+\): takes part in a cycle",
    ),
    "no output": (build([node("Relu", ["x"], "y")], outputs=[]), r"the graph is empty"),
    "no node": (build([], outputs=["x"]), r"the graph is empty"),
    "integers": (
        helper.make_model(
            helper.make_graph(
                [node("Relu", ["x"], "y")], "g",
                [helper.make_tensor_value_info("x", TensorProto.INT8, [1, 3])],
                [helper.make_tensor_value_info("y", TensorProto.INT8, [1, 3])],
            ),
            opset_imports=[helper.make_opsetid("", 18)],
        ),
        r"input 'x': elements are INT8; export the float model",
    ),
    "old opset": (
        build([node("Relu", ["x"], "y")], opset=6),
        r"operator set 6 is not within 7\.\..*; export with opset 18",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=REFUSED)
def test_refusal_names_cause_and_fix_on_one_line(model: ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(model)
    text = str(caught.value)
    assert "\n" not in text
    assert ";" in text, "no fix is named"


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file; give the path"):
        load(tmp_path / "absent.onnx")
    for content in (b"hello, I am text\n" * 10, b"", b"\x00" * 64, b"PK\x03\x04" + b"zip" * 30):
        bad = tmp_path / "bad.onnx"
        bad.write_bytes(content)
        with pytest.raises(ModelError, match=r"not an ONNX file") as caught:
            load(bad)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"MaxPool", b"Max\xffool", r"damaged: b'Max\\xffool' is no text; copy"),
        (b"strides", b"str\xffdes", r"damaged: b'str\\xffdes' is no text; copy"),
        (b"NOTSET", b"NOTS\xffT", r"damaged: b'NOTS\\xffT' is no text; copy"),
    ],
)
def test_names_that_are_no_text_are_refused(
    old: bytes, new: bytes, message: str, tmp_path: Path
) -> None:
    layer = node("MaxPool", ["x"], "y", kernel_shape=[2, 2], strides=[2, 2], auto_pad="NOTSET")
    path = tmp_path / "damaged.onnx"
    path.write_bytes(build([layer]).SerializeToString().replace(old, new))
    with pytest.raises(ModelError, match=message):
        load(path)


def test_a_weight_of_no_known_type_is_refused() -> None:
    model = build([node("Conv", ["x", "w"], "y")], {"w": normal(40, 3, 5, 5)})
    model.graph.initializer[0].data_type = 50
    with pytest.raises(ModelError, match=r"weight 'w': its values do not fit its type \(50\).*; exp"):
        load(model)


def test_missing_external_data_is_refused_and_present_data_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = build([node("Conv", ["x", "w"], "y")], {"w": normal(40, 3, 5, 5)})
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    graph = load(path)
    np.testing.assert_array_equal(graph.nodes[0].attrs["weight"], normal(40, 3, 5, 5))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"external data weights.bin cannot be read.*; keep") as e:
        load(path)
    assert "\n" not in str(e.value)
