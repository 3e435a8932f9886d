"""Train three LeNets on real digits by PyTorch, and export them to ONNX.

Run from the repository's root, with the extra ``train`` installed::

    python -m examples.train              # the models, next to this file
    python -m examples.train --fixtures   # the small importer fixtures, in tests/data

``lenet5_a`` and ``lenet5_b`` leave through PyTorch's default exporter, ``lenet5_c`` through the
older one, so that an importer meets both. One seed per model, one thread, a fixed number of
epochs and no choice made by the held-out digits. On one machine with one version of PyTorch the
files come out the same to the byte; another version may sum in another order.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from examples import digits

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "tests" / "data"
OPSET = 18
EPOCHS = 120
BATCH = 32
# How far a training digit is moved, at random, each time it is shown: 1,397 are few.
TURN = math.radians(10)
GROW = 0.1
SHIFT = 0.08
PEAK_RATE = 0.02
MOMENTUM = 0.9
# Keeps weights small and of one order, which suits a fixed-point word.
WEIGHT_DECAY = 1e-3
FIXTURE_SEED = 7
# Text by which a path of the machine that exported would show.
MACHINE_TEXT = (str(HERE.parent), sys.prefix, tempfile.gettempdir(), "site-packages", 'File "')


class Network(nn.Module):
    """A chain of layers whose input ONNX calls "image"."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Map images [N, 1, S, S] in [0, 1] to scores [N, 10]; the largest is the answer."""
        scores: Tensor = self.layers(image)
        return scores


