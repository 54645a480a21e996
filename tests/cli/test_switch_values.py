"""Tests the hints for a value after a switch, as in other programs, and an option in place of a value."""

import pytest

pytest_plugins = ("fixtures_cli",)

USAGE = 2
TWICE = "the prompt is given twice, as an argument and with --prompt"
MIXTURES = {
    "generate --verbose F -p hi": (TWICE, "--verbose takes no value: leave both out"),
    "generate --verbose True -p hi": (TWICE, "--verbose takes no value: leave True out"),
    "generate -v 2 -p hi": (TWICE, "-v takes no value: leave 2 out"),
    "generate --ignore-chat-template True -p hi": (
        TWICE,
        "--ignore-chat-template takes no value: leave True out",
    ),
    "generate --thinking false hi": (
        "unexpected argument: hi",
        "--thinking takes no value: --no-thinking is the opposite",
    ),
    "generate --no-thinking=0 hi": ("--no-thinking takes no value", "--thinking is the opposite"),
    "generate --verbose=F hi": ("--verbose takes no value", "leave it out"),
    "generate --json=x hi": ("--json takes no value", "leave =x out"),
    "chat --markdown on": ("unexpected argument: on", "--markdown takes no value: leave on out"),
    "models list --json true": ("unexpected argument: true", "--json takes no value: leave true out"),
    "generate hi -o": ("-o needs a value", "write -o FILE"),
    "convert a b --quantize": ("--quantize needs a value", "write --quantize BITS"),
    "convert a b --quantize --group-size 32": (
        "unexpected argument: 32",
        "--quantize takes a value, and --group-size is in its place: write --quantize BITS",
    ),
    "convert a b --quantize --q-bits 4": (
        "unexpected argument: 4",
        "--quantize takes a value, and --q-bits is in its place: write --quantize BITS",
    ),
    "generate -p hi x": (TWICE, "leave one of them out"),
    "generate -q hi there": ("unexpected argument: there", "a prompt is one argument: put it in quotes"),
}


@pytest.mark.parametrize("line", MIXTURES)
def test_a_mixture_of_options_and_values_is_named(run_here, line):
    outcome = run_here(*line.split())
    message, hint = MIXTURES[line]
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert outcome.stderr == f"metal-gen: {message}\nhint: {hint}\n"
