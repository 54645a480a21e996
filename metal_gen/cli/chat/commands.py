"""The slash commands of a chat."""

import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metal_gen.cli.chat.report import describe, room
from metal_gen.cli.chat.session import ChatSession
from metal_gen.cli.chat.transcript_file import save_transcript
from metal_gen.cli.names_elsewhere import HINTS, SAME
from metal_gen.config.checks import with_value
from metal_gen.config.setting_info import SettingInfo
from metal_gen.config.settings import ARGUMENT_SOURCE, SETTINGS
from metal_gen.config.settings_file import shown_value
from metal_gen.config.sources import nearest
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.text.transcript import read_transcript

SLASH = "/"
# Settings that can change per answer. Log-probabilities are supported by `generate` only.
SETTABLE = [
    info.name
    for info in SETTINGS.values()
    if info.section in ("sampling", "generation")
    and info.name not in ("samples", "logprobs", "raw", "system")
]
NOTHING = '""'
# What ollama has after /set besides "system TEXT" and "parameter NAME VALUE".
OF_OLLAMA = {"think": "thinking true", "nothink": "thinking false"}


class EndOfChatError(Exception):
    """A command ends the chat."""


@dataclass(frozen=True)
class Command:
    """A slash command.

    Attributes:
        usage: Its syntax; the first word is the name.
        help: Help text.
        run: Runs the command; receives the text after the name.
        other_names: Aliases, known from other programs, each with its slash.
    """

    usage: str
    help: str
    run: Callable[[ChatSession, str], None]
    other_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the command, with its slash."""
        return self.usage.split()[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its aliases."""
        return self.name, *self.other_names


def is_command(text: str) -> bool:
    """Return whether a text is a command; a message that begins with a slash has two."""
    return text.startswith(SLASH) and not text.startswith(2 * SLASH)


def command_named(text: str) -> str | None:
    """Return the name of the command that a text begins with; None if there is none."""
    first = text.split(maxsplit=1)[:1]
    return next((name for command in COMMANDS for name in command.names if [name] == first), None)


def message_in(text: str) -> str:
    """Return the message in a typed text."""
    return text.removeprefix(SLASH) if text.startswith(2 * SLASH) else text


def run_command(session: ChatSession, text: str) -> None:
    """Run a command.

    Raises:
        UsageError: The command is unknown or fails; the conversation is unchanged.
        EndOfChatError: The command ends the chat.
    """
    name, _, argument = text.partition(" ")
    command = next((command for command in COMMANDS if name.strip() in command.names), None)
    if command is None:
        close = nearest(name, [name for command in COMMANDS for name in command.names])
        end = "" if close.endswith("?") else "."
        raise UsageError(
            f"there is no command {name}",
            f"{close}{end} To send a message that begins with a slash, type two slashes",
        )
    command.run(session, argument.strip())


def completions() -> dict[str, Sequence[str]]:
    """Return the words that can follow each command."""
    return {
        name: SETTABLE if command.run in (_set, _unset) else ()
        for command in COMMANDS
        for name in command.names
    }


def _system(session: ChatSession, text: str) -> None:
    conversation = session.conversation
    if text:
        conversation.set_system(None if text == NOTHING else text)
        session.console.note("the next message recomputes the whole conversation")
    elif conversation.system is None:
        session.console.write_reply("there is no system message")
    else:
        session.console.write_reply(conversation.system)


def _set(session: ChatSession, text: str) -> None:
    name, _, value = OF_OLLAMA.get(text, text.removeprefix("parameter ").lstrip()).partition(" ")
    if name == "system":
        _system(session, value.strip())
        return
    if not value:
        names = [_setting(name).name] if name else SETTABLE
        session.console.write_reply("\n".join(_shown(session, name) for name in names))
        return
    info = _setting(name)
    try:
        session.conversation.change(**{info.name: info.check.from_text(value.strip())})
    except ValueError as error:
        raise UsageError(f"{info.name} {with_value(error, repr(value.strip()))}", info.hint) from None
    session.console.detail(_shown(session, info.name))


def _unset(session: ChatSession, name: str) -> None:
    session.conversation.change_back(_setting(name).name)
    session.console.detail(_shown(session, _setting(name).name))


def _setting(typed: str) -> SettingInfo:
    elsewhere = f"--{typed.replace('_', '-')}"
    name = SAME.get(elsewhere, typed.replace("-", "_"))
    if name in SETTABLE:
        return SETTINGS[name]
    if name in SETTINGS and SETTINGS[name].section not in ("sampling", "generation"):
        flag = SETTINGS[name].flag
        raise UsageError(
            f"{name} cannot be changed during a chat", f"/save FILE, then start again with --load FILE {flag}"
        )
    raise UsageError(f"a chat has no setting {typed}", HINTS.get(elsewhere) or _nearest_setting(name))


