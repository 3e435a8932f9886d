"""ONNX's own conformance cases, of the operations that are possible."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from neuflow.compiler.load import load
from tests.loaded import outputs_of

CONFORM = """concat_2d_axis_1 concat_3d_axis_1 concat_3d_axis_negative_2 lrn lrn_default
celu elu elu_default elu_example erf gelu_default_1 gelu_tanh_2 hardsigmoid hardsigmoid_default hardswish
leakyrelu leakyrelu_default leakyrelu_example mish selu selu_default softplus softsign swish
averagepool_2d_pads averagepool_2d_same_upper averagepool_2d_same_lower averagepool_2d_ceil
averagepool_2d_precomputed_pads averagepool_2d_precomputed_same_upper
max_example max_two_inputs min_example min_two_inputs abs add averagepool_1d_default
averagepool_2d_default averagepool_2d_strides
averagepool_2d_pads_count_include_pad averagepool_2d_precomputed_pads_count_include_pad
batchnorm_example batchnorm_epsilon clip clip_splitbounds clip_default_max
clip_min_greater_than_max basic_conv_with_padding basic_conv_without_padding
conv_with_autopad_same conv_with_strides_and_asymmetric_padding conv_with_strides_no_padding
conv_with_strides_padding div dropout_default dropout_random_old flatten_axis1
flatten_default_axis gemm_alpha gemm_beta gemm_default_no_bias gemm_default_scalar_bias
gemm_default_vector_bias gemm_default_zero_bias gemm_transposeB globalaveragepool globalmaxpool
identity matmul_2d maxpool_1d_default maxpool_2d_ceil maxpool_2d_default maxpool_2d_pads
maxpool_2d_precomputed_same_upper maxpool_2d_same_lower maxpool_2d_same_upper maxpool_2d_strides
maxpool_2d_ceil_output_size_reduce_by_one mul neg relu reshape_extended_dims
reshape_negative_dim reshape_reduced_dims reshape_reordered_last_dims
reshape_zero_and_negative_dim sigmoid squeeze_negative_axes sub sum_example sum_two_inputs tanh
transpose_all_permutations_0 unsqueeze_axis_1""".split()
TWO_DATA = {"Add", "Sub", "Mul", "Div", "Sum", "Concat", "Max", "Min"}


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """Return ONNX's node cases by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own data overflow on purpose
        return {case.name: case for case in collect_testcases(None)}


@pytest.mark.parametrize("name", CONFORM)
def test_onnx_conformance_case(cases: dict[str, Any], name: str) -> None:
    """All but the data operands become weights, as in a model that was exported."""
    case = cases[f"test_{name}"]
    model = ModelProto()
    model.CopyFrom(case.model)
    operands, results = case.data_sets[0]
    tested = model.graph.node[0]
    feeds = {}
    for value, array in zip(model.graph.input, operands, strict=True):
        if list(tested.input).index(value.name) == 0 or tested.op_type in TWO_DATA:
            feeds[value.name] = array
        else:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
    got = outputs_of(load(model), feeds)[model.graph.output[0].name]
    assert got.shape == results[0].shape
    np.testing.assert_allclose(got, results[0], rtol=1e-4, atol=1e-5)
