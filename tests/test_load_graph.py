"""Views, names, batches, branches and what the host does: the graph around the layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from neuflow.compiler.load import load
from neuflow.errors import ModelError
from tests.loaded import FLAT, B, W, ops, outputs_of, same_as_onnxruntime
from tests.onnx_builder import build, node, normal, reference

ROOT = Path(__file__).resolve().parents[1]


def test_identity_dropout_and_views_vanish() -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], "c"),
        node("Identity", ["c"], "i"),
        node("Dropout", ["i"], "d"),
        node("Unsqueeze", ["d", "axes"], "u"),
        node("Squeeze", ["u", "axes"], "s"),
        node("Relu", ["s"], "y"),
    ]
    model = build(nodes, {"w": W, "b": B, "axes": np.array([1])}, {"x": ("N", 3, 6, 8)})
    with pytest.raises(ModelError, match="5 dimensions"):
        load(model)
    del nodes[3:5]
    nodes[-1] = node("Relu", ["d"], "y")
    assert ops(same_as_onnxruntime(build(nodes, {"w": W, "b": B}))) == ["conv", "map"]


def test_casts_to_the_type_of_something_vanish() -> None:
    """As PyTorch's exporter writes every BatchNormalization and LeakyRelu that it does not optimise."""
    nodes = [
        node("CastLike", ["double", "x"], "w"),
        node("Conv", ["x", "w"], "c"),
        node("CastLike", ["c", "b"], "d"),
        node("CastLike", ["d", "x"], "e"),
        node("Mul", ["e", "k1"], "y"),
    ]
    weights = {"double": W.astype(np.float64), "b": B, "k": np.int64(3)}
    nodes.insert(4, node("CastLike", ["k", "e"], "k1"))
    assert ops(same_as_onnxruntime(build(nodes, weights))) == ["conv"]


def test_reshape_at_the_end_is_a_view_in_chw_order() -> None:
    nodes = [node("Relu", ["x"], "r"), node("Reshape", ["r", "shape"], "y")]
    graph = same_as_onnxruntime(build(nodes, {"shape": np.array([0, 4, 36])}))
    assert graph.tensors["y"].onnx_shape == (4, 36)


def test_shape_arithmetic_with_a_symbolic_batch_folds() -> None:
    nodes = [
        node("Relu", ["x"], "r"),
        node("Shape", ["r"], "s"),
        node("Gather", ["s", "zero"], "n", axis=0),
        node("Unsqueeze", ["n", "axes"], "n1"),
        node("Constant", [], "rest", value_ints=[-1]),
        node("Concat", ["n1", "rest"], "target", axis=0),
        node("Reshape", ["r", "target"], "f"),
        node("Gemm", ["f", "w"], "y"),
    ]
    weights = {"zero": np.array(0), "axes": np.array([0]), "w": normal(24, 5)}
    assert ops(same_as_onnxruntime(build(nodes, weights, FLAT))) == ["map", "dense"]


def test_as_many_channels_as_the_number_that_stands_for_the_batch() -> None:
    weights = {"w": normal(127, 127, 1, 1)}
    model = build([node("Conv", ["x", "w"], "y")], weights, {"x": ("N", 127, 2, 3)})
    assert ops(same_as_onnxruntime(model)) == ["conv"]


def test_weights_listed_among_the_inputs_are_no_inputs() -> None:
    model = build([node("Conv", ["x", "w", "b"], "y")], {"w": W, "b": B}, list_weights=True)
    assert same_as_onnxruntime(model).inputs == ("x",)


def test_fixed_batch_is_kept_and_one_is_none() -> None:
    relu = [node("Relu", ["x"], "y")]
    assert same_as_onnxruntime(build(relu, inputs={"x": (5, 3, 4, 4)})).batch == 5
    assert same_as_onnxruntime(build(relu, inputs={"x": (1, 3, 4, 4)}), 1).batch is None
    assert load(build(relu)).batch is None


