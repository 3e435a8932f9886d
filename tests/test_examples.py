"""The example data are sound, the committed networks are good, the benchmark is what it says."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy import signal

from examples import digits, filter_bank

EXAMPLES = Path(digits.__file__).parent
FIXTURES = Path(__file__).parent / "data"
SIZES = {"lenet5_a": 28, "lenet5_b": 32, "lenet5_c": 32}
LENET5 = [[6, 1, 5, 5], [16, 6, 5, 5], [120, 16, 5, 5], [84, 120], [10, 84]]
WEIGHTS = {
    "lenet5_a": [[20, 1, 5, 5], [50, 20, 5, 5], [500, 800], [10, 500]],
    "lenet5_b": LENET5,
    "lenet5_c": LENET5,
}
LAYERS = {
    "lenet5_a": {"Conv": 2, "MaxPool": 2, "Relu": 3, "Gemm": 2},
    "lenet5_b": {"Conv": 3, "MaxPool": 2, "Relu": 4, "Gemm": 2},
    "lenet5_c": {"Conv": 3, "AveragePool": 2, "Tanh": 4, "Gemm": 2},
}
MODEL_FILES = [EXAMPLES / f"{name}.onnx" for name in SIZES]
FIXTURE_FILES = [
    FIXTURES / f"tiny_{name}.onnx" for name in ("default", "default_norm", "older", "older_norm")
]


def run(model: Path | onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """Return a model's one output for ``image``, by onnxruntime on the CPU."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"image": image})
    return result


def correlate(image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Return the filter bank's maps [1, 4, H, W] in float64, by SciPy."""
    padded = np.pad(image[0].astype(np.float64), ((0, 0), (4, 5), (4, 5)))
    return np.stack([signal.correlate(padded, bank, mode="valid") for bank in kernels], axis=1)


# Digits


@pytest.mark.parametrize("size", [28, 32])
def test_digits_have_the_promised_form(size: int) -> None:
    data = digits.load(size)
    assert data.train_x.shape == (1397, 1, size, size)
    assert data.test_x.shape == (400, 1, size, size)
    for images, labels in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert images.dtype == np.float32
        assert labels.dtype == np.int64
        assert (images.min(), images.max()) == (0.0, 1.0)
        assert len(images) == len(labels)


def test_held_out_digits_are_stratified() -> None:
    data = digits.load(28)
    whole = np.bincount(np.concatenate([data.train_y, data.test_y]))
    expected = whole * 400 / 1797
    assert len(whole) == 10
    assert np.abs(np.bincount(data.test_y) - expected).max() < 1


def test_split_is_the_one_the_committed_networks_were_trained_with() -> None:
    # With another split they would be measured on digits they have learned: retrain, then change.
    assert zlib.crc32(digits.load(28).test_y.astype("<i8").tobytes()) == 0xA13021DE


def test_no_digit_is_on_both_sides() -> None:
    data = digits.load(28)
    train = {image.tobytes() for image in data.train_x}
    held = {image.tobytes() for image in data.test_x}
    assert not train & held
    assert len(train | held) == 1797  # No two of the source's digits are the same either.


def test_split_is_the_same_twice_and_in_both_sizes() -> None:
    first, again, large = digits.load(28), digits.load(28), digits.load(32)
    for name in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    np.testing.assert_array_equal(large.test_y, first.test_y)
    np.testing.assert_array_equal(large.test_x[:, :, 2:-2, 2:-2], first.test_x)


def test_enlarging_keeps_the_picture() -> None:
    spot = np.zeros((1, 8, 8))
    spot[0, 2:4, 5] = 16.0
    large = digits.enlarge(spot, 28)[0, 0]
    row, column = np.unravel_index(large.argmax(), large.shape)
    # Source pixels 2 and 3, 5 cover rows 8 to 13 and columns 17 to 19 inside the border of 2.
    assert 8 <= row <= 13
    assert 17 <= column <= 19
    assert not large[:2].any()


@pytest.mark.parametrize("size", [23, 22, 29])
def test_a_size_that_cannot_be_centred_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        digits.load(size)


# Networks


@pytest.mark.parametrize("name", SIZES)
def test_network_recognises_held_out_digits(name: str) -> None:
    data = digits.load(SIZES[name])
    scores = run(EXAMPLES / f"{name}.onnx", data.test_x)
    assert scores.shape == (400, 10)
    assert (scores.argmax(axis=1) == data.test_y).mean() >= 0.985


@pytest.mark.parametrize("name", SIZES)
def test_network_has_the_published_layers(name: str) -> None:
    graph = onnx.load(EXAMPLES / f"{name}.onnx").graph
    weights = [list(part.dims) for part in graph.initializer if part.name.endswith(".weight")]
    assert weights == WEIGHTS[name]
    counts = Counter(node.op_type for node in graph.node)
    flat = counts.pop("Reshape", 0) + counts.pop("Flatten", 0)
    assert flat == 1
    assert counts == LAYERS[name]


@pytest.mark.parametrize("path", MODEL_FILES + FIXTURE_FILES, ids=lambda path: path.stem)
def test_model_file_has_the_agreed_interface(path: Path) -> None:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    ((source,), (result,)) = model.graph.input, model.graph.output
    assert (source.name, result.name) == ("image", "scores")
    assert source.type.tensor_type.shape.dim[0].dim_param
    assert result.type.tensor_type.shape.dim[0].dim_param
    assert {entry.domain for entry in model.opset_import} == {""}


@pytest.mark.parametrize("path", MODEL_FILES + FIXTURE_FILES, ids=lambda path: path.stem)
def test_model_file_tells_nothing_of_the_machine_that_made_it(path: Path) -> None:
    content = path.read_bytes()
    assert b"site-packages" not in content
    assert not re.search(rb"/[\w.+-]+/[\w./+-]+\.py\b", content)
    graph = onnx.load(path, load_external_data=False).graph
    assert not any(node.metadata_props or node.doc_string for node in graph.node)


def test_committed_models_are_small() -> None:
    assert {path.name for path in EXAMPLES.glob("*.onnx")} == {path.name for path in MODEL_FILES}
    assert sum(path.stat().st_size for path in MODEL_FILES) < 2_500_000
    fixtures = [path for path in FIXTURES.glob("tiny_*") if path.is_file()]
    assert len(fixtures) == 6
    assert max(path.stat().st_size for path in fixtures) < 20_000


def test_both_exporters_fixtures_compute_the_same() -> None:
    image = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    results = [run(path, image) for path in FIXTURE_FILES]
    assert results[0].shape == (3, 5)
    assert np.ptp(results[0]) > 0.1
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-4, atol=1e-5)


