"""The loop of a chat, with a user at a terminal or with a pipe."""

import sys
from typing import TYPE_CHECKING

from metal_gen.cli.chat.commands import (
    EndOfChatError,
    command_named,
    completions,
    is_command,
    message_in,
    run_command,
)
from metal_gen.cli.chat.input import MARK, piped_messages, terminal
from metal_gen.cli.chat.interrupts import Interrupts
from metal_gen.cli.chat.report import choices, choices_in_a_pipe
from metal_gen.cli.chat.session import ChatSession
from metal_gen.cli.chat.transcript_file import SavedConversation
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import DoesNotFitError, MetalGenError

if TYPE_CHECKING:
    from metal_gen.generation.conversation import Conversation

ENDS_WITH_INPUT = "the chat ends when its input ends"


def talk(
    conversation: "Conversation", console: Console, saved: SavedConversation, *, keeps_history: bool
) -> None:
    """Chat with a user until they end it; the conversation is saved after each answer."""
    source = terminal(console, completions(), keeps_history=keeps_history)
    console.detail("/help lists the commands; Ctrl-D ends the chat")
    with Interrupts() as interrupts:
        session = ChatSession(conversation, console, interrupts, saved=saved)
        while True:
            try:
                with interrupts.reading():
                    text = source.read()
                if text.strip():
                    heed(session, text)
            except KeyboardInterrupt:
                console.note("Ctrl-D or /exit ends the chat")
            except (EOFError, EndOfChatError):
                return


def heed(session: ChatSession, text: str) -> None:
    """Run a command or answer a message; report errors and continue the chat."""
    try:
        if is_command(text):
            run_command(session, text)
        else:
            session.say(message_in(text))
    except MetalGenError as error:
        hint = error.hint
        if isinstance(error, DoesNotFitError):
            hint = choices(session.conversation, getattr(error, "tokens", 0))
        session.console.error(error.message, hint)


def answer_pipe(
    conversation: "Conversation", console: Console, mark: bytes, saved: SavedConversation
) -> None:
    """Answer each message of a pipe; the conversation is saved after each answer.

    Text from elsewhere must not run commands, such as one that writes a file. So anything that looks like a
    command is sent as a message, with one warning.
    """

    def end_answer(answer: str) -> None:
        if mark != MARK or not answer.endswith("\n"):
            console.end_sample(mark)

    session = ChatSession(conversation, console, Interrupts(), choices_in_a_pipe, saved, end_answer)
    has_warned = False
    for message in piped_messages(sys.stdin.buffer, mark):
        if not has_warned and (name := command_named(message)) is not None:
            has_warned = True
            console.warn(f"{name} is sent to the model: in a pipe nothing is a command", ENDS_WITH_INPUT)
        session.say(message)
