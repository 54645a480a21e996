"""Tests how `metal-gen info` describes how it was started, on various systems."""

import json
import os

import mlx.core as mx
import pytest

from metal_gen.cli.output import session
from metal_gen.cli.output.session import ancestors, describe_mac, describe_session, started_by
from metal_gen.device import backend
from metal_gen.generation import self_test
from metal_gen.generation.self_test import REST, SelfTest

pytest_plugins = ("fixtures_cli",)

# Output of `ps` on a Mac and on Linux.
LISTING = """
    1     0 /sbin/launchd
  400     1 /usr/sbin/cron
  410   400 /usr/sbin/cron
  411   410 /bin/sh
  412   411 /usr/bin/caffeinate
  413   412 /Users/me/My Programs/metal-gen
  500     1 sshd
  501   500 sshd-session: me
  502   501 -zsh
  900   901 a circle
  901   900 a circle
nonsense
"""


@pytest.mark.parametrize(
    ("process", "names"),
    [
        (413, ["caffeinate", "sh", "cron", "cron"]),
        (502, ["sshd-session: me", "sshd"]),
        (1, []),
        (77, []),
    ],
)
def test_ancestors_are_found(process, names):
    assert ancestors(LISTING, process) == names


def test_a_circle_of_processes_ends():
    assert ancestors(LISTING, 900)


@pytest.mark.parametrize(
    ("processes", "variables", "by"),
    [
        (["sh", "cron"], {"XPC_SERVICE_NAME": "com.vix.cron"}, "cron"),
        (["zsh", "sshd-session: me"], {"TERM": "xterm"}, "ssh"),
        (["zsh", "tmux"], {"TERM": "screen", "SSH_CONNECTION": "1 2 3 4"}, "ssh"),
        (["caffeinate"], {"XPC_SERVICE_NAME": "metal-gen.batch"}, "launchd"),
        (
            ["zsh", "Terminal"],
            {"XPC_SERVICE_NAME": "application.com.apple.Terminal.1", "TERM": "xterm"},
            "terminal",
        ),
        (["zsh", "login"], {"XPC_SERVICE_NAME": "0", "TERM": "xterm"}, "terminal"),
        (["node"], {}, "another program"),
    ],
)
def test_who_started_it(processes, variables, by):
    assert started_by(processes, variables) == by


def test_a_session_without_a_gpu_is_reported(monkeypatch):
    def refuse(*arrays):
        raise RuntimeError("[metal::load_device] No Metal device available.")

    monkeypatch.setattr(backend, "runs_on_cpu", lambda: False)
    assert describe_session(has_mlx=True)["can_use_gpu"] is True
    monkeypatch.setattr(mx, "eval", refuse)
    told = describe_session(has_mlx=True)
    assert (told["can_use_gpu"], told["why_no_gpu"]) == (
        False,
        "[metal::load_device] No Metal device available.",
    )
    assert describe_session(has_mlx=False)["can_use_gpu"] is False


def test_only_variables_of_libraries_are_shown(monkeypatch):
    monkeypatch.setenv("MLX_MAX_MB_PER_BUFFER", "70")
    monkeypatch.setenv("METAL_GEN_SYSTEM", "a secret")
    monkeypatch.setenv("OPENAI_API_KEY", "a secret")
    variables = describe_session(has_mlx=False)["variables"]
    assert variables["MLX_MAX_MB_PER_BUFFER"] == "70"
    assert "a secret" not in variables.values()


def test_a_mac_says_what_it_is(monkeypatch):
    said = "hw.model: Mac16,1\nmachdep.cpu.brand_string: Apple M4\nkern.osproductversion: 15.5\nother: 1\n"
    monkeypatch.setattr(session, "_answer", lambda *command: said)
    assert describe_mac() == {"model": "Mac16,1", "chip": "Apple M4", "macos": "15.5"}
    monkeypatch.setattr(session, "_answer", lambda *command: "")
    assert describe_mac() == {}


def test_every_check_is_reported_when_it_is_done(run_here, monkeypatch):
    from metal_gen.device_checks.check import Check

    right, wrong = (mx.ones(2), mx.ones(2)), (mx.ones(2), mx.zeros(2))
    checks = [Check("right", 0.1, lambda: [right]), Check("wrong", 0.1, lambda: [wrong])]
    monkeypatch.setattr("metal_gen.device_checks.every.every_check", lambda: iter(checks))
    monkeypatch.setattr(self_test, "run_self_test", lambda: SelfTest(REST, -0.1, 0.1, 0.1, 9.0))
    outcome = run_here("info", "--deep", "--json")
    assert outcome.code == 1
    first, second, *_ = outcome.stderr.splitlines()
    assert first.startswith("metal-gen: 1/2 right: ok (")
    assert second.startswith("metal-gen: 2/2 wrong: differs by ")
    told = json.loads(outcome.stdout)
    assert [check["passed"] for check in told["device_checks"]["checks"]] == [True, False]
    assert told["session"]["processes"] == ancestors(session._process_list(), os.getpid())
