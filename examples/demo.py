"""Real handwritten digits through LeNet-5 on the simulated grid: ``make demo``.

First the golden model, then the Verilog of the same grid, word for word equal; then, with the same
simulator, two more networks and a filter bank. Pictures go to ``build/demo``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples import digits, filter_bank
from neuflow import api
from neuflow.errors import NeuflowError, ToolError
from neuflow.grid import load as load_grid
from neuflow.report import routes
from neuflow.report.drawing import save
from neuflow.report.floorplan import floorplan_figure
from neuflow.report.predictions import digits_figure
from neuflow.report.timeline import timeline_figure
from neuflow.run import build, compilers, rtl, stats

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "demo"
IMAGES = 100
OTHERS = 10  # digits for the other networks
BATCH = 10  # digits of a pass of the program, and of one simulation
CALIBRATION = 64
SHOWN = 6
WIDEST = 100
ORIGINAL_US = 6.0
"""Configuration of a pass on the original machine, microseconds, none of it hidden."""

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """One of the LeNets: its file, and the side of its digits in pixels."""

    title: str
    file: str
    size: int


LENET_B = Network("LeNet-5 (b)", "lenet5_b.onnx", 32)
LENETS = (Network("LeNet (a)", "lenet5_a.onnx", 28), Network("LeNet-5 (c)", "lenet5_c.onnx", 32))


@dataclass
class Outcome:
    """What the RTL gave for one model: words, figures summed over its runs, wall-clock seconds.

    ``cycles`` are those of all runs one after another.
    """

    words: NDArray[np.int64]
    images: int
    cycles: int
    macs: int
    config: dict[str, int]
    seconds: float

    @property
    def cycles_per_image(self) -> float:
        """Cycles of one image."""
        return self.cycles / self.images

    def utilisation(self, peak: int) -> float:
        """Share of the peak multiply-accumulates that were of use."""
        return self.macs / (self.cycles * peak)


# --- golden and float -----------------------------------------------------------------------------


def compile_lenet(network: Network, grid: str, data: digits.Digits, batch: int = 1) -> api.Program:
    """Compile a LeNet, its binary points chosen by digits that it was trained with."""
    return api.compile(HERE / network.file, grid, calib=data.train_x[:CALIBRATION], batch=batch)


def run_float(model: Path, x: Images) -> NDArray[np.float32]:
    """Return what onnxruntime makes of ``x`` in float."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(scores)


def only(arrays: Any) -> NDArray[Any]:
    """Return the only array of a mapping."""
    (array,) = arrays.values()
    return np.asarray(array)


# --- RTL ------------------------------------------------------------------------------------------


def run_rtl(program: api.Program, x: Images, workers: int, done: Callable[[int], None]) -> Outcome:
    """Run images on the RTL, split over ``workers`` simulations; ``done`` hears how many ended.

    A simulation is one pass of the program. Splitting changes no word; cycles are a little more
    than of one run, where the next pass could begin before the last has ended.
    """
    words = api.quantise_inputs(program.ir, x)
    count = len(only(words))
    step = program.ir.batch
    begin = time.monotonic()

    def part(first: int) -> Any:
        some = {name: array[first : first + step] for name, array in words.items()}
        result = rtl.run(program.ir, some)
        done(len(only(some)))
        return result

    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(part, range(0, count, step)))
    return Outcome(
        words=np.concatenate([only(result.outputs) for result in results]),
        images=count,
        cycles=sum(result.stats["cycles"] for result in results),
        macs=sum(result.stats["macs"] for result in results),
        config={
            key: sum(result.stats["config"][key] for result in results)
            for key in ("cycles", "hidden_cycles")
        },
        seconds=time.monotonic() - begin,
    )