def _nearest_setting(name: str) -> str:
    """Return a hint with the settings that begin with a name, or else the most similar one."""
    beginning = [setting for setting in SETTABLE if name and setting.startswith(name)]
    return f"did you mean {' or '.join(beginning)}?" if beginning else nearest(name, SETTABLE)


def _shown(session: ChatSession, name: str) -> str:
    settings = session.conversation.settings
    source = settings.source(name)
    return f"{name} = {shown_value(settings, name)} ({'/set' if source == ARGUMENT_SOURCE else source})"


def _undo(session: ChatSession, argument: str) -> None:
    taken = session.conversation.undo()
    session.console.note(f"taken back: {_excerpt(taken[0]['content'])}; {room(session.conversation)}")


def _retry(session: ChatSession, argument: str) -> None:
    if session.conversation.strategy.is_greedy:
        session.console.note("greedy: the answer will be the same; try /set temperature 0.8")
    session.retry()


def _forget(session: ChatSession, argument: str) -> None:
    try:
        turns = int(argument or "1")
    except ValueError:
        raise UsageError(f"/forget takes a number of turns: {argument!r}") from None
    session.conversation.forget(turns)
    what = "the oldest turn is" if turns == 1 else f"the {turns} oldest turns are"
    session.console.note(f"{what} forgotten; {room(session.conversation)}, recomputed with the next message")
    if session.saved is not None and session.saved.path is not None:
        file = session.saved.path
        session.console.note(f"the next turn takes them out of {file} too; /load {file} brings them back")


def _clear(session: ChatSession, argument: str) -> None:
    dropped = session.conversation.clear()
    kept = "; the system message stays" if session.conversation.system is not None else ""
    session.console.note(f"a new conversation: {len(dropped)} messages dropped{kept}")
    if session.saved is not None:
        session.saved.begin_other()


def _save(session: ChatSession, name: str) -> None:
    path = _file("/save", name)
    save_transcript(path, session.conversation.messages, "/save")
    if session.saved is not None:
        session.saved.expect(path)
    session.console.note(f"saved to {path}")


def _load(session: ChatSession, name: str) -> None:
    path, conversation = _file("/load", name), session.conversation
    before = conversation.messages
    conversation.messages = read_transcript(path)
    try:
        tokens = room(conversation)
    except MetalGenError:
        conversation.messages = before
        raise
    dropped = f"; the {len(before)} messages before are dropped" if before else ""
    session.console.note(f"{len(conversation.messages)} messages: {tokens}{dropped}")
    if session.saved is not None:
        session.saved.begin_other(path)


def _file(command: str, name: str) -> Path:
    if not name:
        raise UsageError(f"{command} needs the name of a file")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UsageError(f"{command} {name}: there is no home folder") from None


def _stats(session: ChatSession, argument: str) -> None:
    session.console.write_reply(describe(session.conversation, session.last))


def _help(session: ChatSession, argument: str) -> None:
    columns = shutil.get_terminal_size().columns
    width = max(len(command.usage) for command in COMMANDS) + 2
    lines = [
        textwrap.fill(f"{command.usage:{width}}{command.help}", columns, subsequent_indent=width * " ")
        for command in COMMANDS
    ]
    session.console.write_reply("\n".join([*lines, "", textwrap.fill(KEYS, columns)]))


def _exit(session: ChatSession, argument: str) -> None:
    raise EndOfChatError


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 40 else line[:37] + "...")


COMMANDS = (
    Command("/system TEXT", 'Set the system message; "" removes it; without text, show it.', _system),
    Command("/set NAME VALUE", "Change a setting, such as temperature 0.6; without a value, show it.", _set),
    Command("/unset NAME", "Reset a setting.", _unset),
    Command("/retry", "Answer the last message again, with another seed.", _retry),
    Command("/undo", "Remove the last message and its answer.", _undo),
    Command("/forget N", "Drop the N oldest turns to make room; 1 without a number.", _forget),
    Command("/clear", "Start a new conversation, same settings; also /new.", _clear, ("/new", "/reset")),
    Command("/save FILE", "Save the conversation as JSON.", _save),
    Command("/load FILE", "Continue a saved conversation instead of this one.", _load),
    Command("/stats", "Show token counts, speed and the room that is left.", _stats),
    Command("/help", "Show this help; also /?.", _help, ("/?",)),
    Command("/exit", "End the chat; also /quit and /bye.", _exit, ("/quit", "/bye")),
)
KEYS = (
    "Ctrl-C stops an answer and keeps what it said so far. Ctrl-D ends the chat. Alt-Enter, Ctrl-J or a "
    'backslash before Enter starts another line; so does Enter in a block between """ and """. '
    "To send a message that begins with /, type //."
)
