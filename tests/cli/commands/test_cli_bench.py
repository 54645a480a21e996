"""Tests `metal-gen bench` as a process: formats, refusals, and the partial report of a stopped run."""

import csv
import io
import json
import re
import signal
from pathlib import Path

import pytest
from cli_process import run_cli, run_in_terminal, start_cli

from metal_gen.bench.measurement import MLX_LM, Measurement, Unit
from metal_gen.bench.report import BenchReport
from metal_gen.cli.bench.formats import format_value, to_csv, to_markdown
from metal_gen.cli.bench.table import to_plain_table
from metal_gen.cli.input.setting_options import given_arguments

pytest_plugins = ("fixtures_text",)

USAGE, CONFIGURATION, NOT_FOUND, DOES_NOT_FIT, INTERRUPTED, TERMINATED = 2, 3, 4, 6, 130, 143
SHORT = ("--repeats", "2", "--decode-tokens", "4", "--depths", "0,16", "--max-seq-len", "64")
ONLY_FAST = ("--only", "memory,decode,graph")


@pytest.fixture(scope="module")
def report():
    """Return a report with a comparison, stopped early, of a model with an awkward name."""
    environment = {
        "metal_gen": "1.0",
        "commit": "0123456789abcdef-dirty",
        "mlx": "0.1",
        "mlx_lm": "0.2",
        "python": "3",
        "os": "an OS",
        "device": "a machine",
        "cpu_count": 2,
        "blas": None,
    }
    setup = {
        "model": "a|b\x1b[31m",
        "num_parameters": 1000,
        "dtype": "float32",
        "cache_dtype": "float32",
        "max_seq_len": 64,
        "warmup": 1,
        "decode_tokens": 4,
        "compare": MLX_LM,
    }
    where = {"depth": 16}
    tps = Unit.TOKENS_PER_SECOND
    figures = [
        Measurement("decode", "decode_tps", tps, "metal-gen", where, 200.0, [50.0, 60.0, 40.0]),
        Measurement("decode", "decode_tps", tps, MLX_LM, where, 200.0, [25.0, 20.0, 20.0]),
        Measurement("memory", "planned_bytes", Unit.BYTES, values=[3 * 2**20]),
    ]
    return BenchReport(environment, setup, figures, ["a note"])


# Formats


def test_json_from_a_real_run_holds_everything(gambler, tmp_path):
    arguments = ("bench", "--model", gambler, *SHORT, "--format", "json")
    outcome = run_cli(*arguments, home=tmp_path)
    assert outcome.code == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert (document["schema_version"], document["complete"]) == (1, True)
    assert document["setup"]["depths"] == [0, 16]
    assert document["environment"]["mlx"]
    sections = list(dict.fromkeys(entry["section"] for entry in document["measurements"]))
    assert sections == [
        *("ceiling", "cold-start", "load", "memory", "prefill", "decode", "capacity", "uncached"),
        *("parts", "step", "graph", "constraint"),
    ]
    for entry in document["measurements"]:
        assert entry["minimum"] <= entry["median"] <= entry["maximum"]
        assert entry["n"] == len(entry["values"]) in (1, 2)
        if entry["name"] == "decode_tps":
            assert entry["ceiling_share"] == entry["median"] / entry["ceiling"]
    assert all(line.startswith("metal-gen: ") for line in outcome.stderr.splitlines())


def test_the_settings_in_force_are_used_whatever_they_come_from(gambler, tmp_path):
    (tmp_path / "bench.toml").write_text('[cache]\nmax_seq_len = 48\n[model]\ndtype = "bfloat16"\n')
    outcome = run_cli(
        *("bench", "--config", "bench.toml", "--chunk-size", "8", "--top-k", "3", "--repeats", "1"),
        *("--only", "cold-start,memory", "--format", "json"),
        home=tmp_path,
        METAL_GEN_MODEL=gambler,
    )
    assert outcome.code == 0, outcome.stderr
    setup = json.loads(outcome.stdout)["setup"]
    assert (setup["max_seq_len"], setup["dtype"], setup["chunk_size"]) == (48, "bfloat16", 8)
    assert "top-k 3" in setup["sampling"]


def test_csv_is_one_row_per_figure_and_program(report):
    ours, theirs, planned = csv.DictReader(io.StringIO(to_csv(report)))
    assert (ours["program"], ours["depth"], ours["median"], ours["n"]) == ("metal-gen", "16", "50.0", "3")
    assert (ours["ceiling_share"], ours["ratio"], ours["complete"]) == ("0.25", "2.5", "false")
    assert (theirs["program"], theirs["ratio"]) == (MLX_LM, "")
    assert (planned["name"], planned["capacity"]) == ("planned_bytes", "")


def test_markdown_has_rows_of_equal_length_and_escapes_bars(report):
    text = to_markdown(report)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") - line.count("\\|") for line in rows} == {10}
    assert "| decode_tps | depth 16 | 50 | 40 | 60 | 3 | 25 % | 20 | 2.50 |" in rows
    assert "a\\|b" in text
    assert "INCOMPLETE" in text