# Filter bank


@pytest.mark.parametrize(("height", "width"), [(500, 500), (37, 52)])
def test_filter_bank_is_a_correlation(height: int, width: int) -> None:
    image = filter_bank.photo(height, width)
    maps = run(filter_bank.filter_bank(height, width), image)
    assert maps.shape == (1, 4, height, width)
    expected = correlate(image, filter_bank.kernels())
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 1  # Or the tolerance would say nothing.


def test_filter_bank_cannot_leave_a_word() -> None:
    kernels = filter_bank.kernels().astype(np.float64)
    assert kernels.shape == (4, 4, 10, 10)
    np.testing.assert_allclose(np.abs(kernels).sum(axis=(2, 3)), 8.0, rtol=1e-6)
    # The worst input, the sign of each weight, makes every partial sum the largest it can be.
    worst = np.abs(kernels).sum(axis=(1, 2, 3)).max()
    assert worst < 127
    # And not so small that a step of 1/256 would round the patches away.
    assert np.abs(kernels).max(axis=(2, 3)).min() > 0.25


def test_filter_bank_kernels_differ_and_are_seeded() -> None:
    flat = filter_bank.kernels().reshape(16, 100)
    np.testing.assert_array_equal(flat, filter_bank.kernels().reshape(16, 100))
    alike = np.corrcoef(flat) - np.eye(16)
    assert np.abs(alike).max() < 0.99


def test_filter_bank_pads_as_the_paper_does() -> None:
    (conv,) = filter_bank.filter_bank().graph.node
    given = {item.name: onnx.helper.get_attribute_value(item) for item in conv.attribute}
    assert given["pads"] == [4, 4, 5, 5]
    assert given["kernel_shape"] == [10, 10]


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize(("height", "width"), [(500, 500), (48, 64), (33, 7)])
def test_photo_is_four_maps_in_range(name: str, height: int, width: int) -> None:
    maps = filter_bank.photo(height, width, name)
    assert maps.shape == (1, 4, height, width)
    assert maps.dtype == np.float32
    assert maps.min() >= -1
    assert maps.max() < 1
    assert maps.std() > 0.1
    luma = np.tensordot([0.299, 0.587, 0.114], maps[0, :3], axes=1)
    np.testing.assert_allclose(maps[0, 3], luma, atol=1e-6)


def test_photo_is_not_stretched() -> None:
    square, wide = filter_bank.photo(427, 427), filter_bank.photo(427, 640)
    # At its own size the photograph is not resampled at all: the square is its middle.
    np.testing.assert_array_equal(square, wide[..., 106:533])
