"""Tests help: its examples are valid commands, and its topics are pages of the manual."""

import plistlib
import re
import shlex
import sys

import pytest
import typer
from cli_process import ROOT, run_in_terminal
from rich.text import Text

from metal_gen.cli import command_help
from metal_gen.cli.app import app
from metal_gen.cli.commands_elsewhere import INSTEAD
from metal_gen.cli.examples import HEADING
from metal_gen.cli.help_topics import ALIASES, find_topic, mentions, topics, with_commands_for_links
from metal_gen.cli.input.setting_options import settings_in_force
from metal_gen.cli.names_elsewhere import HINTS
from metal_gen.cli.output.option_page import PAGE_OF_COMMAND, PAGE_OF_OPTION
from metal_gen.config.checks import Flag
from metal_gen.config.settings import SETTINGS
from metal_gen.errors import ExitCode

pytest_plugins = ("fixtures_cli",)

USAGE = 2
PROGRAM = typer.main.get_command(app)
PAGES = [ROOT / "README.md", *sorted(topics().values())]


def commands(group=PROGRAM, path=()):
    """Return every command and group, by the words that name it."""
    yield path, group
    for name in getattr(group, "commands", {}):
        yield from commands(group.commands[name], (*path, name))


COMMANDS = dict(commands())


def examples(text):
    """Return the words of every call of the program in some shell commands, as a shell splits them."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>;&()")
        lexer.whitespace_split = True
        call = None
        for word in lexer:
            if "metal-gen " in word:
                yield from examples(word.strip("$()"))
            elif call is not None and set(word) <= set("|<>;&()"):
                # A number before `>` names the redirected stream.
                yield call[:-1] if word[0] == ">" and call[-1].isdigit() else call
                call = None
            elif call is not None:
                call.append(word)
            elif word == "llm":
                break  # To which metal-gen is a model.
            elif word.rpartition("/")[2] == "metal-gen":
                call = []
        if call is not None:
            yield call


def read(words):
    """Parse words with the command that they name, and check the settings among them."""
    context, command, names = PROGRAM.make_context("metal-gen", list(words)), PROGRAM, []
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
        names.append(name)
    if "config" in context.params:
        settings_in_force(context.params)
    return tuple(names)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_examples_of_a_command_can_be_run(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    heading, *lines = COMMANDS[path].epilog.split("\n\n")
    assert heading == HEADING
    assert lines
    for line in lines:
        assert Text.from_markup(line).plain == line
        calls = [read(words) for words in examples(line)]
        assert calls, line
        assert all(call[: len(path)] == path for call in calls), line


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_explained(path):
    context = typer.Context(COMMANDS[path])
    assert COMMANDS[path].help or path == ()
    assert [param.name for param in COMMANDS[path].get_params(context) if not param.help] == []


def test_the_job_for_launchd_is_a_command():
    job = plistlib.loads((ROOT / "configs" / "launchd.plist").read_bytes())
    _, _, program, *words = job["ProgramArguments"]
    assert program.endswith("/metal-gen")
    assert read(words) == ("batch",)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_show_commands_that_there_are(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    shown = [block for kind, block in blocks if kind == "sh"]
    shown += [block.replace("$ metal-gen", "metal-gen") for kind, block in blocks if kind == "console"]
    for block in shown:
        for words in examples(block):
            read(words)


def test_a_topic_is_its_file_in_a_pipe(run_here):
    for name, path in topics().items():
        assert run_here("help", name).stdout == path.read_bytes()
    assert {"sampling", "memory", "batch", "exit-codes"} <= set(topics())
    listed = run_here("help").stdout.decode().splitlines()
    assert [line.split()[0] for line in listed[1:]] == list(topics())


def test_other_words_for_a_topic(run_here):
    assert set(ALIASES.values()) <= set(topics())
    assert not set(ALIASES) & {*topics(), *COMMANDS}
    for word in ("samplers", "cache", "batches", "codes", "stdin", "cron", "performance"):
        assert run_here("help", word).stdout.startswith(topics()[ALIASES[word]].read_bytes()[:40])


def test_a_topic_is_formatted_at_a_terminal(tmp_path):
    outcome = run_in_terminal("help", "exit-codes", home=tmp_path, attached=("stdout",), columns=40)
    lines = [line.rstrip() for line in re.sub("\x1b\\[[0-9;]*m", "", outcome.screen.decode()).splitlines()]
    assert max(map(len, lines)) <= 40
    assert "| code | meaning |" not in lines
    assert any(line.split() == ["0", "done"] for line in lines)


@pytest.mark.parametrize("columns", ["40", "100"])
def test_a_group_without_a_command_shows_its_help_to_a_person_on_stderr(run_here, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(command_help, "is_terminal", lambda stream: stream is sys.stderr)
    for words in ((), ("models",)):
        outcome = run_here(*words)
        assert (outcome.code, outcome.stdout) == (USAGE, b"")
        assert outcome.stderr.lstrip().startswith("Usage: metal-gen")
        assert len(outcome.stderr.splitlines()) > 10


def test_a_group_without_a_command_puts_no_help_into_a_log(run_here):
    for words in ((), ("models",)):
        outcome = run_here(*words)
        assert (outcome.code, outcome.stdout) == (USAGE, b"")
        path = " ".join(["metal-gen", *words])
        lines = ["metal-gen: no command was given", f"hint: {path} --help lists the commands"]
        assert outcome.stderr.splitlines() == lines


def test_help_on_a_command_is_its_own(run_here):
    assert run_here("help", "models", "pull").stdout == run_here("models", "pull", "--help").stdout
    assert run_here("help", "plan").stdout == run_here("plan", "--help").stdout
    assert run_here("help", "models", "download").stdout == run_here("models", "pull", "--help").stdout


NOT_FOUND = {
    "samplng": "did you mean sampling?",
    "xylophone": "metal-gen help lists the pages",
    "caffeinate": "it is mentioned in batch: metal-gen help batch",
    "reranker caffeinate": "name one page or one option: metal-gen help reranker",
    "core ML": INSTEAD["core-ml"],
    "batch --resum": "did you mean --resume? metal-gen batch --help lists the options",
    "models pull nonsense": "metal-gen models pull --help lists the options",
    "999": "metal-gen help lists the pages",
    "exit 99": "name one page or one option: metal-gen help exit",
    "pull": "did you mean metal-gen help models pull?",
    "serve": INSTEAD["serve"],
    "unknown sampling": "name one page or one option: metal-gen help sampling",
    "gpu": HINTS["--gpu"],
    "no stream": HINTS["--no-stream"],
}


@pytest.mark.parametrize(("words", "hint"), NOT_FOUND.items(), ids=lambda value: value)
def test_help_on_nothing_names_what_is_near(run_here, words, hint):
    outcome = run_here("help", *words.split())
    assert (outcome.code, outcome.stdout) == (USAGE, b"")
    assert outcome.stderr.splitlines()[1] == f"hint: {hint}"


def test_pages_that_mention_words_have_all_of_them_and_guides_come_first():
    pages = mentions(["the", "bundled", "model"])
    texts = [topics()[page].read_text(encoding="utf-8") for page in pages]
    assert pages
    assert all("bundled" in text and "model" in text for text in texts)
    is_reference = [topics()[page].parent.name == "reference" for page in pages]
    assert is_reference == sorted(is_reference)
    assert mentions(["bund"]) == mentions(["bundled"])
    assert mentions(["bund"], whole=True) == []


@pytest.mark.parametrize("words", ["6", "130", "exit 6", "code 6", "exit code 6", "status codes"])
def test_an_exit_code_is_a_topic(words):
    assert find_topic(words.split()) == topics()["exit-codes"]


@pytest.mark.parametrize("words", ["16 GB", "16GB", "64gib"])
def test_the_memory_of_a_mac_is_a_topic(words):
    assert find_topic(words.split()) == topics()["which-model"]


def test_a_number_that_is_no_exit_code_is_not_a_topic():
    assert find_topic(["16"]) is None


def test_every_exit_code_has_a_row_of_its_own():
    rows = re.findall(r"^\| (\d+) \|", topics()["exit-codes"].read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(row) for row in rows] == list(ExitCode)


@pytest.mark.parametrize(
    ("word", "page"),
    [
        ("json-schema", "structured-output"),
        ("crash", "troubleshooting"),
        ("Lora", "adapters"),
        ("journal", "batch"),
    ],
)
def test_a_common_word_finds_its_page(word, page):
    assert find_topic([word]) == topics()[page]


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("where are my models", "models"),
        ("delete a model", "models"),
        ("how do I use a proxy", "models"),
        ("too slow", "speed"),
        ("my Mac", "which-model"),
        ("function calling", "tool-calls"),
        ("change the default model", "settings"),
        ("loops", "troubleshooting"),
    ],
)
def test_a_question_finds_its_page(words, page):
    assert find_topic(words.split()) == topics()[page]


@pytest.mark.parametrize("words", ["what is", "the", "s"])
def test_words_that_say_nothing_are_not_a_topic(words):
    assert find_topic(words.split()) is None


@pytest.mark.parametrize("words", ["max tokens", "prompt file", "top p", "system prompt", "batch size"])
def test_an_option_is_found_without_its_hyphens(run_here, words):
    outcome = run_here("help", *words.split())
    assert outcome.code == 0
    assert outcome.stdout == run_here("help", "--" + words.replace(" ", "-")).stdout


def test_several_words_are_a_page_even_if_the_first_is_a_setting(run_here):
    assert run_here("help", "model", "family").stdout == topics()["source"].read_bytes()
    assert "--model MODEL" in run_here("help", "model").stdout.decode()


def test_a_section_finds_its_page():
    assert find_topic(["every", "night"]) == topics()["batch"]
    # A comment in a block of commands is not a heading.
    assert find_topic("on both: Ray does not test clusters on macOS".split()) is None


def test_an_option_of_one_command_is_explained_for_that_command(run_here):
    assert run_here("help", "batch", "--check").stdout == run_here("help", "check").stdout
    text = run_here("help", "generate", "top-p").stdout.decode()
    assert re.search(r"^commands +generate$", text, re.MULTILINE)
    assert run_here("help", "generate", "--seed").code == 0


def test_an_option_that_is_not_a_setting_names_its_page(run_here):
    for name, page in (
        ("resume", "batch"),
        ("load", "chat"),
        ("group-size", "models"),
        ("--jsonl", "json"),
        ("schema", "structured-output"),
        ("break-loops", "structured-output"),
    ):
        assert f"metal-gen help {page}\n" in run_here("help", name).stdout.decode()
    assert {*PAGE_OF_OPTION.values(), *PAGE_OF_COMMAND.values()} <= set(topics())
    assert set(PAGE_OF_COMMAND) == set(PROGRAM.commands) - {"help"}


def test_links_between_pages_are_commands_at_a_terminal():
    shown = with_commands_for_links("see [sampling](../concepts/sampling.md) and [Ray](https://docs.ray.io).")
    assert shown == "see sampling (`metal-gen help sampling`) and [Ray](https://docs.ray.io)."
    shown = with_commands_for_links("what to draw ([the sampling](../concepts/sampling.md)) and more")
    assert shown == "what to draw (`metal-gen help sampling`) and more"


def long_names(command):
    params = command.get_params(typer.Context(command))
    return {name for param in params if not param.hidden for name in param.opts if name.startswith("--")}


def test_every_option_is_a_topic(run_here):
    names = {name: path for path, command in COMMANDS.items() if path for name in long_names(command)}
    del names["--help"]
    assert len(names) > 60
    for name, path in names.items():
        text = run_here("help", name).stdout.decode()
        assert name in text.splitlines()[0], name
        assert " ".join(path) in text
        if not find_topic([name[2:]]) and name[2:] not in PROGRAM.commands:
            assert run_here("help", name[2:]).stdout.decode() == text


def test_every_setting_is_a_topic_under_all_its_names(run_here):
    for info in SETTINGS.values():
        text = run_here("help", info.name).stdout.decode()
        assert text == run_here("help", info.variable).stdout.decode()
        assert text == run_here("help", info.name.replace("_", "-")).stdout.decode()
        for part in (info.help, f"[default: {info.shown_default}]", f"{info.section}.{info.key} = "):
            assert part in text, info.name
        assert isinstance(info.check, Flag) or str(info.check) in text
        more = re.findall(r"metal-gen help ([\w-]+)$", text, re.MULTILINE)
        assert more
        assert set(more) <= set(topics())


def test_an_option_that_differs_between_commands_is_explained_for_each(run_here):
    text = run_here("help", "output").stdout.decode()
    for command in ("generate", "batch", "bench"):
        assert re.search(rf"^commands +{command}$", text, re.MULTILINE)


def test_an_option_is_found_by_its_short_name_and_by_that_of_another_program(run_here):
    assert run_here("help", "-n").stdout == run_here("help", "max-tokens").stdout
    assert run_here("help", "temp").stdout == run_here("help", "--temperature").stdout