@pytest.mark.parametrize(("op", "opset"), [("Softmax", 18), ("LogSoftmax", 18), ("ArgMax", 18),
                                           ("Softmax", 11)])  # fmt: skip
def test_final_operation_is_done_on_the_host(op: str, opset: int) -> None:
    nodes = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "scores"),
             node(op, ["scores"], "y", axis=1)]  # fmt: skip
    graph = same_as_onnxruntime(build(nodes, {"w": normal(24, 5)}, FLAT, opset=opset))
    assert graph.outputs == ("scores",)
    assert [(h.op, h.output) for h in graph.host] == [(op.lower(), "y")]


def test_host_operation_beside_its_operand_as_an_output_and_in_a_chain() -> None:
    nodes = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "scores"),
             node("Softmax", ["scores"], "p", axis=-1),
             node("ArgMax", ["p"], "y", axis=1, keepdims=0)]  # fmt: skip
    for outputs in (["scores", "y"], ["p", "scores"], ["y"], ["y", "p"]):
        model = build(nodes, {"w": normal(24, 5)}, FLAT, outputs)
        graph = load(model)
        x = normal(3, 3, 2, 4)
        got = outputs_of(graph, {"x": x})
        want = reference(model, {"x": x})
        for name in outputs:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)


def test_a_layer_may_be_called_as_what_the_host_makes_of_its_result() -> None:
    layers = [helper.make_node("Conv", ["x", "w"], ["c"], "p"),
              helper.make_node("Softmax", ["c"], ["p"], "s", axis=1),
              node("LogSoftmax", ["p"], "y", axis=2)]  # fmt: skip
    graph = same_as_onnxruntime(build(layers, {"w": W}))
    assert [op.output for op in graph.host] == ["p", "y"]


def test_two_outputs_of_one_tensor_and_an_input_as_output() -> None:
    nodes = [node("Relu", ["x"], "y"), node("Identity", ["y"], "z"), node("Identity", ["x"], "k")]
    graph = same_as_onnxruntime(build(nodes, outputs=["y", "z", "k"]))
    assert ops(graph) == ["map", "map", "map"]


def test_nodes_are_sorted_dead_ones_dropped_names_unique() -> None:
    nodes = [
        helper.make_node("Relu", ["c"], ["y"], name="same"),
        helper.make_node("LSTM", ["c", "w", "w"], ["never"], name="dead"),
        helper.make_node("Abs", ["x"], ["c"], name="same"),
    ]
    graph = load(build(nodes, {"w": W}))
    assert [n.attrs["function"] for n in graph.nodes] == ["abs", "relu"]
    assert len({n.name for n in graph.nodes}) == 2


def test_residual_block_with_two_uses() -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], "c", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], "r"),
        node("Conv", ["r", "v"], "d", pads=[1, 1, 1, 1]),
        node("Add", ["d", "c"], "a"),
        node("Relu", ["a"], "y"),
    ]
    weights = {"w": W, "b": B, "v": normal(4, 4, 3, 3)}
    assert ops(same_as_onnxruntime(build(nodes, weights))) == ["conv", "map", "conv", "alu", "map"]


MODELS = sorted([*(ROOT / "examples").glob("*.onnx"), *(ROOT / "tests" / "data").glob("*.onnx")])


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_exported_models_compute_what_onnxruntime_does(path: Path) -> None:
    graph = load(path)
    model = onnx.load(path)
    inputs = {n: normal(3, *(graph.tensors[n].onnx_shape or ())) for n in graph.inputs}
    want = reference(model, inputs)
    for name, values in outputs_of(graph, inputs).items():
        np.testing.assert_allclose(values, want[name], rtol=1e-3, atol=1e-4)
    assert {n.op for n in graph.nodes} <= {"conv", "dense", "map", "pool"}


def test_loading_leaves_the_model_as_it_is() -> None:
    model = build([node("Relu", ["x"], "y"), node("Abs", ["x"], "dead")])
    before = model.SerializeToString()
    load(model)
    assert model.SerializeToString() == before
