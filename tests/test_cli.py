"""The command line: every bad input is one line on stderr, exit code 2, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from programs import program

import neuflow
from neuflow import api, cli, cli_files, cli_wait, files, verilog
from neuflow.errors import InputError, ToolError
from neuflow.grid import PRESETS, TINY
from neuflow.run import build, host, measure

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "lenet5_b.onnx"


def refused(capsys, *arguments: object) -> str:
    """Run the command, which must fail as a user's error; return its one line."""
    assert cli.main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines[-1].startswith("neuflow: ") and "Traceback" not in captured.err
    assert len([line for line in lines if line.startswith("neuflow: ")]) == 1
    return lines[-1]


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float32, np.float16, np.int8, np.uint8, np.int64, np.uint64, np.bool_]
)
def test_any_real_or_integer_dtype_is_taken(dtype):
    x = np.ones((2, 3, 4, 5), dtype)
    words = api.quantise_inputs(program(), x)["x"]
    assert words.shape == (2, 3, 4, 5) and (words == 256).all()


def test_values_beyond_the_range_saturate():
    x = np.array([1e9, -np.inf, 127.999, -128.0, 0.00195]).repeat(12).reshape(1, 3, 4, 5)
    words = api.quantise_inputs(program(), x)["x"]
    assert set(words.flat) == {32767, -32768, 0}
    assert (words.flat[:12] == 32767).all() and (words.flat[12:24] == -32768).all()


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros((1, 3, 4, 6)), "shape (1, 3, 4, 6); the model takes (N, 3, 4, 5)"),
        (np.zeros((3, 4, 5)), "the model takes (N, 3, 4, 5)"),
        (np.zeros((0, 3, 4, 5)), "empty"),
        (np.float64(3), "empty"),
        (np.zeros((1, 3, 4, 5), complex), "complex"),
        (np.array([["a"]]), "dtype"),
        (np.array([[None]], object), "object"),
        (np.full((1, 3, 4, 5), np.nan), "NaN"),
        ({"z": np.zeros((1, 3, 4, 5))}, "the model takes: x"),
    ],
)
def test_bad_inputs_are_refused_with_cause(x, says):
    with pytest.raises(InputError) as caught:
        api.quantise_inputs(program(), x)
    assert says in str(caught.value)


def test_outputs_are_words_times_the_step_in_float32():
    words = np.arange(-30, 30).reshape(1, 3, 4, 5)
    reals = host.dequantise_outputs(program().graph, {"y": words})["y"]
    assert reals.dtype == np.float32
    assert (reals == words * 2.0**-8).all()


def test_memory_options_change_the_grid_s_model():
    memory = api.with_memory(TINY, "latency=100,words_per_cycle=3.4,shared=0")
    assert memory.read_latency == 100 and memory.shared is False
    assert (memory.tokens, memory.tokens_per_beat) == (17, 20)
    assert memory.write_latency == TINY.memory.write_latency
    assert api.with_memory(TINY, "") == TINY.memory


@pytest.mark.parametrize(
    "text", ["latency", "latency=x", "latency=0", "latency=1.5", "write_latency=100001",
             "words_per_cycle=5", "words_per_cycle=0", "speed=3", "shared=2", "outstanding=-1"],
)  # fmt: skip
def test_bad_memory_options_are_refused(text):
    with pytest.raises(InputError, match="--memory"):
        api.with_memory(TINY, text)