def test_a_plain_table_fits_80_columns_and_says_that_it_is_incomplete(report):
    text = to_plain_table(report)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "decode, depth 16" in text.splitlines()
    assert text.splitlines()[-1].startswith("INCOMPLETE")
    assert "commit 0123456789ab-dirty" in text


def test_a_table_says_where_each_figure_was_taken():
    def figure(section, name, **where):
        return Measurement(section, name, Unit.COUNT, parameters=where, values=[7.0])

    figures = [
        figure("a", "x"),
        figure("a", "y", depth=3),
        figure("b", "x", depth=3),
        figure("b", "y", depth=3),
    ]
    figures += [figure("c", "x", depth=1), figure("c", "x", depth=2)]
    shown = [line.split() for line in table_lines(figures)]
    assert shown == [
        ["a"],
        ["x", "7", "1"],
        ["y"],
        ["depth", "3", "7", "1"],
        ["b,", "depth", "3"],
        ["x", "7", "1"],
        ["y", "7", "1"],
        ["c"],
        ["x"],
        ["depth", "1", "7", "1"],
        ["depth", "2", "7", "1"],
    ]


def table_lines(figures):
    """Return the lines of a table below its head."""
    environment = dict.fromkeys(("metal_gen", "mlx", "python", "os", "device", "cpu_count"), "")
    setup = dict.fromkeys(("model", "dtype", "cache_dtype", "warmup", "decode_tokens"), "")
    setup |= {"num_parameters": 1, "max_seq_len": 1}
    report = BenchReport(environment, setup, figures, complete=True)
    lines = to_plain_table(report).splitlines()
    return lines[next(place for place, line in enumerate(lines) if "median" in line) + 1 :]


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_of_any_width_shows_every_figure(gambler, tmp_path, columns):
    arguments = ("bench", "--model", gambler, *SHORT, *ONLY_FAST, "-q")
    outcome = run_in_terminal(*arguments, home=tmp_path, attached=("stdout",), columns=columns, NO_COLOR="1")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", outcome.screen.decode()).splitlines()
    assert outcome.code == 0
    assert max(map(len, lines)) <= columns
    for name in ("decode, tok/s", "planned", "peak memory", "primitives"):
        assert any(name in line for line in lines), lines
    assert b"\x1b[3" not in outcome.screen, "color in spite of NO_COLOR"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1234.5, Unit.TOKENS_PER_SECOND, "1,234"),
        (123.45, Unit.TOKENS_PER_SECOND, "123.5"),
        (0.01234, Unit.SECONDS, "0.0123"),
        (0.0123, Unit.SHARE, "1.2 %"),
        (0.0996, Unit.SHARE, "10 %"),
        (1.234, Unit.SHARE, "123 %"),
        (512, Unit.BYTES, "512 B"),
        (-3 * 2**20, Unit.BYTES, "-3 MiB"),
        (1000 * 2**20, Unit.BYTES, "1,000 MiB"),
        (1.5 * 2**30, Unit.BYTES_PER_SECOND, "1.5 GiB/s"),
        (612, Unit.COUNT, "612"),
    ],
)
def test_values_are_written_for_people(value, unit, text):
    assert format_value(value, unit) == text


@pytest.mark.quick
def test_a_file_is_written_in_the_format_of_its_name_and_stdout_stays_empty(gambler, tmp_path):
    target = tmp_path / "out.csv"
    target.write_text("old")
    arguments = ("bench", "--model", gambler, *SHORT, *ONLY_FAST, "-o", str(target))
    outcome = run_cli(*arguments, home=tmp_path)
    assert (outcome.code, outcome.stdout) == (0, b"")
    assert target.read_text().startswith("section,name,unit,program,")
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_a_device_is_written_to_and_not_replaced(gambler, tmp_path):
    arguments = ("bench", "--model", gambler, "--only", "graph", "-o", "/dev/stdout", "--format", "json")
    outcome = run_cli(*arguments, home=tmp_path)
    assert (outcome.code, json.loads(outcome.stdout)["complete"]) == (0, True)


def test_a_link_stays_and_its_target_is_replaced(gambler, tmp_path):
    (tmp_path / "link.md").symlink_to(tmp_path / "target.md")
    arguments = ("bench", "--model", gambler, "--only", "graph", "-o", str(tmp_path / "link.md"))
    assert run_cli(*arguments, home=tmp_path).code == 0
    assert (tmp_path / "link.md").is_symlink()
    assert "| primitives |" in (tmp_path / "target.md").read_text()


