"""Tests `metal-gen batch` with rows that arrive late, have other formats or fields, or get no answer."""

import gzip
import json
import signal
import subprocess

import pytest
from cli_process import run_cli, start_cli

from metal_gen.batch.input.row_settings import OWN_NAMES
from metal_gen.cli.batch.run import wait_for_row
from metal_gen.config.settings import SETTINGS

pytest_plugins = ("fixtures_batch", "fixtures_cli", "fixtures_text")

FAST = ("-n", "2", "--seed", "3")
TIMEOUT_S = 30


def write_rows(folder, *rows, name="in.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def records(folder, name="out.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


# Late rows


@pytest.mark.parametrize("slots", ["1", "4"])
def test_a_program_that_waits_for_each_record_gets_it(gambler, tmp_path, slots):
    process = start_cli(
        *("batch", "-", "-o", "-", "-q", "--batch-size", slots, *FAST),
        home=tmp_path,
        stdin=subprocess.PIPE,
        METAL_GEN_MODEL=gambler,
    )
    for id in range(3):
        process.stdin.write(json.dumps({"id": id, "prompt": "hi"}).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == id
    stdout, stderr = process.communicate(b"nonsense\n", timeout=TIMEOUT_S)
    assert (process.returncode, stderr) == (7, b"")
    assert json.loads(stdout)["error"]["line"] == 4


def test_a_signal_ends_the_wait_for_a_row(gambler, tmp_path):
    arguments = ("batch", "-", "-o", "-", *FAST)
    process = start_cli(*arguments, home=tmp_path, stdin=subprocess.PIPE, METAL_GEN_MODEL=gambler)
    process.stdin.write(b'{"prompt": "hi"}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 143
    _, stderr = process.communicate()
    assert b"stopped: " in stderr
    assert stderr.endswith(b"metal-gen: terminated\n")


class Late:
    """An input that stays silent for some waits, and a journal that counts its syncs."""

    def __init__(self, waits):
        self.waits_s, self.left, self.synced = [], waits, 0

    def wait(self, timeout_s):
        self.waits_s.append(timeout_s)
        self.left -= 1
        return self.left < 0

    def sync(self):
        self.synced += 1


@pytest.mark.parametrize(("interval_s", "waited_s"), [(5.0, 5.0), (0.0, 1.0)])
def test_what_is_written_is_synced_while_a_row_is_long_in_coming(interval_s, waited_s):
    late = Late(2)
    for _ in range(3):
        wait_for_row(late, late, interval_s)
    assert (late.waits_s, late.synced) == ([waited_s] * 3, 2)


# Other formats


def test_another_format_is_refused_before_anything_is_touched(batch, tmp_path):
    (tmp_path / "in.json").write_text('[{"prompt": "hi"}]')
    (tmp_path / "out.jsonl").write_text("older")
    arguments = ("-o", "out.jsonl", "--overwrite", "-m", "./no-such-model")
    for outcome in (
        batch("in.json", *arguments),
        run_cli("batch", "-", *arguments[:-2], home=tmp_path, stdin=(tmp_path / "in.json").read_bytes()),
        batch("in.json", "--check"),
    ):
        assert (outcome.code, outcome.stdout) == (2, b"")
        assert "a JSON array, not JSON Lines" in outcome.stderr
        assert "jq -c '.[]'" in outcome.stderr
    assert (tmp_path / "out.jsonl").read_text() == "older"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_a_compressed_file_gives_the_same_records_and_can_be_resumed(batch, tmp_path):
    write_rows(tmp_path, {"prompt": "hi"}, {"prompt": "ho"})
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress((tmp_path / "in.jsonl").read_bytes()))
    assert batch("in.jsonl", "-o", "out.jsonl", *FAST).code == 0
    arguments = ("in.jsonl.gz", "-o", "packed.jsonl", *FAST, "--resume")
    assert batch(*arguments).code == 0
    assert records(tmp_path, "packed.jsonl") == records(tmp_path)
    again = batch(*arguments)
    assert (again.code, "0 rows done, 0 failed, 2 done before" in again.stderr) == (0, True)


# Fields and settings


def test_other_fields_are_kept_on_request_and_it_is_the_same_run_only_with_it(batch, tmp_path):
    write_rows(tmp_path, {"id": 1, "prompt": "hi", "meta": {"a": 1}, "text": "was", "url": "u"})
    arguments = ("in.jsonl", "-o", "out.jsonl", *FAST)
    assert batch(*arguments, "--keep-fields").code == 0
    (record,) = records(tmp_path)
    assert (record["meta"], record["input_text"], record["url"]) == ({"a": 1}, "was", "u")
    assert record["text"] != "was"
    other = batch(*arguments, "--resume")
    assert (other.code, "started with keep_fields True" in other.stderr) == (2, True)
    assert batch(*arguments, "--keep-fields", "--resume").code == 0
    refused = batch("in.jsonl", "--check")
    assert 'line 1: there is no parameter "meta" (--keep-fields copies' in refused.stderr


def test_whatever_a_row_can_set_is_an_option_too():
    import inspect

    from metal_gen.cli.commands.batch import batch

    options = inspect.signature(batch).parameters
    assert [name for name in OWN_NAMES if name not in options] == []
    assert {SETTINGS[name].section for name in OWN_NAMES} == {"sampling", "generation"}


# Rows without an answer, and rows that are too long


@pytest.mark.parametrize("samples", [1, 2])
def test_a_row_that_ends_while_thinking_is_a_failure_that_keeps_the_thinking(
    batch, brooder, tmp_path, samples
):
    write_rows(tmp_path, {"id": "a", "prompt": "hi", "max_tokens": 3}, {"id": "b", "prompt": "hi"})
    arguments = (
        "in.jsonl",
        "-o",
        "out.jsonl",
        "-m",
        brooder,
        "--samples",
        str(samples),
        "--ordered",
    )
    outcome = batch(*arguments)
    assert outcome.code == 7
    assert "line 1: there is no answer: the text ended while the model was thinking" in outcome.stderr
    failed, done = records(tmp_path)
    assert (failed["error"]["code"], failed["error"]["line"]) == ("no_answer", 1)
    assert failed["error"]["hint"].startswith("raise --max-tokens")
    assert [each["reasoning"] for each in failed.get("texts", [failed])] == ["abc"] * samples
    assert "text" not in failed
    assert [each["text"] for each in done.get("texts", [done])] == ["42"] * samples
    resumed = batch(*arguments, "--resume")
    assert "0 rows done, 0 failed, 1 done before, 1 failed before" in resumed.stderr


@pytest.mark.parametrize(
    ("rows", "said", "advice"),
    [
        ([{"prompt": "hi " * 9}, {"prompt": "h"}], "line 1: a prompt of 45 tokens; max_seq_len is 2,048", ""),
        (
            [{"prompt": "hi"}, {"prompt": "h", "max_tokens": 3000}],
            "line 2: a prompt of 19 tokens and max_tokens 3,000; max_seq_len is 2,048",
            "--max-seq-len 3018 holds it",
        ),
        (
            [{"prompt": "h" * 2500}],
            "line 1: a prompt of 2,518 tokens; max_seq_len is 2,048",
            "--max-seq-len 6614 holds it, with room for 4,096 new tokens",
        ),
        (
            [{"prompt": "h" * 9000}],
            "line 1: a prompt of 9,018 tokens; max_seq_len is 2,048",
            "neither the model nor memory has room",
        ),
    ],
    ids=["fits", "max_tokens", "prompt", "never"],
)
def test_a_check_says_what_the_longest_row_needs(batch, text_checkpoints, tmp_path, rows, said, advice):
    model = long_speaker(text_checkpoints)
    write_rows(tmp_path, *rows)
    outcome = batch("in.jsonl", "--check", "-m", model)
    assert outcome.code == (7 if advice else 0)
    assert f"the longest row is {said}" in outcome.stderr
    assert advice in outcome.stderr


def test_a_row_that_does_not_fit_says_what_would_hold_it_and_its_answer(batch, text_checkpoints, tmp_path):
    write_rows(tmp_path, {"id": 1, "prompt": "h" * 2500}, {"id": 2, "prompt": "h", "max_tokens": 3000})
    model = long_speaker(text_checkpoints)
    assert batch("in.jsonl", "-o", "out.jsonl", "-m", model).code == 7
    first, second = (record["error"] for record in records(tmp_path))
    assert (first["code"], second["code"]) == ("does_not_fit", "does_not_fit")
    assert "--max-seq-len 6614" in first["hint"]
    assert "--max-seq-len 3018" in second["hint"]


def long_speaker(folder):
    """A model that was trained for 8,192 tokens."""
    from tiny_text_checkpoint import write_text_checkpoint

    place = folder / "long speaker"
    if not place.exists():
        write_text_checkpoint(place, says=b"abc", max_position_embeddings=8192)
    return str(place)