# --- files ----------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out.txt"
    files.write_text(target, "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise InputError("broken")

    with pytest.raises(InputError):
        files.write_atomic(target, fail)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


# --- commands -------------------------------------------------------------------------------------


def test_grids_lists_every_preset(capsys):
    assert cli.main(["grids"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(PRESETS)
    column = lines[0].index("bus words")
    assert all(re.match(r"\S.* \d", line[:column] + line[column]) for line in lines[1:])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["compile"],
        ["compile", "missing.onnx", "-o", "p.nfp"],
        ["compile", MODEL, "-o", "p.txt"],
        ["compile", MODEL, "-o", "nowhere/p.nfp"],
        ["compile", MODEL, "-o", "p.nfp", "--bits", "12"],
        ["compile", MODEL, "-o", "p.nfp", "--batch", "0"],
        ["compile", MODEL, "-o", "p.nfp", "--batch", "many"],
        ["compile", MODEL, "-o", "p.nfp", "--grid", "huge"],
        ["run", "missing.nfp", "--input", "x.npy", "--output", "y.npy"],
        ["run", "missing.nfp", "--input", "x.npy", "--output", "y.txt"],
        ["run", "missing.nfp", "--input", "x.npy", "--output", "y.npy", "--waves", "w.fst"],
        ["run", "missing.nfp", "--input", "x.npy", "--output", "y.npy", "--seed", "-1"],
        ["inspect", "missing.nfp"],
        ["verilog", "--grid", "missing.toml", "-o", "out"],
        ["report", "missing.nfp", "-o", "out"],
        ["compile", MODEL, "-o", ""],
        ["compile", "", "-o", "p.nfp"],
        ["compile", MODEL, "-o", "p.nfp", "--calib", ""],
        ["inspect", ""],
        ["verilog", "--grid", "tiny", "-o", ""],
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(capsys, *arguments)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_damaged_program_is_refused(capsys, tmp_path):
    path = tmp_path / "bad.nfp"
    path.write_bytes(b"not a program at all" * 9)
    assert "bad.nfp" in refused(capsys, "inspect", path)


def write_text(path: Path) -> None:
    path.write_text("no array")


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def write_objects(path: Path) -> None:
    np.save(path, np.array([{}], object))


@pytest.mark.parametrize(
    ("write", "says"),
    [(write_text, "no NumPy file"), (write_nothing, "damaged"), (write_objects, "Python objects")],
)
def test_files_that_hold_no_numbers_are_refused(write, says, tmp_path):
    path = tmp_path / "x.npy"
    write(path)
    with pytest.raises(InputError, match=says):
        cli_files.read_arrays(str(path))


def test_wherever_a_file_of_arrays_is_damaged_it_is_refused_or_read(tmp_path):
    """Damage surfaces as errors of zip, zlib, NumPy and Python's tokeniser."""
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.arange(40) / 7)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(InputError):
            cli_files.read_arrays(str(path))


def test_an_array_larger_than_memory_is_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((2, 1, 32, 32)))
    path.write_bytes(path.read_bytes().replace(b"(2, 1, 32, 32), ", b"(999999999999,),"))
    with pytest.raises(InputError, match="give fewer images"):
        cli_files.read_arrays(str(path))


def cannot_write(*args: object, **kwargs: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_directory_that_cannot_be_written_to_is_refused_before_the_work(
    compiled, capsys, tmp_path, monkeypatch
):
    np.save(tmp_path / "x.npy", np.zeros((1, *image_shape(compiled))))
    monkeypatch.setattr(files.tempfile, "TemporaryFile", cannot_write)
    monkeypatch.setattr(api.Program, "golden", None)  # would be an error of another kind
    run = ("run", compiled, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert "cannot be written to; name another one" in refused(capsys, *run)
    assert "name another directory" in refused(capsys, "verilog", "-o", tmp_path)


def test_a_file_that_could_not_be_written_goes_by_its_own_name(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_fill", cannot_write)
    with pytest.raises(InputError, match=f"^{tmp_path}/p.nfp: cannot be written: Permission denied"):
        api.Program(program()).save(tmp_path / "p.nfp")


def test_arrays_of_any_name_are_written_as_numpy_does(tmp_path):
    arrays = {"file": np.arange(3), "a/b c": np.zeros((2, 0)), "self": np.float32(1)}
    for name in ("one.npz", "two.npz"):
        cli_files.write_arrays(str(tmp_path / name), arrays)
    with np.load(tmp_path / "one.npz", allow_pickle=False) as read:
        assert set(read.files) == set(arrays)
        for name, array in arrays.items():
            assert np.array_equal(read[name], array) and read[name].dtype == array.dtype
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_of_several_files_all_are_written_or_none(tmp_path, monkeypatch):
    written = []

    def fill(path: Path, data: bytes) -> None:
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(path.write_bytes(data))

    (tmp_path / "files.f").write_text("old")
    monkeypatch.setattr(files, "_fill", fill)
    with pytest.raises(InputError, match="No space left on device"):
        verilog.write(TINY, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"] and len(written) == 3


def test_a_file_that_is_no_text_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(verilog, "generate", lambda grid: {"files.f": "new", "same.v": "as it was"})
    (tmp_path / "files.f").write_bytes(b"\xff")
    (tmp_path / "same.v").write_text("as it was")
    before = (tmp_path / "same.v").stat().st_ino
    verilog.write(TINY, tmp_path)
    assert (tmp_path / "files.f").read_text() == "new" and (tmp_path / "same.v").stat().st_ino == before


def test_a_disk_that_fills_up_is_one_line(capsys, monkeypatch):
    def fill(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli, "_grids", fill)
    assert "No space left on device (the output, or the cache); make room" in refused(capsys, "grids")
    monkeypatch.setattr(cli, "_grids", cannot_write)
    with pytest.raises(PermissionError):  # the rest of our own are bugs
        cli.main(["grids"])


def test_a_machine_of_too_little_memory_is_one_line(capsys, monkeypatch):
    def fill(*args: object) -> None:
        raise MemoryError("Unable to allocate 1.75 TiB for an array")

    monkeypatch.setattr(cli, "_grids", fill)
    assert "Unable to allocate 1.75 TiB for an array; give fewer images" in refused(capsys, "grids")


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "{}.nfp"],
        ["compile", "{}.onnx", "-o", "p.nfp"],
        ["compile", MODEL, "-o", "{}.nfp"],
        ["compile", MODEL, "-o", "p.nfp", "--grid", "{}"],
        ["run", "p.nfp", "--input", "x.npy", "--output", "{}.npy"],
        ["verilog", "--grid", "tiny", "-o", "{}"],
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(arguments, capsys, tmp_path, monkeypatch):
    """As it is with directories that may not be entered: to look whether a file is there fails."""
    monkeypatch.chdir(tmp_path)
    name = "a" * 300
    says = refused(capsys, *[str(argument).format(name) for argument in arguments])
    assert f"{name}" in says and "File name too long; name another" in says
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("NEUFLOW_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(build.Path, "home", homeless)
    with pytest.raises(ToolError, match="this user has no home; set NEUFLOW_CACHE"):
        build.cache_directory()


def test_names_that_stdout_has_no_letters_for_are_escaped(tmp_path):
    verilog = ["verilog", "--grid", "tiny", "-o", str(tmp_path / "gr\u00f6\u00dfe")]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "neuflow", *verilog]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=ascii_only)
    assert (done.returncode, done.stderr) == (0, b"") and rb"gr\xf6\xdfe/files.f" in done.stdout


def test_a_closed_stdout_is_nobody_s_error():
    code = "import sys; from neuflow import cli; sys.stdout = None; sys.exit(cli.main(['grids']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_cache_that_nothing_can_be_kept_in_is_refused(compiled, capsys, tmp_path, monkeypatch):
    """numba would keep what it compiles beside the sources, and not see when others of them change."""
    from neuflow.cycle import compiled as judge

    monkeypatch.setenv("NEUFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(files, "can_write", lambda directory: directory != tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((1, *image_shape(compiled))))
    (tmp_path / "out").mkdir()
    run = ("run", compiled, "--input", tmp_path / "x.npy", "--output", tmp_path / "out" / "y.npy")
    assert f"cache directory {tmp_path}: cannot be" in refused(capsys, *run, "--on", "rtl")
    with pytest.raises(ToolError, match="set NEUFLOW_CACHE"):
        judge.kernel(cannot_write)


def test_what_a_cache_holds_is_used_though_nothing_can_be_kept_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(files, "can_write", lambda directory: False)
    (tmp_path / "there").mkdir()
    assert build.cached("there", "a thing", cannot_write) == tmp_path / "there"


def test_import_is_quick_and_light():
    heavy = ("numpy", "onnx", "amaranth")
    code = f"import sys, neuflow; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
    assert set(neuflow.__all__) <= set(dir(neuflow)) | set(neuflow._HOME)


# --- the whole way --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "lenet.nfp"
    assert cli.main(["compile", str(MODEL), "-o", str(path), "--grid", "tiny"]) == 0
    return path


def image_shape(path: Path) -> tuple[int, ...]:
    return host.own_shape(api.load(path).ir.inputs[0].tensor)


def test_without_calibration_one_line_warns(capsys, tmp_path):
    assert cli.main(["compile", str(MODEL), "-o", str(tmp_path / "p.nfp"), "--grid", "tiny"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len([line for line in captured.err.splitlines() if "--calib" in line]) == 1


def test_run_on_golden_writes_reals_words_and_statistics(compiled, tmp_path):
    shape = image_shape(compiled)
    x = np.random.default_rng(1).normal(size=(3, *shape))
    np.save(tmp_path / "x.npy", x)
    run = ["run", str(compiled), "--input", str(tmp_path / "x.npy"), "--output"]
    assert cli.main([*run, str(tmp_path / "y.npy"), "--json", str(tmp_path / "s.json")]) == 0
    assert cli.main([*run, str(tmp_path / "raw.npy"), "--raw"]) == 0
    y, raw = np.load(tmp_path / "y.npy"), np.load(tmp_path / "raw.npy")
    assert y.dtype == np.float32 and raw.dtype == np.int16 and len(y) == len(raw) == 3
    loaded = api.load(compiled)
    result = loaded.golden(x)
    assert (result.output == y).all()
    assert (next(iter(result.words.values())).reshape(raw.shape) == raw).all()


def power_model(path: Path, exponent: float, low: float) -> None:
    """Write Clip from ``low`` on and Pow, on 1 x 6 x 6."""
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 1, 6, 6]) for n in "xy"]
    values = {"low": low, "exponent": exponent}
    constants = [onnx.numpy_helper.from_array(np.float32(v), name) for name, v in values.items()]
    nodes = [
        onnx.helper.make_node("Clip", ["x", "low"], ["clipped"]),
        onnx.helper.make_node("Pow", ["clipped", "exponent"], ["y"], name="root"),
    ]
    graph = onnx.helper.make_graph(nodes, "power", ends[:1], ends[1:], constants)
    opset = onnx.helper.make_opsetid("", 15)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


@pytest.mark.parametrize(("low", "says"), [(0.1, None), (0.001, "node 'root': 8 segments follow")])
def test_a_curve_too_steep_for_a_table_is_named(low, says, capsys, tmp_path):
    """x ** -0.5 from 0.001 on lost all but 19 dB without a word when it was compiled."""
    model, inputs, made = tmp_path / "m.onnx", tmp_path / "x.npy", tmp_path / "m.nfp"
    power_model(model, -0.5, low)
    np.save(inputs, np.random.default_rng(0).uniform(low, 4, (8, 1, 6, 6)))
    assert cli.main(["compile", str(model), "-o", str(made), "--calib", str(inputs)]) == 0
    err = capsys.readouterr().err
    assert (says in err) if says else "segments" not in err
    assert cli.main(["accuracy", str(model), str(made), "--input", str(inputs)]) == 0
    measured = float(re.search(r"y: (-?[\d.]+) dB against", capsys.readouterr().out)[1])
    assert (measured < api.FINE[16]) == bool(says)


def test_inputs_that_saturate_are_named_with_what_words_reach(compiled, capsys, tmp_path):
    """Pixels of 0 to 255 where the program was calibrated with 0 to 1 gave noise without a word."""
    port = api.load(compiled).ir.inputs[0]
    form = host.form(port.tensor)
    x = np.zeros((2, *image_shape(compiled)))
    x[0, 0, 0, :3] = [form.high * form.step, form.low * form.step, (form.high + 0.49) * form.step]
    np.save(tmp_path / "x.npy", x)
    run = ["run", str(compiled), "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "y.npy")]
    assert cli.main(run) == 0 and "values are beyond" not in capsys.readouterr().err
    x[1] = 255
    np.save(tmp_path / "x.npy", x)
    says = f"50 % of its values are beyond {form.low * form.step:.4g} to {form.high * form.step:.4g} and"
    accuracy = ["accuracy", str(MODEL), str(compiled), "--input", str(tmp_path / "x.npy")]
    for command in (run, accuracy):
        assert cli.main(command) == 0
        assert f"input {port.tensor.name!r}: {says} saturate; compile with" in capsys.readouterr().err


def test_wrong_shape_is_refused_before_anything_is_written(compiled, capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 2, 3)))
    out = tmp_path / "y.npy"
    said = refused(capsys, "run", compiled, "--input", tmp_path / "x.npy", "--output", out)
    assert "(1, 2, 3)" in said and not out.exists()


def test_an_empty_name_stands_for_nothing(compiled, capsys, tmp_path, monkeypatch):
    """It is what an unset shell variable gives, and was the directory one stands in, or no option."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((1, *image_shape(compiled))))
    for arguments in (
        ("report", compiled, "--input", "", "-o", "r"),
        ("report", compiled, "-o", ""),
        ("run", compiled, "--input", "x.npy", "--output", "y.npy", "--json", ""),
        ("compare", compiled, "--input", "x.npy", "-o", ""),
    ):
        assert "a name is empty" in refused(capsys, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_an_output_in_place_of_the_input_is_refused(compiled, capsys, tmp_path):
    x = np.zeros((1, *image_shape(compiled)))
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "y.npy").symlink_to(tmp_path / "x.npy")
    for target in ("x.npy", "y.npy"):
        run = ("run", compiled, "--input", tmp_path / "x.npy", "--output", tmp_path / target)
        assert "is read as well, and would be lost" in refused(capsys, *run)
    assert (np.load(tmp_path / "x.npy") == x).all()


def test_a_directory_made_for_a_run_that_failed_is_taken_back(compiled, capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.full((1, *image_shape(compiled)), np.nan))
    for verb in ("report", "compare"):
        out = tmp_path / "new" / verb
        said = refused(capsys, verb, compiled, "--input", tmp_path / "x.npy", "-o", out)
        assert "NaN" in said and not (tmp_path / "new").exists()


@pytest.mark.parametrize("seed", [measure.SEEDS, 10**30])
def test_a_seed_beyond_the_judges_generators_is_refused(compiled, capsys, tmp_path, seed):
    """Beyond 64 bits they did not agree: the harness took the largest, or that without stalls."""
    np.save(tmp_path / "x.npy", np.zeros((1, *image_shape(compiled))))
    out = tmp_path / "y.npy"
    run = ("run", compiled, "--input", tmp_path / "x.npy", "--output", out, "--seed", seed)
    for judge in ("cycle", "rtl"):
        assert f"seed {seed}: give a number" in refused(capsys, *run, "--on", judge)
    assert not out.exists()
    with pytest.raises(InputError, match="seed -1"):
        api.load(compiled).cycles(1, seed=-1)


def test_a_command_that_is_terminated_ends_as_one_that_is_interrupted():
    """Else a simulator would go on without it, and files half-written would stay."""
    code = (
        "import os, signal, sys, time; from neuflow import cli; sys.argv = ['neuflow', 'grids'];"
        "cli._grids = lambda options: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(60));"
        "sys.exit(cli.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "neuflow: interrupted\n")


def test_an_interruption_while_gates_are_made_is_one_line():
    """Amaranth warns of each part that nothing has used; they all go unused."""
    code = (
        "import os, signal, sys, time; from amaranth.hdl import Fragment, Module;"
        "from neuflow import cli; from neuflow.blocks.top import Top; from neuflow.grid import TINY;"
        "sys.argv = ['neuflow', 'grids']; Fragment.get(Module(), None);"  # from now on it warns
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a background job ignores it
        "cli._grids = lambda options: (Top(TINY), os.kill(os.getpid(), signal.SIGINT), time.sleep(60));"
        "sys.exit(cli.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "neuflow: interrupted\n")


@pytest.mark.parametrize(("batch", "why"), [(1, ""), (5000, " 5000 images of a pass")])
def test_a_compilation_that_lasts_says_so_now_and_then(batch, why, capsys, tmp_path, monkeypatch):
    """At first after a while, then each time that it has lasted twice as long."""

    def slow(*arguments, **options):
        time.sleep(1.5)
        raise InputError("in the end, refused")

    monkeypatch.setattr(cli_wait, "PATIENCE", 0.1)
    monkeypatch.setattr(api, "compile", slow)
    target = tmp_path / "p.nfp"
    assert cli.main(["compile", str(MODEL), "-o", str(target), "--batch", str(batch)]) == 2
    *lines, last = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4
    assert all(line.startswith(f"{target}: still compiling{why}") for line in lines)
    assert lines[-1].endswith(" s)") and last == "neuflow: in the end, refused"


def test_a_run_that_lasts_says_so_now_and_then(compiled, capsys, monkeypatch):
    monkeypatch.setattr(cli_wait, "PATIENCE", 0.1)
    monkeypatch.setattr(api.Program, "cycles", lambda *arguments: time.sleep(0.5) or {})
    with pytest.raises(KeyError):
        cli.main(["run", str(compiled), "--on", "cycle", "--no-values"])
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(": still running on cycle" in line for line in lines)


def test_a_model_that_is_refused_gets_no_other_line(capsys, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    assert cli.main(["compile", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "p.nfp")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_a_compiler_the_gates_are_refused(compiled, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    np.save(tmp_path / "x.npy", np.zeros((1, *image_shape(compiled))))
    out = tmp_path / "y.npy"
    command = ("run", compiled, "--input", tmp_path / "x.npy", "--output", out, "--on", "rtl")
    assert "no C++ compiler found" in refused(capsys, *command) and not out.exists()


@pytest.mark.parametrize("stage", cli.STAGES)
def test_inspect_prints_each_stage(compiled, stage, capsys):
    assert cli.main(["inspect", str(compiled), "--stage", stage]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 5


def test_the_api_compiles_saves_and_runs(tmp_path):
    made = neuflow.compile(MODEL, grid="tiny")
    made.save(tmp_path / "p.nfp")
    again = neuflow.load(tmp_path / "p.nfp")
    x = np.random.default_rng(2).normal(size=(1, *image_shape(tmp_path / "p.nfp")))
    assert (again.golden(x).output == made.golden(x).output).all()


def test_compiling_twice_gives_the_same_file(compiled, tmp_path):
    again = tmp_path / "again.nfp"
    assert cli.main(["compile", str(MODEL), "-o", str(again), "--grid", "tiny"]) == 0
    assert again.read_bytes() == compiled.read_bytes()