def test_what_was_given_is_given_on_to_another_process():
    given = {"config": Path("a.toml"), "greedy": True, "model": "-m", "top_k": None, "repeats": "3"}
    assert given_arguments(given) == ["--greedy", "--config", "a.toml", "--model=-m"]


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--repeats", "0"), "--repeats must be a whole number of at least 1, not '0'"),
        (("--warmup", "-1"), "--warmup must be a whole number of at least 0, not '-1'"),
        (("--depths", "0,x"), "--depths must be a whole number of at least 0, not 'x'"),
        (("--prompt-tokens", ""), "--prompt-tokens must be a whole number of at least 1, not ''"),
        (("--format", "yaml"), "--format must be table, json, csv or markdown, not 'yaml'"),
        (("--only", "decode,speed"), "--only must be ceiling, cold-start, "),
        (("--compare", "llama.cpp"), "--compare must be mlx-lm, not 'llama.cpp'"),
        (("--depths", "4000"), "--depths 4000 and 32 new tokens do not fit the cache: max_seq_len is 256"),
        (("--prompt-tokens", "300"), "--prompt-tokens 300 do not fit the cache: max_seq_len is 256"),
        (("--decode-tokens", "1"), "--decode-tokens must be a whole number of at least 2, not '1'"),
        (("--max-seq-len", "1"), "2 new tokens do not fit the cache: max_seq_len is 1"),
        (
            ("-o", "/no/such/x.json"),
            "--output /no/such/x.json cannot be written: there is no folder /no/such",
        ),
        (("-o", "/"), "--output / cannot be written: "),
        (("--greedy", "--top-k", "4"), "--greedy contradicts --top-k 4"),
        (
            ("--only", "speculation", "--speculate", "off"),
            "--only speculation contradicts speculate = off",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_reported_before_anything_is_measured(gambler, tmp_path, arguments, message):
    outcome = run_cli("bench", "--model", gambler, *arguments, home=tmp_path)
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert outcome.stderr.startswith(f"metal-gen: {message}"), outcome.stderr
    assert "measuring" not in outcome.stderr


def test_a_checkpoint_that_does_not_fit_is_refused_as_by_generate(gambler, tmp_path):
    arguments = ("bench", "--model", gambler, "-o", str(tmp_path / "x.json"))
    outcome = run_cli(*arguments, home=tmp_path, METAL_GEN_MEMORY_LIMIT_BYTES="1000")
    assert (outcome.code, outcome.stdout) == (DOES_NOT_FIT, b"")
    assert "of memory are needed" in outcome.stderr
    assert list(tmp_path.glob("*x.json*")) == []


@pytest.mark.quick
def test_a_model_that_is_not_there(tmp_path):
    outcome = run_cli("bench", "--model", "./nowhere", home=tmp_path)
    assert (outcome.code, outcome.stdout) == (NOT_FOUND, b"")


def test_a_comparison_without_mlx_lm_is_refused_with_the_command_that_installs_it(
    gambler, tmp_path, monkeypatch, capfd
):
    from metal_gen.bench.runners import mlx_lm as mlx_lm_runner
    from metal_gen.cli.main import main

    monkeypatch.setattr(mlx_lm_runner, "find_spec", lambda name: None)
    assert main(["bench", "--model", gambler, "--compare", "mlx-lm"]) == USAGE
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert stderr == ("metal-gen: cannot compare: mlx-lm is not installed\nhint: pip install mlx-lm\n")


def test_a_run_that_fails_in_a_process_of_its_own_says_why(gambler, tmp_path):
    """The prompt of a cold start needs more than two positions."""
    arguments = ("bench", "--model", gambler, "--max-seq-len", "4", "--only", "cold-start")
    outcome = run_cli(*arguments, home=tmp_path)
    assert outcome.code == 1
    assert "metal_gen ended with exit code 6: the prompt of" in outcome.stderr


@pytest.mark.parametrize(
    ("signal_", "code", "word"),
    [(signal.SIGINT, INTERRUPTED, "interrupted"), (signal.SIGTERM, TERMINATED, "terminated")],
)
def test_what_was_measured_before_a_signal_is_reported(gambler, tmp_path, signal_, code, word):
    target = tmp_path / "out.json"
    endless = ("--repeats", "1000000", "--only", "memory,prefill", "--max-seq-len", "64")
    process = start_cli("bench", "--model", gambler, *endless, "-o", str(target), home=tmp_path)
    for line in process.stderr:
        if b"measuring: prefill" in line:
            break
    process.send_signal(signal_)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    document = json.loads(target.read_text())
    assert document["complete"] is False
    assert "peak_memory_bytes" in {entry["name"] for entry in document["measurements"]}
    assert stderr.decode().splitlines()[-1] == f"metal-gen: {word}"


def test_an_interrupted_run_prints_what_it_has(gambler, tmp_path):
    endless = ("--repeats", "1000000", "--only", "memory,prefill", "--max-seq-len", "64")
    process = start_cli("bench", "--model", gambler, *endless, home=tmp_path)
    for line in process.stderr:
        if b"measuring: prefill" in line:
            break
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert b"peak memory" in stdout
    assert stdout.splitlines()[-1].startswith(b"INCOMPLETE")


def test_a_cold_start_that_is_interrupted_leaves_no_process_behind(gambler, tmp_path):
    marker = str(tmp_path / "this-run.toml")
    (tmp_path / "this-run.toml").write_text("")
    endless = ("--repeats", "1000000", "--only", "cold-start", "--config", marker)
    process = start_cli("bench", "--model", gambler, *endless, home=tmp_path)
    for line in process.stderr:
        if b"measuring: cold-start" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert running_with(marker) == []


def running_with(argument):
    """Return the processes with an argument; none if the system has no /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found
