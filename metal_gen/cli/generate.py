"""`metal-gen generate`: one prompt in, one text out."""

import sys
from contextlib import closing, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from metal_gen.cli.console import Console
from metal_gen.cli.model_preparation import prepare_model
from metal_gen.cli.progress import ProgressBar
from metal_gen.cli.prompt_source import read_prompt
from metal_gen.cli.report import report_end, report_start
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
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.errors import ExitCode

if TYPE_CHECKING:
    from metal_gen.checkpoint.prompt import Prompt
    from metal_gen.loading import TextModel


def generate(
    context: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="What to answer; - is stdin. Piped text comes first."
        ),
    ] = None,
    model: Annotated[str | None, setting_option("model", "MODEL", None, "-m")] = None,
    config: ConfigOption = None,
    system: Annotated[str | None, setting_option("system", "TEXT")] = None,
    raw: Annotated[
        bool | None, typer.Option("--raw/--no-raw", help=SETTINGS["raw"].help, show_default=False)
    ] = None,
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
    repetition_window: Annotated[str | None, setting_option("repetition_window", "N", SAMPLING)] = None,
    presence_penalty: Annotated[str | None, setting_option("presence_penalty", "A", SAMPLING)] = None,
    frequency_penalty: Annotated[str | None, setting_option("frequency_penalty", "A", SAMPLING)] = None,
    logit_bias: Annotated[list[str] | None, setting_option("logit_bias", "TOKEN=BIAS", SAMPLING)] = None,
    ban_token: Annotated[list[str] | None, setting_option("ban_token", "TOKEN", SAMPLING)] = None,
    seed: Annotated[str | None, setting_option("seed", "S", SAMPLING)] = None,
    samples: Annotated[str | None, setting_option("samples", "N", SAMPLING)] = None,
    logprobs: Annotated[str | None, setting_option("logprobs", "K", SAMPLING)] = None,
    stop: Annotated[list[str] | None, setting_option("stop", "TEXT", STOPPING)] = None,
    stop_token: Annotated[list[str] | None, setting_option("stop_token", "TOKEN", STOPPING)] = None,
    min_tokens: Annotated[str | None, setting_option("min_tokens", "N", STOPPING)] = None,
    ignore_eos: Annotated[
        bool | None,
        typer.Option(
            "--ignore-eos/--no-ignore-eos",
            help=SETTINGS["ignore_eos"].help,
            rich_help_panel=STOPPING,
            show_default=False,
        ),
    ] = None,
    max_seq_len: Annotated[str | None, setting_option("max_seq_len", "N", CACHE)] = None,
    cache_dtype: Annotated[str | None, setting_option("cache_dtype", "DTYPE", CACHE)] = None,
    model_dtype: Annotated[str | None, setting_option("model_dtype", "DTYPE", CACHE)] = None,
    chunk_size: Annotated[str | None, setting_option("chunk_size", "N", CACHE)] = None,
    compile: Annotated[str | None, setting_option("compile", "auto|on|off")] = None,
    blas: Annotated[str | None, setting_option("blas", "LIBRARY")] = None,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Continue or answer a prompt, on stdout, token by token."""
    console = Console(quiet=quiet, verbosity=verbose)
    console.require_stdout()
    settings = settings_in_force(context.params)
    text = read_prompt(prompt, console)
    if text is None:
        with redirect_stdout(sys.stderr):
            print(context.get_help())
        console.error("there is no prompt", "give one with --prompt TEXT, or pipe it in")
        raise typer.Exit(ExitCode.USAGE)
    # The process is about to end: nothing of the model need be freed before.
    context.find_root().obj = _run(settings, text, console)


def _run(settings: Settings, text: str, console: Console) -> "TextModel":
    """Check what needs neither weights nor tokenizer, then read both side by side, then generate."""
    from metal_gen.backend import require_mlx

    require_mlx(settings.blas)

    from metal_gen.background import Background
    from metal_gen.checkpoint.prompt import encode_prompt
    from metal_gen.engine.stopping import require_capacity

    prepared = prepare_model(settings, console)
    settings = prepared.settings
    for notice in prepared.notices:
        console.warn(notice)
    report_start(prepared, console)
    if (count := prepared.plan.cache.batch_size) > 1:
        console.detail(f"generate uses 1 of the {count} sequences that the cache holds")
    loading = Background(prepared.load)
    prompt = encode_prompt(
        prepared.checkpoint, text, system=settings.system, raw=settings.raw, thinking=settings.thinking
    )
    require_capacity(len(prompt.ids), settings.max_tokens, prepared.plan.cache.max_seq_len)
    for notice in prompt.notices:
        console.warn(notice)
    model = loading.result()
    _stream(model, prompt, console)
    return model


def _stream(model: "TextModel", prompt: "Prompt", console: Console) -> None:
    """Write the pieces of the text as they come."""
    from metal_gen.text_generation import stream_generate

    try:
        with (
            ProgressBar(console, "reading the prompt") as bar,
            closing(stream_generate(model, prompt, on_prefill=bar.update)) as pieces,
        ):
            for piece in pieces:
                bar.close()
                if not piece.is_thinking:
                    console.write_text(piece.text)
                elif piece.logprobs is None:
                    console.write_thinking(piece.text)
                if piece.logprobs is not None:
                    place = {"sample": piece.sample, "token_id": piece.token_id, "text": piece.text}
                    console.write_record({**place, **asdict(piece.logprobs)})
                if piece.finish is not None:
                    if model.settings.samples > 1:
                        console.end_sample()
                    report_end(piece, model, console)
    finally:
        console.end_text()
