"""Rewrites typer's command-line errors in metal-gen's style, with a hint to the right help."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from metal_gen.cli.commands_elsewhere import shown_command
from metal_gen.cli.completion import SHELLS
from metal_gen.cli.examples import examples_in
from metal_gen.cli.names_elsewhere import SAME, hints_of
from metal_gen.cli.switch_values import hint_for_mixture, missing_value
from metal_gen.errors import UsageError

COMPLETION_OPTIONS = ("--install-completion", "--show-completion")
# Similarity of option names; less similar names only share a syllable.
LEAST_LIKENESS = 0.7
EXTRA_ARGUMENTS = {
    "metal-gen generate": "a prompt is one argument: put it in quotes",
    "metal-gen chat": "messages are typed in the chat, or piped in; "
    '`metal-gen generate "..."` answers a single one',
    "metal-gen batch": "there is one INPUT, and -o names the output; for several inputs: "
    "`cat *.jsonl | metal-gen batch - -o OUTPUT`",
    "metal-gen bench": "--model names the model",
    "metal-gen rank": 'as in `metal-gen rank --prompt "..." --choice A --choice B`',
}
PLAINER = (
    (r"^Missing argument '(.*)'", r"missing argument: \1"),
    (r"^Got unexpected extra argument\(s\) \((.*)\)$", r"unexpected argument: \1"),
    (r"^Option '(.*)' requires an argument", r"\1 needs a value"),
    (r"^Option '(.*)' does not take a value", r"\1 takes no value"),
    (
        r"^Invalid value for '(.*?)': (.*) is not in the range x>=(?:(\d+)(?:\.0)?)$",
        r"\1 must be at least \3, not \2",
    ),
    (r"^Invalid value for '(.*?)': ('.*') is not a valid float.*", r"\1 must be a number, not \2"),
    (r"^Invalid value for '(.*?)': ('.*') is not a valid int.*", r"\1 must be a whole number, not \2"),
    (r"^Invalid value for '(.*?)': ", r"\1: "),
)


def refuse_shell_name(arguments: Sequence[str]) -> None:
    """Refuse a shell name as a value, which typer would ignore.

    Raises:
        UsageError: A shell is named; the hint lists the supported ones.
    """
    if len(arguments) > 1 and arguments[0] in COMPLETION_OPTIONS:
        raise UsageError(
            f"{arguments[0]} takes no value: {arguments[1]}",
            f"it is for the shell that runs it: {', '.join(SHELLS[:-1])} or {SHELLS[-1]}",
        )


def usage_error(error: Any, program: Any, arguments: Sequence[str]) -> UsageError:
    """Return the error to show for an error of typer.

    Args:
        error: The error raised by typer.
        program: The top-level command.
        arguments: Arguments after the program's name.
    """
    context = getattr(error, "ctx", None)
    path = _named_command(program, arguments) if context is None else context.command_path
    message = _plainly(error)
    name = getattr(error, "option_name", "")
    hints = hints_of(path.rpartition(" ")[2])
    if context is not None and hasattr(error, "possibilities"):
        return UsageError(message, hints.get(name) or _instead_of_option(name, context, program, arguments))
    # For `--threads=4`; without a value the hidden option refuses the name itself.
    if name in hints and "takes no value" in message:
        return UsageError(f"no such option: {name}", hints[name])
    command = _command_of(path, program) if context is None else context.command
    hint = hint_for_mixture(arguments, command, message)
    if message.endswith(" needs a value"):
        hint = hint or missing_value(name, command)
    if hint:
        return UsageError(message, hint)
    if message.startswith("unexpected argument"):
        return UsageError(message, EXTRA_ARGUMENTS.get(path) or _usage(path, context))
    if context is not None and message.startswith("missing argument"):
        examples = examples_in(getattr(context.command, "epilog", None) or "")
        return UsageError(message, f"as in `{examples[0]}`" if examples else f"{path} --help")
    return UsageError(message, f"{path} --help lists the options")


def _instead_of_option(name: str, context: Any, program: Any, arguments: Sequence[str]) -> str:
    """Return the hint for an option that a command does not have."""
    path = context.command_path
    lists = f"{path} --help lists the options"
    if not hasattr(context.command, "commands"):
        # Typer's own suggestions include any option that shares a few letters.
        return _nearest_option(name, context.command) + lists
    if path == "metal-gen":
        takes_value = _options_of_commands(program)
        if name in takes_value:
            words = _command_first(arguments, program, takes_value)
            return f"options come after a command: {shown_command(words)}"
    return f"options come after a command; {path} --help lists the commands"


def _options_of_commands(program: Any) -> dict[str, bool]:
    """Return the options of all commands, by every name, with whether they take a value."""
    from metal_gen.cli.output.option_page import every_option

    takes_value = {}
    for found in every_option(program, program.make_context("metal-gen", [], resilient_parsing=True)):
        names = [other for other, name in SAME.items() if name == found.param.name]
        for name in (*found.param.opts, *found.param.secondary_opts, *names):
            takes_value[name] = not found.param.is_flag and not found.param.count
    return takes_value


def _command_first(arguments: Sequence[str], program: Any, takes_value: Mapping[str, bool]) -> Sequence[str]:
    """Return the command line with its command before the options; `generate` if it has no command."""
    before = ["", *arguments]
    for place, word in enumerate(arguments):
        if word in program.commands and not takes_value.get(before[place], False):
            return ["metal-gen", word, *arguments[:place], *arguments[place + 1 :]]
    return ["metal-gen", "generate", *arguments]


def _usage(path: str, context: Any) -> str:
    pieces = context.command.collect_usage_pieces(context)
    return f"usage: {' '.join([path, *pieces])}"


def _plainly(error: Any) -> str:
    """Return typer's message in metal-gen's style: lower case, without full stops and quotation marks."""
    message = str(error.format_message()).removesuffix(".")
    if hasattr(error, "possibilities"):
        return f"no such option: {error.option_name}"
    for pattern, plainer in PLAINER:
        message = re.sub(pattern, plainer, message)
    return message[:1].lower() + message[1:]


def _nearest_option(typed: str, command: Any) -> str:
    options = [param for param in command.params if param.param_type_name == "option"]
    names = {name.lstrip("-"): name for param in options for name in (*param.opts, *param.secondary_opts)}
    word = typed.lstrip("-")
    if len(word) < 2:
        return ""
    begun = [name for name in names if name.startswith(word)]
    near = begun if len(begun) == 1 else get_close_matches(word, names, n=1, cutoff=LEAST_LIKENESS)
    return f"did you mean {names[near[0]]}? " if near else ""


def _command_of(path: str, program: Any) -> Any:
    """Return the command with this path, which begins with the name of the program."""
    command = program
    for word in path.split()[1:]:
        command = command.commands[word]
    return command


def _named_command(program: Any, arguments: Sequence[str]) -> str:
    """Return the command that the first words name."""
    words, command = ["metal-gen"], program
    for word in arguments:
        if word not in getattr(command, "commands", {}):
            break
        words.append(word)
        command = command.commands[word]
    return " ".join(words)