@contextmanager
def bar(console: Console, text: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; yields a function that moves it on."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(30),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda count: progress.advance(task, count)


def wait(console: Console, text: str, running: Future[Outcome], seconds: float) -> Outcome:
    """Wait for a run that began in the background; the bar is of ``seconds`` it may still take."""
    begin = time.monotonic()
    with bar(console, text, max(1, round(seconds))) as moved:
        shown = 0
        while not running.done():
            time.sleep(0.1)
            now = min(int(time.monotonic() - begin), round(seconds))
            moved(now - shown)
            shown = now
    return running.result()


# --- what is shown --------------------------------------------------------------------------------


def sketch(images: Images, guesses: Sequence[int]) -> str:
    """Draw digits [N, 1, S, S] in characters, 12 wide, with what they were taken for."""
    ramp = np.array(list(" .:*#"))
    border = (images.shape[-1] - 24) // 2
    ink = images[:, 0, border : border + 24, border : border + 24]
    cells = ink.reshape(len(ink), 8, 3, 12, 2).mean(axis=(2, 4))
    marks = ramp[np.minimum((cells * len(ramp)).astype(int), len(ramp) - 1)]
    rows = ["".join(f" {''.join(digit[row])}" for digit in marks) for row in range(8)]
    rows.append("".join(f" {f'-> {guess}':^12}" for guess in guesses))
    return "\n".join(row.rstrip() for row in rows)


def comparison(labels: Sequence[int], predicted: Sequence[int]) -> str:
    """Set predictions below true digits, tens apart, 50 a line; a ^ below each that is wrong."""
    lines = []
    for first in range(0, len(labels), 50):
        some = slice(first, first + 50)
        pairs = list(zip(labels[some], predicted[some], strict=True))
        lines.append(f"  true {_tens(str(want) for want, _ in pairs)}")
        lines.append(f"  RTL  {_tens(str(got) for _, got in pairs)}")
        marks = _tens(" " if want == got else "^" for want, got in pairs)
        if marks.strip():
            lines.append(f"       {marks.rstrip()}")
    return "\n".join(lines)


def _tens(marks: Any) -> str:
    text = "".join(marks)
    return " ".join(text[at : at + 10] for at in range(0, len(text), 10))


def accuracy_row(name: str, predicted: NDArray[Any], labels: NDArray[Any]) -> tuple[str, str, str]:
    """Return a judge's name, how many digits it got right, and its accuracy."""
    right = int((predicted == labels).sum())
    return name, f"{right} of {len(labels)}", f"{right / len(labels):.2%}"


def table(*heads: str, numbers_from: int = 1) -> Table:
    """Return an empty table; columns from ``numbers_from`` on are flush right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, head in enumerate(heads):
        made.add_column(head, justify="right" if index >= numbers_from else "left")
    return made


def pass_words(program: api.Program) -> list[int]:
    """Return the configuration cycles (words, one a cycle) of each pass of a frame."""
    return [routes.config_words(group) for group in routes.passes(program.ir).values()]


# --- the demo -------------------------------------------------------------------------------------


class Demo:
    """The walk. ``say`` prints; ``failed`` turns true where golden and RTL differ."""

    def __init__(self, console: Console, grid: str, images: int, out: Path, bank: int) -> None:
        self.console, self.grid, self.images, self.out, self.bank = console, grid, images, out, bank
        self.say = console.print
        self.workers = max(1, min(4, (os.cpu_count() or 1) - 1))  # beside the filter bank
        config = load_grid(grid)
        self.clock = f"{config.clock_source} {config.clock_hz / 1e6:g} MHz"
        self.failed = False
        self.speed = 1.0  # simulated cycles a second, of the last run
        self.begin = time.monotonic()
        self.config_rows: list[tuple[str, ...]] = []
        out.mkdir(parents=True, exist_ok=True)

    def run(self) -> int:
        """Show everything; return the exit code."""
        program, data = self.golden()
        try:
            compilers.tools()
        except ToolError as error:
            self.say(f"\nGolden only, the RTL needs a compiler: {error}", soft_wrap=True)
            return 0
        self.head("The same on the RTL: the grid's Verilog under Verilator")
        build.simulator(program.grid)
        with ThreadPoolExecutor(1) as pool:
            # The filter bank is one long simulation: it runs beside all others.
            bank, photo = self.filter_bank_program()
            begun = time.monotonic()
            running = pool.submit(run_rtl, bank, photo, 1, lambda count: None)
            self.one_digit(program, data)
            self.lenet(data)
            self.head("The same simulator, not built again: other programs")
            for network in LENETS:
                self.other_lenet(network)
            self.filter_bank(bank, photo, running, begun)
        self.config_table()
        self.say(f"Pictures: {self.shown(self.out)}/digits.png, timeline.png, floorplan.png")
        self.say(f"Done in {time.monotonic() - self.begin:.0f} s.")
        return 1 if self.failed else 0

    def head(self, text: str) -> None:
        """Begin a section."""
        self.say(f"\n[bold]{text}[/bold]")

    @staticmethod
    def shown(path: Path) -> str:
        """Return a path as short as it can be named from here."""
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

    def golden(self) -> tuple[api.Program, digits.Digits]:
        """Compile LeNet-5 (b), classify the held-out digits under golden, and show it."""
        data = digits.load(LENET_B.size)
        program = compile_lenet(LENET_B, self.grid, data)
        grid = program.grid
        self.head(
            f"{LENET_B.title} on grid {grid.name}: {grid.columns} columns of {grid.rows} tiles, "
            f"{grid.macs} MACs a cycle"
        )
        begin = time.monotonic()
        predicted = program.golden(data.test_x).output.argmax(axis=1)
        took = time.monotonic() - begin
        self.say(sketch(data.test_x[:SHOWN], predicted[:SHOWN]), markup=False, highlight=False)
        exact = run_float(HERE / LENET_B.file, data.test_x).argmax(axis=1)
        found = table("judge", "right", "accuracy")
        found.add_row(*accuracy_row("float (onnxruntime)", exact, data.test_y))
        found.add_row(*accuracy_row("golden (16-bit integers)", predicted, data.test_y))
        self.say(found)
        self.say(f"{len(data.test_y)} held-out digits under golden in {took:.1f} s.")
        shown = slice(0, self.images)
        self.digits_picture(data, predicted[shown], "golden")
        label = next(iter(routes.passes(program.ir)))
        title = f"{LENET_B.title} on grid {grid.name}: routes of its first pass, {label}"
        save(floorplan_figure(program.ir, label, title), self.out / "floorplan.png")
        return program, data

    def digits_picture(self, data: digits.Digits, predicted: NDArray[Any], judge: str) -> None:
        """Write the picture of the digits with their predictions."""
        labels = data.test_y[: len(predicted)]
        right = int((predicted == labels).sum())
        title = f"{LENET_B.title} on grid {self.grid}, {judge}: {right} of {len(labels)} right"
        figure = digits_figure(data.test_x[: len(labels)], predicted, labels, title)
        save(figure, self.out / "digits.png")

    def check(self, name: str, equal: bool) -> str:
        """Note whether golden and RTL agree; return what to show of it."""
        if not equal:
            self.failed = True
            return f"[bold red]{name}: RTL words differ from golden's[/bold red]"
        return f"{name}: RTL words == golden words: [bold green]yes[/bold green], every one"

    def lenet(self, data: digits.Digits) -> None:
        """Classify digits with LeNet-5 (b) on the RTL, and compare with golden and float."""
        x, labels = data.test_x[: self.images], data.test_y[: self.images]
        program = compile_lenet(LENET_B, self.grid, data, min(BATCH, len(x)))
        with bar(self.console, f"{LENET_B.title} on the RTL", len(x)) as done:
            outcome = run_rtl(program, x, self.workers, done)
        golden = program.golden(x)
        guesses = outcome.words.reshape(len(x), -1).argmax(axis=1)
        self.say(comparison(labels.tolist(), guesses.tolist()), highlight=False)
        found = table("judge", "right", "accuracy")
        exact = run_float(HERE / LENET_B.file, x).argmax(axis=1)
        found.add_row(*accuracy_row("float (onnxruntime)", exact, labels))
        found.add_row(*accuracy_row("golden", golden.output.argmax(axis=1), labels))
        found.add_row(*accuracy_row("RTL", guesses, labels))
        self.say(found)
        equal = np.array_equal(outcome.words, only(golden.words))
        self.say(self.check(f"{outcome.words.size} scores", equal))
        self.figures(LENET_B.title, program, outcome)
        self.digits_picture(data, guesses, "RTL")

    def figures(self, title: str, program: api.Program, outcome: Outcome) -> None:
        """Say how fast it was, and note its configuration for the table."""
        grid = program.grid
        rate = grid.clock_hz / outcome.cycles_per_image
        batch = f" in batches of {program.ir.batch}" if program.ir.batch > 1 else ""
        self.speed = outcome.cycles / outcome.seconds
        self.say(
            f"  {outcome.cycles_per_image:,.0f} cycles a frame{batch}, MAC utilisation "
            f"{outcome.utilisation(grid.macs):.1%}, {rate:,.0f} frames/s\n"
            f"  at {self.clock}  [dim](simulated {outcome.cycles:,} cycles in "
            f"{outcome.seconds:.1f} s)[/dim]",
            highlight=False,
        )
        self.note_config(title, program, outcome.config)

    def note_config(self, title: str, program: api.Program, config: dict[str, int]) -> None:
        """Keep a row for the table of what configuring costs."""
        words = pass_words(program)
        micro = 1e6 / program.grid.clock_hz
        hidden = config["hidden_cycles"] / max(1, config["cycles"])
        self.config_rows.append((
            title, f"{len(words)}", f"{min(words)} to {max(words)}",
            f"{np.mean(words) * micro:.2f} us", f"{hidden:.0%}",
            f"{np.mean(words) * micro * (1 - hidden):.2f} us",
        ))  # fmt: skip

    def one_digit(self, program: api.Program, data: digits.Digits) -> None:
        """Run one digit alone, so that its passes can be seen, and draw what every unit did."""
        grid, words = program.grid, api.quantise_inputs(program.ir, data.test_x[:1])
        outputs, measured = rtl.simulate(program.ir, words)
        title = f"One digit through {LENET_B.title} on grid {grid.name}: {measured.cycles:,} cycles"
        figure = timeline_figure(measured, program.ir, 1, title)
        save(figure, self.out / "timeline.png")
        equal = np.array_equal(only(outputs), only(program.golden(data.test_x[:1]).words))
        self.say(self.check("one digit alone", equal))
        figures = stats.assemble(program.ir, 1, measured, judge="rtl")
        self.say(
            f"  {measured.cycles:,} cycles, MAC utilisation {figures['mac_utilisation']:.1%}, "
            f"{grid.clock_hz / measured.cycles:,.0f} frames/s at {self.clock}",
            highlight=False,
        )
        whole = sum(figures["stalls"].values())
        shares = sorted(((n / whole, cause) for cause, n in figures["stalls"].items()), reverse=True)
        self.say(
            "  multipliers x cycles went to: "
            + ", ".join(f"{cause.replace('_', ' ')} {share:.1%}" for share, cause in shares[:6]),
            highlight=False,
        )
        self.note_config("one digit (b)", program, figures["config"])

    # Other models.

    def other_lenet(self, network: Network) -> None:
        """Classify a few digits with another LeNet."""
        data = digits.load(network.size)
        x, labels = data.test_x[:OTHERS], data.test_y[:OTHERS]
        program = compile_lenet(network, self.grid, data, min(BATCH, len(x)))
        with bar(self.console, f"{network.title} on the RTL", len(x)) as done:
            outcome = run_rtl(program, x, self.workers, done)
        golden = program.golden(x)
        guesses = outcome.words.reshape(len(x), -1).argmax(axis=1)
        text = f"{network.title}, {len(x)} digits, {int((guesses == labels).sum())} right"
        self.say(self.check(text, np.array_equal(outcome.words, only(golden.words))))
        self.figures(network.title, program, outcome)

    def filter_bank_program(self) -> tuple[api.Program, Images]:
        """Build and compile the filter bank; return it with its photograph."""
        model = self.out / "filter_bank.onnx"
        onnx.save(filter_bank.filter_bank(self.bank, self.bank), model)
        other = filter_bank.photo(self.bank, self.bank, "flower.jpg")
        program = api.compile(model, self.grid, calib=other)
        return program, filter_bank.photo(self.bank, self.bank)

    def filter_bank(
        self, program: api.Program, x: Images, running: Future[Outcome], begun: float
    ) -> None:
        """Wait for the filter bank and show it."""
        golden = program.golden(x)
        title = "filter bank"
        # No schedule is faster than its roofline, and the simulator is as fast as it was before.
        expected = golden.stats["layer_roofline_cycles"] / self.speed
        left = max(1.0, expected - (time.monotonic() - begun))
        outcome = wait(self.console, f"{title} on the RTL, seconds", running, left)
        self.say(self.check(title, np.array_equal(outcome.words, only(golden.words))))
        error = np.abs(golden.output - run_float(self.out / "filter_bank.onnx", x)).max()
        self.say(
            f"  photo {self.bank}x{self.bank}, 16 kernels 10x10; largest error to float {error:.4f}"
        )
        self.figures(title, program, outcome)

    def config_table(self) -> None:
        """Show what configuring costs, against the original machine."""
        self.head("Configuring the grid while it runs")
        found = table("model", "passes", "cycles a pass", "mean time", "hidden", "rest")
        for row in self.config_rows:
            found.add_row(*row)
        found.add_row(
            "the original", "", "", f"{ORIGINAL_US:.2f} us", "0%", f"{ORIGINAL_US:.2f} us"
        )
        self.say(found)
        self.say(
            "Hidden: words sent in a cycle in which some array multiplied, as the grid counts "
            f"them. Times are the mean of a pass at {self.clock}."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and show the demo; return the exit code."""
    parser = argparse.ArgumentParser(description="Handwritten digits on the simulated grid.")
    parser.add_argument("--grid", default="virtex6", help="preset or TOML file")
    parser.add_argument("--images", type=int, default=IMAGES, help="digits for the RTL")
    parser.add_argument("--bank", type=int, default=500, help="side of the filter bank's image")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures")
    options = parser.parse_args(arguments)
    console = Console()
    console = Console(width=min(console.width, WIDEST))
    try:
        return Demo(console, options.grid, options.images, options.out, options.bank).run()
    except NeuflowError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
