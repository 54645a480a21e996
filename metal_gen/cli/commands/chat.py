"""`metal-gen chat`: a conversation, at a terminal or from a pipe."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metal_gen.cli.chat.input import MARK, NUL_MARK, can_be_drawn_on, unseen_typing
from metal_gen.cli.chat.loop import answer_pipe, talk
from metal_gen.cli.chat.report import room
from metal_gen.cli.chat.transcript_file import SavedConversation, require_no_other, require_place
from metal_gen.cli.input.model_preparation import (
    CHAT_TOKENS,
    note_bundled_model,
    prepare_model,
    require_mlx_for,
)
from metal_gen.cli.input.setting_options import (
    CONSTRAINT_SETTINGS,
    SAMPLING_SETTINGS,
    SPECULATION_SETTINGS,
    STOPPING_SETTINGS,
    QuietOption,
    VerboseOption,
    settings_in_force,
    with_settings,
)
from metal_gen.cli.output.report import report_start
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import LOADING, ProgressBar
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.errors import UsageError
from metal_gen.text.transcript import read_transcript

if TYPE_CHECKING:
    from metal_gen.generation.conversation import Conversation
    from metal_gen.text.messages import Message

# Shown at the end of the help.
EXAMPLES = (
    "metal-gen chat --model Qwen/Qwen3-0.6B",
    'metal-gen chat --model Qwen/Qwen3-0.6B --system "Answer briefly." --save talk.json',
    "metal-gen chat --load talk.json --save talk.json",
)
TRANSCRIPT = "Conversation"


@with_settings(
    *("model", "adapter", "system", "thinking", "prefill", "template_arg", "compile", "blas"),
    *("markdown", "hide_thinking"),
    *CONSTRAINT_SETTINGS,
    *("tools", "tool_choice"),
    *SAMPLING_SETTINGS,
    *STOPPING_SETTINGS,
    *SPECULATION_SETTINGS,
    *("max_seq_len", "cache_dtype", "model_dtype", "quantize", "rope_scaling"),
    *("chunk_size", "memory_limit_bytes", "prefix_cache", "prefix_file", "prefix_cache_dir"),
)
def chat(
    context: typer.Context,
    load: Annotated[
        Path | None,
        typer.Option(
            "--load", metavar="FILE", help="Continue a saved conversation", rich_help_panel=TRANSCRIPT
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="FILE",
            help="Save the conversation to FILE after every turn; to continue the one in FILE, give --load "
            "FILE too",
            rich_help_panel=TRANSCRIPT,
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option(
            "--null",
            "-0",
            help="End messages and answers with NUL bytes in a pipe, instead of newlines",
            rich_help_panel=TRANSCRIPT,
        ),
    ] = False,
    history: Annotated[
        bool,
        typer.Option(
            "--history/--no-history",
            help="Keep typed messages for later chats, in a file that only you can read",
            rich_help_panel=TRANSCRIPT,
        ),
    ] = True,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
    **settings_given: object,
) -> None:
    """Chat with a model. Each message computes only the new part of the conversation.

    At a terminal, /help lists the commands. From a pipe, each line is a message, also a line such as /exit:
    nothing is a command, and the chat ends when its input ends.
    """
    console = Console(quiet=quiet, verbosity=verbose)
    console.require_stdout()
    if sys.stdin is None:
        raise UsageError("standard input is closed: messages come from there")
    if null and sys.stdin.isatty():
        raise UsageError("--null has no effect at a terminal", "leave it out, or pipe the messages in")
    settings = settings_in_force(context.params)
    if settings.markdown:
        console.use_markdown()
    messages = [] if load is None else read_transcript(load)
    if save is not None:
        require_place(save, "--save")
        require_no_other(save, load)
    with ExitStack() as at_end:
        if sys.stdin.isatty() and can_be_drawn_on(console):
            at_end.enter_context(unseen_typing(sys.stdin.fileno()))
        conversation = _begin(settings, messages, console)
        # Keep the model alive: freeing it would only delay the end of the process.
        context.find_root().obj = conversation
        saved = SavedConversation(conversation, save, console)
        at_end.callback(saved.save_at_end)
        if sys.stdin.isatty():
            talk(conversation, console, saved, keeps_history=history)
        else:
            answer_pipe(conversation, console, NUL_MARK if null else MARK, saved)


def _begin(settings: Settings, messages: "list[Message]", console: Console) -> "Conversation":
    """Load the model; a saved conversation has its own system message, unless `--system` replaces it."""
    require_mlx_for(settings, tokens=CHAT_TOKENS)

    from metal_gen.generation.conversation import Conversation, require_chat

    prepared = prepare_model(settings, console).for_chat()
    note_bundled_model(prepared.settings, console)
    for notice in prepared.notices:
        console.warn(notice)
    report_start(prepared, console)
    if (count := prepared.plan.cache.batch_size) > 1:
        console.detail(f"a chat uses 1 of the {count} sequences that the cache holds")
    loading = prepared.in_background(prepared.load)
    require_chat(prepared.checkpoint, prepared.settings)
    if sys.stdin.isatty():
        prepared.checkpoint.tokenizer.expect_many_texts()
    with ProgressBar(console, LOADING):
        conversation = Conversation(loading.result(), messages)
    if messages and settings.source("system") == SETTINGS["system"].flag:
        conversation.set_system(settings.system)
    if messages:
        console.detail(f"{len(messages)} messages: {room(conversation)}")
    return conversation
