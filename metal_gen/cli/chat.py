"""`metal-gen chat`: a conversation, at a terminal or from a pipe."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metal_gen.cli.chat_commands import EndOfChatError, completions, is_command, message_in, run_command
from metal_gen.cli.chat_input import BareTerminal, MessageSource, piped_messages
from metal_gen.cli.chat_report import CHOICES
from metal_gen.cli.chat_session import ChatSession
from metal_gen.cli.console import Console
from metal_gen.cli.interrupts import Interrupts
from metal_gen.cli.model_preparation import prepare_model
from metal_gen.cli.report import report_start
from metal_gen.cli.setting_options import (
    CACHE,
    SAMPLING,
    STOPPING,
    ConfigOption,
    GreedyOption,
    QuietOption,
    VerboseOption,
    setting_option,
    settings_in_force,
)
from metal_gen.cli.transcript_file import require_place, save_transcript
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.errors import DoesNotFitError, MetalGenError, UsageError
from metal_gen.transcript import read_transcript

if TYPE_CHECKING:
    from metal_gen.conversation import Conversation
    from metal_gen.messages import Message

TRANSCRIPT = "Conversation"
NEWLINE, NUL = b"\n", b"\0"


def chat(
    context: typer.Context,
    model: Annotated[str | None, setting_option("model", "MODEL", None, "-m")] = None,
    config: ConfigOption = None,
    system: Annotated[str | None, setting_option("system", "TEXT", TRANSCRIPT)] = None,
    load: Annotated[
        Path | None,
        typer.Option(
            "--load", metavar="FILE", help="Go on with a saved conversation.", rich_help_panel=TRANSCRIPT
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="FILE",
            help="Save the conversation when it ends, however it does.",
            rich_help_panel=TRANSCRIPT,
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option(
            "--null",
            "-0",
            help="In a pipe, messages and answers end with NUL bytes, not newlines.",
            rich_help_panel=TRANSCRIPT,
        ),
    ] = False,
    history: Annotated[
        bool,
        typer.Option(
            "--history/--no-history",
            help="Keep what is typed for later chats.",
            rich_help_panel=TRANSCRIPT,
        ),
    ] = True,
    thinking: Annotated[
        bool | None,
        typer.Option("--thinking/--no-thinking", help=SETTINGS["thinking"].help, show_default=False),
    ] = None,
    max_tokens: Annotated[str | None, setting_option("max_tokens", "N", STOPPING, "-n")] = None,
    greedy: GreedyOption = False,
    temperature: Annotated[str | None, setting_option("temperature", "T", SAMPLING)] = None,
    top_k: Annotated[str | None, setting_option("top_k", "K", SAMPLING)] = None,
    top_p: Annotated[str | None, setting_option("top_p", "P", SAMPLING)] = None,
    min_p: Annotated[str | None, setting_option("min_p", "P", SAMPLING)] = None,
    repetition_penalty: Annotated[str | None, setting_option("repetition_penalty", "R", SAMPLING)] = None,
    seed: Annotated[str | None, setting_option("seed", "S", SAMPLING)] = None,
    stop: Annotated[list[str] | None, setting_option("stop", "TEXT", STOPPING)] = None,
    max_seq_len: Annotated[str | None, setting_option("max_seq_len", "N", CACHE)] = None,
    cache_dtype: Annotated[str | None, setting_option("cache_dtype", "DTYPE", CACHE)] = None,
    model_dtype: Annotated[str | None, setting_option("model_dtype", "DTYPE", CACHE)] = None,
    chunk_size: Annotated[str | None, setting_option("chunk_size", "N", CACHE)] = None,
    compile: Annotated[str | None, setting_option("compile", "auto|on|off")] = None,
    blas: Annotated[str | None, setting_option("blas", "LIBRARY")] = None,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Talk with a model: each message computes what is new of the conversation, and no more.

    At a terminal, /help lists the commands. From a pipe, each line is a message, and nothing is a command.
    """
    console = Console(quiet=quiet, verbosity=verbose)
    console.require_stdout()
    if sys.stdin is None:
        raise UsageError("standard input is closed: messages come from there")
    settings = settings_in_force(context.params)
    messages = [] if load is None else read_transcript(load)
    if save is not None:
        require_place(save, "--save")
    conversation = _begin(settings, messages, console)
    # The process is about to end: nothing of the model need be freed before.
    context.find_root().obj = conversation
    with ExitStack() as at_end:
        if save is not None:
            at_end.callback(_save_at_end, conversation, save, console)
        if sys.stdin.isatty():
            _talk(conversation, console, keeps_history=history)
        else:
            _answer_pipe(conversation, console, NUL if null else NEWLINE)