def lenet5_a() -> Network:
    """Build the wide LeNet for 28x28: ReLU, max pooling, one hidden layer of 500."""
    return Network(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * 4 * 4, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


def _classic(squash: Callable[[], nn.Module], pool: Callable[[int], nn.Module]) -> Network:
    """Build LeNet-5's shape for 32x32 from one non-linearity and one pooling."""
    return Network(
        nn.Conv2d(1, 6, 5),
        squash(),
        pool(2),
        nn.Conv2d(6, 16, 5),
        squash(),
        pool(2),
        nn.Conv2d(16, 120, 5),  # 5x5 in, 1x1 out
        squash(),
        nn.Flatten(),
        nn.Linear(120, 84),
        squash(),
        nn.Linear(84, 10),
    )


def lenet5_b() -> Network:
    """Build LeNet-5 for 32x32 with ReLU and max pooling."""
    return _classic(nn.ReLU, nn.MaxPool2d)


def lenet5_c() -> Network:
    """Build LeNet-5 for 32x32 in its first form: tanh and average pooling."""
    return _classic(nn.Tanh, nn.AvgPool2d)


@dataclass(frozen=True)
class Recipe:
    """How one model is made.

    Attributes
    ----------
    build : makes the untrained network.
    size : side of its input in pixels.
    seed : of its first weights and of the order of its digits.
    dynamo : True for PyTorch's default exporter, False for the older one.
    """

    build: Callable[[], Network]
    size: int
    seed: int
    dynamo: bool


RECIPES = {
    "lenet5_a": Recipe(lenet5_a, 28, 1, dynamo=True),
    "lenet5_b": Recipe(lenet5_b, 32, 2, dynamo=True),
    "lenet5_c": Recipe(lenet5_c, 32, 3, dynamo=False),
}


def jitter(images: Tensor) -> Tensor:
    """Turn, scale and shift each image [N, 1, S, S] at random by at most TURN, GROW and SHIFT.

    Radians, share of the size, and share of half the side.
    """
    turn, grow, across, down = (torch.rand(4, len(images)) * 2 - 1).unbind()
    scale = 1 + grow * GROW
    cosine, sine = torch.cos(turn * TURN) * scale, torch.sin(turn * TURN) * scale
    rows = [cosine, -sine, across * SHIFT, sine, cosine, down * SHIFT]
    grid = nn.functional.affine_grid(
        torch.stack(rows, dim=1).view(-1, 2, 3), list(images.shape), align_corners=False
    )
    return nn.functional.grid_sample(images, grid, align_corners=False)


def train(recipe: Recipe, data: digits.Digits) -> Network:
    """Train one network on ``data.train_x``, each digit jittered, with SGD; return it."""
    torch.manual_seed(recipe.seed)
    network = recipe.build()
    images, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    steps = EPOCHS * math.ceil(len(images) / BATCH)
    optimiser = torch.optim.SGD(
        network.parameters(), PEAK_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(images)).split(BATCH):
            optimiser.zero_grad()
            scores = network(jitter(images[part]))
            nn.functional.cross_entropy(scores, labels[part]).backward()
            optimiser.step()
            schedule.step()
    network.eval()
    return network


def export(
    network: nn.Module,
    sample: Tensor,
    path: Path,
    *,
    dynamo: bool,
    external: bool = False,
    fuse: bool = True,
) -> None:
    """Export to ONNX, batch size symbolic, and strip what tells of the exporting machine.

    Parameters
    ----------
    network : in evaluation mode.
    sample : an input [2, C, H, W]; two, since an exporter may take a batch of one as fixed.
    path : of the .onnx file.
    dynamo : True for the default exporter, False for the older one.
    external : whether the weights go to ``<path>.data``.
    fuse : whether the exporter may simplify, which folds a BatchNormalization into its Conv.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    common = {"input_names": ["image"], "output_names": ["scores"], "opset_version": OPSET}
    if dynamo:
        torch.onnx.export(
            network,
            (sample,),
            path,
            dynamo=True,
            dynamic_shapes={"image": {0: "batch"}},
            external_data=external,
            optimize=fuse,
            verbose=False,
            **common,
        )
    else:
        mode = torch.onnx.TrainingMode.EVAL if fuse else torch.onnx.TrainingMode.PRESERVE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # It is the older one on purpose.
            torch.onnx.export(
                network,
                (sample,),
                path,
                dynamo=False,
                dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
                training=mode,
                **common,
            )
    _strip(path)


def _strip(path: Path) -> None:
    """Remove comments and stack traces from an ONNX file, and check that no path is left."""
    # Without its external data: then references to the .data file are kept as they are.
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
    onnx.save(model, path)
    content = path.read_bytes()
    found = [text for text in MACHINE_TEXT if text.encode() in content]
    if found:
        raise RuntimeError(f"{path.name}: still holds {found} from the exporting machine")
    onnx.checker.check_model(path)


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of ``images`` [N, 1, S, S] that the ONNX model at ``path`` gets right."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"image": images})
    return float((scores.argmax(axis=1) == labels).mean())


def make_models(folder: Path) -> None:
    """Train and export all three models into ``folder``, and print what each reaches."""
    print(f"split seed {digits.SPLIT_SEED}, {digits.HELD_OUT} digits held out")
    for name, recipe in RECIPES.items():
        data = digits.load(recipe.size)
        network = train(recipe, data)
        path = folder / f"{name}.onnx"
        export(network, torch.from_numpy(data.test_x[:2]), path, dynamo=recipe.dynamo)
        trained = accuracy(path, data.train_x, data.train_y)
        held = accuracy(path, data.test_x, data.test_y)
        size = path.stat().st_size
        print(
            f"{name}: seed {recipe.seed}, trained on {trained:.2%}, held out {held:.2%}, {size} B"
        )


def fixture() -> Network:
    """Build a small seeded convnet with a BatchNormalization whose statistics are not trivial."""
    torch.manual_seed(FIXTURE_SEED)
    norm = nn.BatchNorm2d(4)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 1.5)
    network = Network(
        nn.Conv2d(3, 4, 3, padding=1),
        norm,
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 5),
    )
    network.eval()
    return network


def make_fixtures(folder: Path) -> None:
    """Export the fixture [N, 3, 8, 8] -> [N, 5] into ``folder`` in every shape of file."""
    print(f"fixture seed {FIXTURE_SEED}")
    network = fixture()
    sample = torch.rand(2, 3, 8, 8)
    for dynamo, exporter in ((True, "default"), (False, "older")):
        for fuse, suffix in ((True, ""), (False, "_norm")):
            path = folder / f"tiny_{exporter}{suffix}.onnx"
            export(network, sample, path, dynamo=dynamo, external=dynamo, fuse=fuse)
            _compare(network, sample, path)
            print(f"{path.name}: {path.stat().st_size} B")


def _compare(network: nn.Module, sample: Tensor, path: Path) -> None:
    """Check that the exported file computes what the network does."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"image": sample.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(scores, network(sample).numpy(), rtol=1e-4, atol=1e-5)


def main() -> None:
    """Read the command line; make the models, or the fixtures."""
    parser = argparse.ArgumentParser(description="Train and export the example networks.")
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--fixtures", action="store_true", help="export the importer fixtures")
    options = parser.parse_args()
    torch.set_num_threads(1)  # A sum's order, so its last bit, depends on the threads.
    torch.use_deterministic_algorithms(True)
    if options.fixtures:
        make_fixtures(options.out or FIXTURES)
    else:
        make_models(options.out or HERE)


if __name__ == "__main__":
    main()
