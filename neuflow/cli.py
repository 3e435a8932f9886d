"""The command ``neuflow``: one function a verb. Data goes to stdout, the log to stderr.

Exit codes: 0 fine; 1 ``compare`` found that the judges disagree, or ``accuracy`` a word out of bounds;
2 a user's error (one line on stderr that names cause and fix).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from neuflow import cli_errors, cli_files, cli_wait, files
from neuflow.errors import InputError, NeuflowError

if TYPE_CHECKING:
    from neuflow.api import Program, Run
    from neuflow.grid import MemoryConfig

LARGE_BATCH = 1000
"""Images of a pass from which on they are why compiling lasts: some milliseconds each."""

STAGES = ("graph", "quantised", "mapping", "schedule", "program")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other user's error does."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    if arguments is None:  # the process is ours
        _settle()
    try:
        options = _parser().parse_args(arguments)
        code = options.verb(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except NeuflowError as error:
        print(f"neuflow: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        warnings.simplefilter("ignore")  # of the gates that were being made, none will be used
        print("neuflow: interrupted", file=sys.stderr)
        return 130
    except (OSError, MemoryError) as error:
        text = cli_errors.line(error)
        if text is None:
            raise
        print(f"neuflow: {text}", file=sys.stderr)
        return 2
    return code or 0


def _settle() -> None:
    """Set up the process: ended by others, too, it takes back what it began, and it prints any name."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # else it is closed
        sys.stdout.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    from neuflow import __version__

    parser = _Parser(prog="neuflow", description="ConvNet accelerator: compile, run, inspect.")
    parser.add_argument("--version", action="version", version=f"neuflow {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    _add_compile(verbs)
    _add_run(verbs)
    _add_compare(verbs)

    verb = verbs.add_parser("inspect", help="print a program's stages")
    verb.add_argument("program", metavar="PROG.nfp")
    verb.add_argument("--stage", choices=STAGES, help="one stage; default: all")
    verb.set_defaults(verb=_inspect)

    verb = verbs.add_parser("accuracy", help="golden against the model: error, bound, SQNR")
    verb.add_argument("model", metavar="MODEL.onnx")
    verb.add_argument("program", metavar="PROG.nfp")
    verb.add_argument("--input", required=True, metavar="X", help=".npy, or .npz by ONNX name")
    verb.set_defaults(verb=_accuracy)

    verb = verbs.add_parser("verilog", help="write a grid's Verilog and register tables")
    _add_grid(verb)
    verb.add_argument("-o", "--output", required=True, metavar="DIR")
    verb.set_defaults(verb=_verilog)

    verb = verbs.add_parser("report", help="run under rtl and write a report: cycles, energy")
    verb.add_argument("program", metavar="PROG.nfp")
    verb.add_argument("--input", metavar="X", help=".npy or .npz; default: one seeded random batch")
    verb.add_argument("-o", "--output", required=True, metavar="DIR")
    verb.set_defaults(verb=_report)

    verb = verbs.add_parser("grids", help="list the presets")
    verb.set_defaults(verb=_grids)
    return parser


def _add_grid(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--grid", default="virtex6", metavar="PRESET|FILE.toml", help="default: %(default)s"
    )


def _add_compile(verbs: Any) -> None:
    verb = verbs.add_parser("compile", help="compile an ONNX model to a program")
    verb.add_argument("model", metavar="MODEL.onnx")
    verb.add_argument("-o", "--output", required=True, metavar="PROG.nfp")
    _add_grid(verb)
    verb.add_argument("--calib", metavar="X", help=".npy or .npz of inputs to choose points by")
    verb.add_argument(
        "--bits", type=int, choices=(16, 8), default=16, help="width of words; default: 16"
    )
    verb.add_argument(
        "--q8.8", dest="q8_8", action="store_true", help="8 fractional bits everywhere"
    )
    verb.add_argument(
        "--batch", type=_positive, metavar="B", help="images of a pass; default: the model's, or 1"
    )
    verb.add_argument(
        "--search", type=_positive, default=1, metavar="N",
        help="try the N best ways to cut each layer on the cycle judge: fewer cycles, takes minutes",
    )  # fmt: skip
    verb.set_defaults(verb=_compile)


def _add_run(verbs: Any) -> None:
    verb = verbs.add_parser("run", help="run a program")
    verb.add_argument("program", metavar="PROG.nfp")
    verb.add_argument("--input", metavar="X", help=".npy, or .npz by ONNX name")
    verb.add_argument("--output", metavar="Y", help=".npy, or .npz by ONNX name")
    verb.add_argument(
        "--on", choices=("golden", "cycle", "rtl"), default="golden", help="the judge"
    )
    verb.add_argument(
        "--no-values", action="store_true", help="cycle: times alone; no input, no output"
    )
    verb.add_argument(
        "--images", type=_positive, metavar="N", help="with --no-values; default: one pass"
    )
    verb.add_argument(
        "--memory", metavar="KEY=N,..",
        help="latency, write_latency, words_per_cycle, outstanding, shared",
    )  # fmt: skip
    verb.add_argument("--seed", type=_natural, metavar="N", help="cycle, rtl: stall the bus at random")
    verb.add_argument("--waves", metavar="F.fst|F.vcd", help="rtl: write waves (slow)")
    verb.add_argument("--json", metavar="STATS.json", help="write statistics")
    verb.add_argument("--raw", action="store_true", help="write signed words, not float32")
    verb.set_defaults(verb=_run)


def _add_compare(verbs: Any) -> None:
    verb = verbs.add_parser("compare", help="run golden, cycle and rtl; say where they disagree")
    verb.add_argument("program", metavar="PROG.nfp")
    verb.add_argument("--input", required=True, metavar="X", help=".npy, or .npz by ONNX name")
    verb.add_argument("--memory", metavar="KEY=N,..", help="as for run")
    verb.add_argument("--seed", type=_natural, metavar="N", help="stall the bus at random")
    verb.add_argument(
        "-o", "--output", metavar="DIR",
        help="for waves and the operands of a disagreement; default: beside the program",
    )  # fmt: skip
    verb.set_defaults(verb=_compare)


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _natural(text: str) -> int:
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # argparse would name this function
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


# --- verbs ----------------------------------------------------------------------------------------


def _compile(options: argparse.Namespace) -> None:
    from neuflow import api
    from neuflow.layout import SEGMENTS

    cli_files.check_target(options.output, (".nfp",), (options.model,))
    model = cli_files.model(options.model)
    calib = None if options.calib is None else cli_files.read_arrays(options.calib)
    begin = time.monotonic()
    with cli_wait.still(f"{options.output}: still compiling{_why(options.batch or 1)}"):
        program = api.compile(
            model, options.grid, calib, bits=options.bits, q8_8=options.q8_8, batch=options.batch,
            search=options.search, told=lambda text: _log(f"search: {text}"),
        )  # fmt: skip
    program.save(options.output)
    if options.search > 1:
        _log(f"search: {time.monotonic() - begin:.0f} s")
    if calib is None:
        _log(
            f"no --calib: binary points come from {api.CALIBRATION_IMAGES} random inputs; give "
            "real ones for real use"
        )
    for name, ratio in api.coarse(program.ir).items():
        _log(
            f"node {name!r}: {SEGMENTS} segments follow its curve to {ratio:.1f} dB only over the "
            "calibrated range; keep its input from where the curve is steep, by Clip, and see accuracy"
        )
    _log(f"{options.output}: {program.name} for grid {program.grid.name}")


def _why(batch: int) -> str:
    """Return why a compilation may last; empty where it is not for the batch."""
    if batch < LARGE_BATCH:
        return ""
    return f" {batch} images of a pass, each on its own; any number of images run at a smaller --batch"


def _run(options: argparse.Namespace) -> None:
    from neuflow import api

    targets = [(options.output, (".npy", ".npz")), (options.json, (".json",))]
    for target, endings in [*targets, (options.waves, (".fst", ".vcd"))]:
        if target is not None:
            cli_files.check_target(target, endings, (options.input,))
    _check_run(options)
    program = cli_files.load(options.program)
    memory = api.with_memory(program.grid, options.memory or "")
    with cli_wait.still(f"{options.output or program.name}: still running on {options.on}"):
        if options.no_values:
            figures = program.cycles(options.images or program.ir.batch, memory, options.seed)
        else:
            figures = _run_values(options, program, memory)
    if options.json:
        files.write_text(Path(options.json), json.dumps(figures, indent=2) + "\n")
    cycles = figures["cycles"]
    took = f", {cycles} cycles" if cycles is not None else ""
    done = options.output or program.name
    _log(f"{done}: {figures['images']} images on {options.on}{took}")


def _check_run(options: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if options.on != "rtl" and options.waves:
        raise InputError("--waves needs the gates; add --on rtl")
    if options.on == "golden" and options.seed is not None:
        raise InputError("--seed needs a clock; add --on cycle or --on rtl")
    if options.no_values:
        if options.on != "cycle":
            raise InputError("--no-values gives cycles alone; add --on cycle")
        if options.input or options.output:
            raise InputError("--no-values takes no --input and no --output; say --images N")
    elif options.images:
        raise InputError("--images goes with --no-values; else all images of --input run")
    elif not (options.input and options.output):
        raise InputError("give --input X and --output Y (or --on cycle --no-values)")


def _run_values(
    options: argparse.Namespace, program: Program, memory: MemoryConfig
) -> Mapping[str, Any]:
    """Run on inputs, write the outputs, return the statistics."""
    names = program.raw_names if options.raw else program.output_names
    if options.output.endswith(".npy") and len(names) != 1:
        raise InputError(f"{options.output}: the outputs are {', '.join(names)}; name a .npz file")
    x = cli_files.read_arrays(options.input)
    if options.on == "rtl":
        result = program.rtl(x, memory, options.seed, options.waves)
    elif options.on == "cycle":
        result = program.cycle(x, memory, options.seed)
    else:
        result = program.golden(x, memory)
    _warn_saturated(program, x)
    cli_files.write_arrays(options.output, _chosen_outputs(program, result, options.raw))
    return result.stats


def _warn_saturated(program: Program, x: Any) -> None:
    """Say which inputs the words cannot hold: pixels of 0 to 255 where calibration had 0 to 1."""
    from neuflow import api

    for name, (share, low, high) in api.saturated(program.ir, x).items():
        _log(
            f"input {name!r}: {100 * share:.2g} % of its values are beyond {low:.4g} to {high:.4g} and "
            "saturate; compile with inputs of that range as --calib"
        )


def _chosen_outputs(program: Program, result: Run, raw: bool) -> dict[str, Any]:
    if not raw:
        return dict(result.outputs)
    if program.ir.graph.host:
        _log("--raw: words of the grid, before what the host computes (softmax and the like)")
    from neuflow.run.host import own_shape

    return {
        port.tensor.name: result.words[port.tensor.name]
        .astype("int16")
        .reshape(-1, *own_shape(port.tensor))
        for port in program.ir.outputs
    }


def _compare(options: argparse.Namespace) -> int:
    """Return 1 where the judges disagree."""
    from neuflow import api
    from neuflow.run import compare

    program = cli_files.load(options.program)
    memory = api.with_memory(program.grid, options.memory or "")
    x = cli_files.read_arrays(options.input)
    words = api.quantise_inputs(program.ir, x)
    _warn_saturated(program, x)
    parent = str(Path(options.program).parent)
    with cli_files.directory(parent if options.output is None else options.output) as beside:
        found = compare.compare(
            program.ir, words, memory, options.seed, beside, Path(options.program).stem
        )
    print(found.text)
    for path in found.files:
        _log(f"{path}: written")
    return 0 if found.agree else 1


def _accuracy(options: argparse.Namespace) -> int:
    """Return 1 where a word of golden is outside of its bound."""
    from neuflow import api
    from neuflow.run import accuracy

    program, x = cli_files.load(options.program), cli_files.read_arrays(options.input)
    found, outputs = api.accuracy(cli_files.model(options.model), program, x)
    _warn_saturated(program, x)
    print(accuracy.text(found, outputs))
    return 1 if any(tensor.outside for tensor in found) else 0


def _inspect(options: argparse.Namespace) -> None:
    from neuflow import listing

    program = cli_files.load(options.program).ir
    stages = [options.stage] if options.stage else list(STAGES)
    for stage in stages:
        if len(stages) > 1:
            print(f"== {stage}")
        print(listing.stage(program, stage))


def _verilog(options: argparse.Namespace) -> None:
    from neuflow import grid, verilog

    config = grid.load(options.grid)
    with cli_files.directory(options.output) as directory:
        paths = verilog.write(config, directory)
    for path in paths:
        print(path)


def _report(options: argparse.Namespace) -> None:
    from neuflow import report

    program = cli_files.load(options.program)
    x = None if options.input is None else cli_files.read_arrays(options.input)
    with cli_files.directory(options.output) as directory:
        paths = report.write(program, x, directory)
    if x is not None:
        _warn_saturated(program, x)
    for path in paths:
        print(path)


def _grids(options: argparse.Namespace) -> None:
    from neuflow.grid import PRESETS

    print(f"{'name':<12} {'columns':>8} {'MACs':>5} {'tiles':>6}  {'clock':<26} bus words a cycle")
    for grid in PRESETS.values():
        clock = f"{grid.clock_hz / 1e6:g} MHz ({grid.clock_source})"
        ways = "" if grid.memory.shared else " each way"
        print(
            f"{grid.name:<12} {grid.columns:>8} {grid.macs:>5} {grid.tiles:>6}  {clock:<26} "
            f"{grid.bus_words_per_cycle:g}{ways}"
        )


def _log(text: str) -> None:
    print(text, file=sys.stderr)