def _begin(settings: Settings, messages: "list[Message]", console: Console) -> "Conversation":
    """Load the model; a saved conversation has its own system message, unless `--system` replaces it."""
    from metal_gen.backend import require_mlx

    require_mlx(settings.blas)

    from metal_gen.background import Background
    from metal_gen.conversation import Conversation, require_chat

    prepared = prepare_model(settings, console)
    require_chat(prepared.checkpoint, prepared.settings)
    for notice in prepared.notices:
        console.warn(notice)
    report_start(prepared, console)
    loading = Background(prepared.load)
    prepared.checkpoint.tokenizer.expect_many_texts()
    conversation = Conversation(loading.result(), messages)
    if messages and settings.source("system") == SETTINGS["system"].flag:
        conversation.set_system(settings.system)
    return conversation


def _talk(conversation: "Conversation", console: Console, *, keeps_history: bool) -> None:
    """Converse with a person until there is no more to say."""
    source = terminal(console, keeps_history=keeps_history)
    console.detail("/help lists the commands; Ctrl-D ends the chat")
    with Interrupts() as interrupts:
        session = ChatSession(conversation, console, interrupts)
        while True:
            try:
                with interrupts.reading():
                    text = source.read()
                if text.strip():
                    heed(session, text)
            except KeyboardInterrupt:
                console.detail("Ctrl-D or /exit ends the chat")
            except (EOFError, EndOfChatError):
                return


def heed(session: ChatSession, text: str) -> None:
    """Do what was typed; what cannot be done is said, and the chat goes on."""
    try:
        if is_command(text):
            run_command(session, text)
        else:
            session.say(message_in(text))
    except MetalGenError as error:
        session.console.error(error.message, _way_out(error))


def _way_out(error: MetalGenError) -> str:
    """The hint of an error in the words of a chat."""
    from metal_gen.checkpoint.chat_template import MessagesRefusedError

    if isinstance(error, DoesNotFitError):
        return CHOICES
    if isinstance(error, MessagesRefusedError):
        return "/undo takes the last turn back, /system changes the system message"
    return error.hint


def terminal(console: Console, *, keeps_history: bool) -> MessageSource:
    """The line editor where there is something to draw on, else the terminal as it is."""
    if not console.stderr_is_terminal or os.environ.get("TERM", "dumb") == "dumb":
        return BareTerminal()

    from metal_gen.cli.line_editor import LineEditor, open_history

    path = None
    try:
        path = open_history(os.environ) if keeps_history else None
    except OSError as error:
        console.detail(f"what is typed is not kept for later chats: {error.filename}: {error.strerror}")
    return LineEditor(path, completions())


def _answer_pipe(conversation: "Conversation", console: Console, mark: bytes) -> None:
    """Answer one message after the other."""
    session = ChatSession(conversation, console, Interrupts())
    for message in piped_messages(sys.stdin.buffer, mark):
        answer = session.say(message)
        if mark == NUL or not answer.endswith("\n"):
            console.end_sample(mark)


def _save_at_end(conversation: "Conversation", path: Path, console: Console) -> None:
    if conversation.messages:
        save_transcript(path, conversation.messages, "--save")
        console.note(f"saved to {path}")
