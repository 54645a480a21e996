"""Tests that other programs' option names are accepted if they mean the same, and explained otherwise."""

import re

import pytest
import typer

from metal_gen.cli.app import app
from metal_gen.cli.commands_elsewhere import INSTEAD, MEANT
from metal_gen.cli.names_elsewhere import HINTS, HINTS_OF_COMMAND, SAME
from metal_gen.cli.usage_errors import usage_error
from metal_gen.errors import UsageError

pytest_plugins = ("fixtures_cli",)

USAGE = 2
PROGRAM = typer.main.get_command(app)
COMMANDS = {name: PROGRAM.commands[name] for name in PROGRAM.commands}
GROUPS = [getattr(command, "commands", {name: command}) for name, command in COMMANDS.items()]
LEAVES = [command for group in GROUPS for command in group.values()]


def parse(*words):
    """Return the parameters of a command line."""
    context = PROGRAM.make_context("metal-gen", list(words))
    name, command, rest = PROGRAM.resolve_command(context, [*context._protected_args, *context.args])
    return command.make_context(name, rest, parent=context).params


SAME_LINES = [
    (("--temp", "0.5"), ("--temperature", "0.5")),
    (("-s", "7"), ("--seed", "7")),
    (("--n-predict=9",), ("-n", "9")),
    (("--predict", "9"), ("--max-tokens", "9")),
    (("-sys", "Be brief."), ("--system", "Be brief.")),
    (("--system-prompt", "Be brief."), ("--system", "Be brief.")),
    (("--repeat-penalty", "1.1"), ("--repetition-penalty", "1.1")),
    (("--ignore-chat-template",), ("--raw",)),
    (("-f", "notes.txt"), ("--prompt-file", "notes.txt")),
    (("-e",), ("--escape",)),
    (("--prefill-response", "Sure,"), ("--prefill", "Sure,")),
    (("-c4096",), ("--max-seq-len", "4096")),
    (("--ctx-size", "4096"), ("--max-seq-len", "4096")),
    (("--max-kv-size", "4096"), ("--max-seq-len", "4096")),
    (("--prefill-step-size", "64"), ("--chunk-size", "64")),
    (("--memory-limit", "12G"), ("--memory-limit-bytes", "12G")),
    (("--adapter-path", "a", "--adapter", "b"), ("--adapter", "a", "--adapter", "b")),
    (("--prefill-response", "Sure"), ("--prefill", "Sure")),
    (("--chat-template-kwargs", '{"a": 1}'), ("--template-arg", '{"a": 1}')),
    (("--chat-template-config", '{"a": 1}'), ("--template-arg", '{"a": 1}')),
    (("--hidethinking",), ("--hide-thinking",)),
    (("--output-file", "x"), ("-o", "x")),
]


@pytest.mark.parametrize(("theirs", "ours"), SAME_LINES, ids=lambda words: words[0])
def test_a_name_that_means_the_same_is_taken(theirs, ours):
    given = parse("generate", "-p", "x", *theirs)
    assert given == parse("generate", "-p", "x", *ours)
    assert given != parse("generate", "-p", "x")


def test_convert_takes_the_names_of_mlx_lm():
    theirs = parse("convert", "a", "b", "--quantize", "4", "--q-group-size", "32", "--q-mode", "affine")
    assert theirs == parse("convert", "a", "b", "--quantize", "4", "--group-size", "32", "--mode", "affine")


def test_every_name_is_one_of_some_command_and_hides_no_other():
    names = {param.name for command in LEAVES for param in command.params}
    assert set(SAME.values()) <= names
    assert not SAME.keys() & HINTS.keys()
    for command in LEAVES:
        own = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
        assert not own & SAME.keys()


@pytest.mark.parametrize("name", HINTS)
def test_a_name_that_means_something_else_is_explained(run_here, name):
    for words in ((name,), (name, "4"), (name, "-v")):
        outcome = run_here("generate", "-p", "x", *words)
        assert (outcome.code, outcome.stdout) == (USAGE, b"")
        assert outcome.stderr == f"metal-gen: no such option: {name}\nhint: {HINTS[name]}\n"


def test_a_name_with_a_value_is_explained_too(run_here):
    outcome = run_here("generate", "-p", "x", "--threads=4")
    assert outcome.stderr == f"metal-gen: no such option: --threads\nhint: {HINTS['--threads']}\n"


def test_a_hint_names_options_that_there_are():
    options = {
        name
        for command in LEAVES
        for param in command.params
        for name in (*param.opts, *param.secondary_opts)
    }
    of_commands = [hint for hints in HINTS_OF_COMMAND.values() for hint in hints.values()]
    for hint in (*HINTS.values(), *of_commands, *INSTEAD.values()):
        for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", re.sub(r"`hf [^`]*`", "", hint)):
            assert option in options, hint
        for path in re.findall(r"`metal-gen (\w+)", hint):
            assert path in COMMANDS


def test_a_number_is_not_a_model(run_here, tmp_path):
    assert "hint: -n 100 sets the number of tokens" in run_here("generate", "-m", "100", "-p", "x").stderr
    (tmp_path / "100").mkdir()
    assert "-n 100" not in run_here("generate", "-m", "100", "-p", "x").stderr


def test_a_command_keeps_its_own_names():
    assert parse("batch", "x.jsonl", "--batch-size", "4")["batch_size"] == "4"


def test_other_names_are_not_shown_and_not_completed(run_here):
    text = run_here("generate", "--help").stdout.decode().split("Examples:")[0]
    for name in (*SAME, *HINTS):
        assert not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text), name


