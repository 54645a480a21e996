"""Tests that every option says what it does and its default, at any width, and no example is cut."""

import re
import shlex

import pytest
import typer
from cli_process import run_in_terminal
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.cli import command_help
from metal_gen.cli.app import app
from metal_gen.cli.examples import COLUMNS, broken, epilog, examples_in
from metal_gen.cli.option_help import default_of, described, names_of
from metal_gen.config.settings import SETTINGS

pytest_plugins = ("fixtures_cli",)

# Actions have no default.
ACTIONS = {"help", "version", "install_completion", "show_completion"}
# Adverbs of frequency may come first.
VERBS = """Add Always Answer Apply Ask Begin Check Compare Compile Compute Continue Convert Copy Delete Divide
Draw End Generate Guess Hide Install Keep Let Limit Load Measure Move Multiply Name Never Plan Print Put
Quantize Rank Read Render Replace Report Require Run Save Say Scale Score Set Show Skip Start Stop Store
Subtract Sync Take Tell Time Use Write""".split()


def commands(group, path=()):
    yield path, group
    for name in getattr(group, "commands", {}):
        yield from commands(group.commands[name], (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def shown_params(command):
    return [
        param for param in command.get_params(typer.Context(command)) if not getattr(param, "hidden", False)
    ]


@pytest.fixture
def help_of(run_here, monkeypatch):
    """Return the help of a command, at a terminal of some width."""

    def help_of(path, columns):
        monkeypatch.setattr(command_help, "columns", lambda stream: columns)
        outcome = run_here(*path, "--help")
        assert (outcome.code, outcome.stderr) == (0, "")
        return outcome.stdout.decode()

    return help_of


def joined(text):
    return " ".join(re.sub("[\u2500-\u257f]", " ", text).split())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_shows_its_default(help_of, path):
    optional = [
        param for param in shown_params(COMMANDS[path]) if not param.required and param.name not in ACTIONS
    ]
    for columns in (40, 300):
        text = help_of(path, columns)
        assert joined(text).count("[default: ") == len(optional)
        for param in optional:
            assert f"[default: {default_of(param)}]" in joined(text), param.name


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_begins_with_a_verb_and_has_no_full_stop(path):
    for param in shown_params(COMMANDS[path]):
        assert param.help.split()[0] in VERBS, param.help
        assert not described(param).endswith("."), param.name


def test_the_help_of_a_setting_has_no_default_in_its_words():
    for info in SETTINGS.values():
        assert info.shown_default
        assert not re.search(r"by default|\.$", info.help), info.name
        assert info.help.split()[0] in VERBS, info.help


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", [30, 40, 77, 80])
def test_nothing_is_cut_or_goes_over_the_edge(help_of, path, columns):
    text = help_of(path, columns)
    assert "\u2026" not in text
    if columns > 30:
        assert max(map(len, text.splitlines())) <= columns
    assert joined(COMMANDS[path].help) in joined(text)
    for param in shown_params(COMMANDS[path]):
        assert param.opts[-1] in text or names_of(param) in text


def test_help_in_a_pipe_is_as_wide_as_said(run_here, monkeypatch):
    def widest(columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        return max(map(len, run_here("generate", "--help").stdout.decode().splitlines()))

    assert 30 < widest(40) <= 40
    assert 190 < widest(200) <= 200
    assert widest(20) == widest(30)
    monkeypatch.delenv("COLUMNS")
    assert max(map(len, run_here("generate", "--help").stdout.decode().splitlines())) == 80


def test_help_in_a_pipe_from_a_terminal_is_as_wide_as_the_terminal(tmp_path):
    """A shell does not export COLUMNS: the width is that of the terminal where the pipe ends."""
    outcome = run_in_terminal("score", "--help", home=tmp_path, attached=("stdin", "stderr"), columns=40)
    assert outcome.code == 0
    lines = outcome.stdout.decode().splitlines()
    assert "  --stride N" in lines
    assert 30 < max(map(len, lines)) <= 40


@pytest.mark.parametrize("columns", [40, 80])
def test_groups_are_kept_at_any_width(help_of, columns):
    text = help_of((), columns)
    places = [text.index(title) for title in ("Options", "Text", "Models and memory", "Settings and help")]
    assert places == sorted(places)
    of_generate = help_of(("generate",), columns)
    for title in ("Options", "Output", "Sampling", "Stopping", "Memory"):
        assert re.search(rf"^(\u256d\u2500 )?{title}\b", of_generate, re.MULTILINE), title


def test_an_example_continues_after_a_backslash():
    for command in COMMANDS.values():
        for line in command.epilog.splitlines():
            assert len(line) <= COLUMNS


WORDS = st.lists(
    st.sampled_from(["metal-gen", "--seed", "-n", "12", "|", "jq", '"a b"', "'c  d'", "x" * 30]), min_size=1
)


@given(words=WORDS, width=st.integers(10, 80))
def test_a_broken_command_is_the_same_command(words, width):
    command = " ".join(words)
    again = broken(command, width)
    assert shlex.split(again.replace("\\\n", "")) == shlex.split(command)
    assert examples_in(epilog(command)) == [command]
    for line in again.splitlines()[:-1]:
        assert line.endswith(" \\")
