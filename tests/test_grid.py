"""Grids from files: what cannot be built is refused in one line, before anything is made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from neuflow import cli, grid
from neuflow.errors import ConfigError
from neuflow.grid import MEMORY_RANGES, PRESETS, TINY, VIRTEX6, MemoryConfig


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_changes_a_preset(tmp_path):
    made = grid.load(written(tmp_path, 'base = "tiny"\ncolumns = 3\n[memory]\nread_latency = 7\n'))
    memory = dataclasses.replace(TINY.memory, read_latency=7)
    assert made == dataclasses.replace(TINY, name="mine", columns=3, memory=memory)
    assert made.hash() != TINY.hash()


def test_every_preset_can_be_written_as_a_file(tmp_path):
    for preset in PRESETS.values():
        values = dataclasses.asdict(preset)
        memory = values.pop("memory")
        lines = [f"{key} = {value!r}" for key, value in values.items()]
        lines += ["[memory]", *(f"{key} = {str(value).lower()}" for key, value in memory.items())]
        assert grid.load(written(tmp_path, "\n".join(lines))) == preset


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("speed = 3", "grid: unknown key 'speed'; known are name, columns"),
        ('base = "tiny"\n[memory]\nspeed = 3', "memory: unknown key 'speed'"),
        ('base = "huge"', "base 'huge' is not a preset"),
        ('base = ["tiny"]', "is not a preset"),
        ("columns = ", "not valid TOML"),
        ("columns = 0", "columns must be 1 to 8"),
        ("columns = 9", "columns must be 1 to 8"),
        ('columns = "4"', "columns must be int, not '4'"),
        ("columns = true", "columns must be int"),
        ("columns = 2.5", "columns must be int"),
        ("maps = 3", "maps must be a power of 2"),
        ("pixels = 64", "pixels must be below 64"),
        ("row_words = -32", "row_words must be"),
        ("row_words = 2097152", "row_words must be below"),
        ("window_words = 1000000000", "window_words must be at most"),
        ("burst_beats = 512\ndma_beats = 1024\nrows_beats = 1024\nmaps = 1\nbus_words = 2",
         "burst_beats must be at most 256"),
        ('name = ""', "name must be one line of text"),
        ('name = "a\\nb"', "name must be one line of text"),
        ("fifo_words = 1000000000", "fifo_words must be at most"),
        ("word_bits = 8", "word_bits must be 16"),
        ("memory = 3", "memory must be a table"),
        ("[memory]\ntokens = -4", "tokens must be 1 to"),
        ("[memory]\ntokens = 5\ntokens_per_beat = 4", "tokens must be at most tokens_per_beat"),
        ("[memory]\nread_latency = 0", "read_latency must be 1 to"),
        ("[memory]\noutstanding = 0", "outstanding must be 1 to"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused(text, says, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["verilog", "--grid", written(tmp_path, text), "-o", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and says in lines[0] and "mine.toml" in lines[0] and not out.exists()


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        grid.load(str(tmp_path / "mine.toml"))


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "mine.toml").write_text("columns = 1")
    monkeypatch.setattr(type(tmp_path), "read_text", refuse)
    with pytest.raises(ConfigError, match=r"cannot be read: Permission denied; name another file"):
        grid.load(str(tmp_path / "mine.toml"))


def test_the_ends_of_the_memory_model_s_ranges_are_within():
    for name, ends in MEMORY_RANGES.items():
        for value in ends:
            tokens = {"tokens_per_beat": max(value, 20)} if name == "tokens" else {}
            MemoryConfig(**{"tokens": 1, name: value} | tokens)


def test_a_grid_works_by_tap_if_its_banks_hold_the_words_of_all_lanes():
    assert {preset.tap_lanes for preset in PRESETS.values()} == {2, 4, 8}
    assert VIRTEX6.tap_gap == 3 and TINY.tap_gap == 1
    assert dataclasses.replace(TINY, pixels=7).tap_gap == 0
    assert dataclasses.replace(TINY, row_banks=8, pixels=7).tap_lanes == 2
    assert dataclasses.replace(TINY, row_banks=8, pixels=8).tap_lanes == 1
    assert dataclasses.replace(TINY, row_words=1 << 17).tap_lanes == 1
    assert dataclasses.replace(TINY, maps=1, bus_words=2).tap_lanes == 1


def test_last_taps_are_gathered_where_one_reading_serves_two_steps():
    gather = {preset.name for preset in PRESETS.values() if preset.tap_gather}
    assert gather == {"virtex6", "asic45", "cnp", "fig2", "tiny"}
    assert not dataclasses.replace(TINY, pixels=6).tap_gather
    assert not dataclasses.replace(TINY, maps=1, bus_words=2).tap_gather
