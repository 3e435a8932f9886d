"""List the networks, or write one to a file: ``python -m examples.networks NAME -o FILE.onnx``."""

from __future__ import annotations

import argparse
import sys

import onnx

from examples.networks import NETWORKS, NetworkError, table


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m examples.networks", description=__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a network; without one, list all")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: NAME.onnx")
    parser.add_argument("--width", type=float, help="of the layers: 0.25 is a quarter of the maps")
    parser.add_argument("--size", type=_size, help="of the input: 64, or HEIGHTxWIDTH for cn3")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    options = parser.parse_args(arguments)
    if options.name is None:
        print(listing())
        return 0
    try:
        write(options)
    except (NetworkError, OSError) as error:
        print(f"networks: {error}", file=sys.stderr)
        return 2
    return 0


def write(options: argparse.Namespace) -> None:
    """Build a network and save it."""
    if options.name not in NETWORKS:
        raise NetworkError(f"no network {options.name!r}; take one of {', '.join(NETWORKS)}")
    if options.seed < 0:
        raise NetworkError(f"seed {options.seed} is negative; take 0 or more")
    given = {"width": options.width, "size": options.size}
    given = {name: value for name, value in given.items() if value is not None}
    path = options.output or f"{options.name}.onnx"
    onnx.save(NETWORKS[options.name](**given, seed=options.seed), path)
    print(path)


def listing() -> str:
    """Return the table of all networks as text."""
    lines = ["name               million MACs    parameters"]
    for name, row in table().items():
        lines.append(f"{name:18} {row.macs / 1e6:12,.3f} {row.parameters:13,}")
    return "\n".join(lines)


def _size(text: str) -> int | tuple[int, int]:
    parts = [int(part) for part in text.split("x")]
    if len(parts) not in (1, 2) or min(parts) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a size: write 64 or 240x320")
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


if __name__ == "__main__":
    sys.exit(main())
