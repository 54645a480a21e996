"""Tests Ctrl-C, SIGTERM and SIGHUP in every phase of a run, and of tracebacks of unexpected errors."""

import signal
import time

import pytest
from cli_process import start_cli
from hub_process import MODEL, single_file_repo
from hub_server import Trouble, running_hub

pytest_plugins = ("fixtures_text",)

# Replaces a function; a thread reports that the replacement has started.
INSTEAD_OF = """
import os, time
from hashlib import pbkdf2_hmac
from threading import Timer
from {module} import {owner}
def work(*arguments, **named):
    Timer(0.1, lambda: os.write(2, b"begun\\n")).start()
    {work}
{owner}.{function} = work
"""
LOAD = {"module": "metal_gen.generation.loading", "owner": "PreparedModel", "function": "read_weights"}
PREFILL = {"module": "metal_gen.engine.decoder", "owner": "Decoder", "function": "prefill"}
# Blocks for minutes without returning to Python, as in MLX.
LONG_STEP = 'pbkdf2_hmac("sha256", b"", b"", 2 * 10**9)'
SHORT_STEPS = "while True: time.sleep(0.01)"
SLOW_END = """
    try:
        while True: time.sleep(0.01)
    finally:
        time.sleep(0.3)
        os.write(2, b"kept\\n")
"""
# Like compiled code through which an exception passes.
ERROR_INSTEAD = """
    try:
        time.sleep(100)
    except BaseException as error:
        raise SystemError("a result with an exception set") from error
"""
# Like the library of constraints, which calls Python and tells of an exception in its own words.
REFUSAL_INSTEAD = """
    from metal_gen.errors import UsageError
    try:
        time.sleep(100)
    except BaseException:
        pass
    raise UsageError("the schema cannot be used: panic", "another schema")
"""
# Like the import of MLX, whose error names the cause.
REFUSAL_FROM_IT = """
    from metal_gen.errors import BackendError
    try:
        time.sleep(100)
    except BaseException as error:
        raise BackendError("MLX has no backend on this machine", "install another build") from error
"""


def begin(model, home, place, work):
    """Start a run, and return when it is in the middle of this work."""
    before = INSTEAD_OF.format(**place, work=work)
    process = start_cli("generate", "-m", model, "-p", "hi", home=home, before=before)
    assert process.stderr.readline() == b"begun\n"
    return process


@pytest.mark.parametrize(
    ("place", "work", "number", "code", "word"),
    [
        pytest.param(LOAD, LONG_STEP, signal.SIGINT, 130, b"interrupted", id="load"),
        pytest.param(PREFILL, SHORT_STEPS, signal.SIGTERM, 143, b"terminated", id="prefill"),
        pytest.param(PREFILL, SHORT_STEPS, signal.SIGHUP, 129, b"hung up", id="terminal-closed"),
        pytest.param(PREFILL, ERROR_INSTEAD, signal.SIGINT, 130, b"interrupted", id="error-instead"),
        pytest.param(PREFILL, REFUSAL_INSTEAD, signal.SIGINT, 130, b"interrupted", id="refusal-instead"),
        pytest.param(PREFILL, REFUSAL_FROM_IT, signal.SIGTERM, 143, b"terminated", id="refusal-from-it"),
    ],
)
def test_a_signal_ends_any_phase(speaker, tmp_path, place, work, number, code, word):
    with begin(speaker, tmp_path, place, work) as process:
        process.send_signal(number)
        assert process.stderr.read() == b"metal-gen: " + word + b"\n"
        assert process.stdout.read() == b""
    assert process.returncode == code


def test_in_a_long_step_the_first_is_answered_and_the_second_leaves_at_once(speaker, tmp_path):
    with begin(speaker, tmp_path, PREFILL, LONG_STEP) as process:
        process.send_signal(signal.SIGINT)
        said = process.stderr.readline()
        assert said == (
            b"metal-gen: interrupted: stopping after the current step; press Ctrl-C again to stop now\n"
        )
        sent_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - sent_s < 5


def test_a_closed_terminal_and_its_shell_count_once(speaker, tmp_path):
    with begin(speaker, tmp_path, PREFILL, SLOW_END) as process:
        for _ in range(20):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        assert process.stderr.read() == b"kept\nmetal-gen: hung up\n"
    assert process.returncode == 129


def test_a_signal_that_is_ignored_from_the_start_stays_so(speaker, tmp_path):
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    before = ignoring + INSTEAD_OF.format(**PREFILL, work=SHORT_STEPS)
    with start_cli("generate", "-m", speaker, "-p", "hi", home=tmp_path, before=before) as process:
        assert process.stderr.readline() == b"begun\n"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read() == b"metal-gen: terminated\n"
    assert process.returncode == 143


def test_ctrl_c_in_a_download(tmp_path):
    with running_hub() as hub:
        hub.repos[MODEL] = single_file_repo()
        hub.trouble["model.safetensors"] = Trouble(after_bytes=100_000, trickle_s=20.0)
        network = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": None, "HF_HUB_DISABLE_XET": "1"}
        with start_cli("generate", "-m", MODEL, "-p", "hi", home=tmp_path, **network) as process:
            while "model.safetensors" not in hub.fetched():
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            *_, announced, said = process.stderr.read().splitlines()
        assert announced.startswith(b"metal-gen: downloading org/Qwen3-tiny: 3")
        assert (process.returncode, said) == (130, b"metal-gen: interrupted")


def test_an_unexpected_error_keeps_its_traceback_without_control_characters(speaker, tmp_path):
    with begin(speaker, tmp_path, PREFILL, r'time.sleep(0.2); raise RuntimeError("odd \x1b[2J")') as process:
        stderr = process.stderr.read().decode()
    assert process.returncode == 1
    assert stderr.startswith("Traceback")
    assert stderr.endswith("RuntimeError: odd \u241b[2J\n")