MEANT_LINES = {
    ("list",): "metal-gen models list",
    ("ls",): "metal-gen models list",
    ("pull", "Qwen/Qwen3-0.6B"): "metal-gen models pull",
    ("rm", "x"): "metal-gen models rm",
    ("version",): "metal-gen --version",
    ("ask", "Tell me a story"): "metal-gen generate",
    ("gen", "hi"): "metal-gen generate",
    ("convrt",): "metal-gen convert",
    ("models", "lst"): "metal-gen models list",
    ("prefix", "--help"): "metal-gen cache",
    ("prefix-cache", "list"): "metal-gen cache",
}


@pytest.mark.parametrize(("words", "meant"), MEANT_LINES.items(), ids=lambda value: str(value))
def test_a_command_of_another_program_is_explained(run_here, words, meant):
    outcome = run_here(*words)
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert f"hint: did you mean `{meant}`? " in outcome.stderr


def test_a_prompt_in_place_of_a_command_gets_a_hint(run_here):
    outcome = run_here("Tell me a story.")
    assert outcome.code == USAGE
    assert "hint: `metal-gen generate 'Tell me a story.'` answers a prompt" in outcome.stderr
    several = run_here("hi", "there", "--seed", "1").stderr
    assert "`metal-gen generate 'hi there' --seed 1` answers a prompt" in several
    assert "`metal-gen generate ...` answers a prompt" in run_here("long words " * 20).stderr
    assert 'metal-gen generate "..."' in run_here("chat", "hi").stderr


@pytest.mark.parametrize("word", INSTEAD)
def test_an_unsupported_command_gets_a_hint(run_here, word):
    assert word not in {*COMMANDS, *MEANT}
    outcome = run_here(word, "x")
    assert outcome.code == USAGE
    assert outcome.stderr == f"metal-gen: there is no command {word}\nhint: {INSTEAD[word]}\n"


def test_the_words_of_hints_for_commands_are_commands(run_here):
    assert not set(MEANT) & set(COMMANDS)
    for meant in set(MEANT.values()):
        assert run_here(*meant.split(), "--help").code == 0, meant


def test_a_group_takes_another_word_for_its_command(run_here):
    assert run_here("models", "download", "--help").stdout == run_here("models", "pull", "--help").stdout
    assert run_here("models", "ls").code == 0
    listed = run_here("models", "--help").stdout.decode().split("Commands")[1]
    for name in ("download", "inspect", "delete"):
        assert not re.search(rf"^\W*{name}\b", listed, re.MULTILINE)


BEFORE_A_COMMAND = {
    ("-m", "X", "hi"): "generate -m X hi",
    ("--prompt", "hi"): "generate --prompt hi",
    ("--model", "X", "generate", "a b"): "generate --model X 'a b'",
    ("--model", "chat", "hi"): "generate --model chat hi",
    ("--temp", "0.5", "hi"): "generate --temp 0.5 hi",
    ("-q", "--no-thinking", "chat", "--system", "Be brief"): "chat -q --no-thinking --system 'Be brief'",
    ("--seed=4", "batch", "a.jsonl"): "batch --seed=4 a.jsonl",
}


@pytest.mark.parametrize(("words", "meant"), BEFORE_A_COMMAND.items(), ids=lambda value: str(value))
def test_options_before_a_command_are_put_after_it(run_here, words, meant):
    outcome = run_here(*words)
    assert outcome.code == USAGE
    assert outcome.stderr.endswith(f"\nhint: options come after a command: `metal-gen {meant}`\n")


def test_an_option_of_a_group_comes_after_its_command(run_here):
    assert "hint: options come after a command; " in run_here("models", "--json").stderr
    assert "hint: options come after a command; " in run_here("--no-such", "hi").stderr
    assert f"hint: {HINTS['--port']}" in run_here("--port", "80").stderr


POSITIONALS = {
    ("batch", "--input", "a.jsonl", "--output", "b"): "`metal-gen batch INPUT -o OUTPUT`",
    ("batch", "a.jsonl", "b.jsonl"): "-o names the output",
    ("batch",): "as in `metal-gen batch prompts.jsonl -o texts.jsonl",
    ("convert", "a", "-o", "b"): "`metal-gen convert MODEL OUT`",
    ("convert", "a"): "as in `metal-gen convert ",
    ("plan", "a", "b"): "usage: metal-gen plan [OPTIONS] [MODEL]",
    ("info", "x"): "usage: metal-gen info [OPTIONS]",
}


@pytest.mark.parametrize(("words", "hint"), POSITIONALS.items(), ids=lambda value: str(value))
def test_arguments_and_options_that_are_mixed_up_are_explained(run_here, words, hint):
    outcome = run_here(*words)
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert hint in outcome.stderr.split("hint: ")[1]


def test_a_switch_that_is_negated_is_found_by_its_nearest_name(run_here):
    assert "did you mean --no-markdown?" in run_here("generate", "--no-markdwn", "hi").stderr
    assert "did you mean input?" not in run_here("batch", "--inpt", "x").stderr


def test_the_version_has_a_short_name_too(run_here):
    assert run_here("-V").stdout == run_here("--version").stdout


@pytest.mark.parametrize(
    "words", [("batch",), ("plan", "a", "b"), ("batch", "x", "--fsync-interval", "y"), ("convert", "a")]
)
def test_errors_of_typer_are_rewritten(words):
    with pytest.raises(typer.TyperException) as caught:
        parse(*words)
    error = usage_error(caught.value, PROGRAM, words)
    assert isinstance(error, UsageError)
    assert re.fullmatch(r"[a-z-].*[^.]", error.message)
