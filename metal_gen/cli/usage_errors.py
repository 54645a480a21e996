"""What typer refuses in a command line, said as this program says things, with the help that is meant."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from metal_gen.cli.names_elsewhere import HINTS
from metal_gen.errors import UsageError

COMPLETION_OPTIONS = ("--install-completion", "--show-completion")
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
# Of the names of two options; below it they have little in common but a syllable.
LEAST_LIKENESS = 0.7
EXTRA_ARGUMENTS = {
    "metal-gen generate": "a prompt is one argument: put it in quotes",
    "metal-gen chat": "messages are typed in the chat, or piped in; "
    'metal-gen generate "..." answers a single one',
}
PLAINER = (
    (r"^Missing argument '(.*)'", r"missing argument: \1"),
    (r"^Got unexpected extra argument\(s\) \((.*)\)$", r"unexpected argument: \1"),
    (r"^Option '(.*)' requires an argument", r"\1 needs a value"),
    (r"^Option '(.*)' does not take a value", r"\1 takes no value"),
    (
        r"^Invalid value for '(.*?)': (.*) is not in the range x>=(?:(\d+)(?:\.0)?)$",
        r"\1 must be at least \3: \2",
    ),
    (r"^Invalid value for '(.*?)': ('.*') is not a valid float.*", r"\1 must be a number: \2"),
    (r"^Invalid value for '(.*?)': ('.*') is not a valid int.*", r"\1 must be a whole number: \2"),
    (r"^Invalid value for '(.*?)': ", r"\1: "),
)


def refuse_shell_name(arguments: Sequence[str]) -> None:
    """Refuse a shell that is named, which typer would not look at.

    Raises:
        UsageError: Naming the shells there are.
    """
    if len(arguments) > 1 and arguments[0] in COMPLETION_OPTIONS:
        raise UsageError(
            f"{arguments[0]} takes no value: {arguments[1]}",
            f"it is for the shell that it is run in, which may be {', '.join(SHELLS)}",
        )


def usage_error(error: Any, program: Any, arguments: Sequence[str]) -> UsageError:
    """The error to show for one of typer's.

    Args:
        error: What typer raised.
        program: Its outermost command.
        arguments: After the program's name.
    """
    context = getattr(error, "ctx", None)
    path = _named_command(program, arguments) if context is None else context.command_path
    message = _plainly(error)
    if context is not None and hasattr(error, "possibilities"):
        # Typer itself proposes whatever has a few letters of it.
        guess = _nearest_option(error.option_name, context.command)
        return UsageError(message, f"{guess}{path} --help lists the options")
    # Of `--threads=4`; without a value the name itself is refused.
    if hint := HINTS.get(getattr(error, "option_name", "")):
        return UsageError(f"no such option: {error.option_name}", hint)
    if message.startswith("unexpected argument"):
        return UsageError(message, EXTRA_ARGUMENTS.get(path, f"{path} --help"))
    return UsageError(message, f"{path} --help")


def _plainly(error: Any) -> str:
    """What typer says, as this program says it: without capital letters, full stops and quotation marks."""
    message = str(error.format_message()).removesuffix(".")
    if hasattr(error, "possibilities"):
        return f"no such option: {error.option_name}"
    for pattern, plainer in PLAINER:
        message = re.sub(pattern, plainer, message)
    return message[:1].lower() + message[1:]


def _nearest_option(typed: str, command: Any) -> str:
    names = {name.lstrip("-"): name for parameter in command.params for name in parameter.opts}
    word = typed.lstrip("-")
    if len(word) < 2:
        return ""
    begun = [name for name in names if name.startswith(word)]
    near = begun if len(begun) == 1 else get_close_matches(word, names, n=1, cutoff=LEAST_LIKENESS)
    return f"did you mean {names[near[0]]}? " if near else ""


def _named_command(program: Any, arguments: Sequence[str]) -> str:
    """The command that the first words name."""
    words, command = ["metal-gen"], program
    for word in arguments:
        if word not in getattr(command, "commands", {}):
            break
        words.append(word)
        command = command.commands[word]
    return " ".join(words)
