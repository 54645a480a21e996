"""What other programs call an option is taken where it means the same, and explained where it does not."""

import re

import pytest
import typer

from metal_gen.cli.app import app
from metal_gen.cli.names_elsewhere import HINTS, SAME
from metal_gen.cli.usage_errors import usage_error
from metal_gen.errors import UsageError

pytest_plugins = ("fixtures_cli",)

USAGE = 2
PROGRAM = typer.main.get_command(app)
COMMANDS = {name: PROGRAM.commands[name] for name in PROGRAM.commands}
LEAVES = [command for command in COMMANDS.values() if not hasattr(command, "commands")]


def parse(*words):
    """The parameters that a command line comes to."""
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
    for hint in HINTS.values():
        for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", re.sub(r"`hf [^`]*`", "", hint)):
            assert option in options, hint
        for path in re.findall(r"`metal-gen (\w+)", hint):
            assert path in COMMANDS


def test_a_number_of_tokens_is_no_model(run_here, tmp_path):
    assert "hint: -n is the number of tokens" in run_here("generate", "-m", "100", "-p", "x").stderr
    (tmp_path / "100").mkdir()
    assert "-n is" not in run_here("generate", "-m", "100", "-p", "x").stderr


def test_a_command_keeps_its_own_names():
    assert parse("batch", "x.jsonl", "--batch-size", "4")["batch_size"] == "4"


def test_other_names_are_not_shown_and_not_completed(run_here):
    text = run_here("generate", "--help").stdout.decode().split("Examples:")[0]
    for name in (*SAME, *HINTS):
        assert not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text), name


MEANT = {
    ("list",): "metal-gen models list",
    ("ls",): "metal-gen models list",
    ("pull", "Qwen/Qwen3-0.6B"): "metal-gen models pull",
    ("rm", "x"): "metal-gen models rm",
    ("version",): "metal-gen --version",
    ("run", "Tell me a story"): "metal-gen generate",
    ("models", "lst"): "metal-gen models list",
    ("models", "delete"): "metal-gen models rm",
}


@pytest.mark.parametrize(("words", "meant"), MEANT.items(), ids=lambda value: str(value))
def test_a_command_of_another_program_is_explained(run_here, words, meant):
    outcome = run_here(*words)
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert f"hint: did you mean `{meant}`? " in outcome.stderr


def test_a_prompt_in_place_of_a_command_is_told_where_it_belongs(run_here):
    outcome = run_here("Tell me a story.")
    assert outcome.code == USAGE
    assert 'metal-gen generate "..."' in outcome.stderr
    assert 'metal-gen generate "..."' in run_here("chat", "hi").stderr


def test_the_version_has_a_short_name_too(run_here):
    assert run_here("-V").stdout == run_here("--version").stdout


@pytest.mark.parametrize(
    "words", [("batch",), ("plan", "a", "b"), ("batch", "x", "--fsync-interval", "y"), ("convert", "a")]
)
def test_what_typer_says_is_said_as_this_program_does(words):
    with pytest.raises(typer.TyperException) as caught:
        parse(*words)
    error = usage_error(caught.value, PROGRAM, words)
    assert isinstance(error, UsageError)
    assert re.fullmatch(r"[a-z-].*[^.]", error.message)
