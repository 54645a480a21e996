"""`metal-gen generate`: one prompt in, one text out."""

import os
import sys
from contextlib import closing, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metal_gen.cli.console import Console
from metal_gen.cli.progress import ProgressBar
from metal_gen.cli.prompt_source import read_prompt
from metal_gen.cli.report import report_end, report_start
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.sources import FlagValue, override_with_flags, resolve_settings
from metal_gen.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from metal_gen.checkpoint.download_progress import DownloadProgress
    from metal_gen.checkpoint.prompt import Prompt
    from metal_gen.loading import PreparedModel, TextModel

EXAMPLE_MODEL = "Qwen/Qwen3-0.6B"
SAMPLING, STOPPING, CACHE, OUTPUT = "Sampling", "Stopping", "Memory", "Output"


def _option(name: str, metavar: str, panel: str | None = None, *more: str) -> typer.models.OptionInfo:
    info = SETTINGS[name]
    option: typer.models.OptionInfo = typer.Option(
        info.flag, *more, metavar=metavar, help=info.help, rich_help_panel=panel
    )
    return option


def generate(
    context: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="What to answer; - is stdin. Piped text comes first."
        ),
    ] = None,
    model: Annotated[str | None, _option("model", "MODEL", None, "-m")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML file of settings.")
    ] = None,
    system: Annotated[str | None, _option("system", "TEXT")] = None,
    raw: Annotated[
        bool | None, typer.Option("--raw/--no-raw", help=SETTINGS["raw"].help, show_default=False)
    ] = None,
    thinking: Annotated[
        bool | None,
        typer.Option("--thinking/--no-thinking", help=SETTINGS["thinking"].help, show_default=False),
    ] = None,
    max_tokens: Annotated[str | None, _option("max_tokens", "N", STOPPING, "-n")] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Always take the most probable token.", rich_help_panel=SAMPLING)
    ] = False,
    temperature: Annotated[str | None, _option("temperature", "T", SAMPLING)] = None,
    top_k: Annotated[str | None, _option("top_k", "K", SAMPLING)] = None,
    top_p: Annotated[str | None, _option("top_p", "P", SAMPLING)] = None,
    min_p: Annotated[str | None, _option("min_p", "P", SAMPLING)] = None,
    repetition_penalty: Annotated[str | None, _option("repetition_penalty", "R", SAMPLING)] = None,
    repetition_window: Annotated[str | None, _option("repetition_window", "N", SAMPLING)] = None,
    presence_penalty: Annotated[str | None, _option("presence_penalty", "A", SAMPLING)] = None,
    frequency_penalty: Annotated[str | None, _option("frequency_penalty", "A", SAMPLING)] = None,
    logit_bias: Annotated[list[str] | None, _option("logit_bias", "TOKEN=BIAS", SAMPLING)] = None,
    ban_token: Annotated[list[str] | None, _option("ban_token", "TOKEN", SAMPLING)] = None,
    seed: Annotated[str | None, _option("seed", "S", SAMPLING)] = None,
    samples: Annotated[str | None, _option("samples", "N", SAMPLING)] = None,
    logprobs: Annotated[str | None, _option("logprobs", "K", SAMPLING)] = None,
    stop: Annotated[list[str] | None, _option("stop", "TEXT", STOPPING)] = None,
    stop_token: Annotated[list[str] | None, _option("stop_token", "TOKEN", STOPPING)] = None,
    min_tokens: Annotated[str | None, _option("min_tokens", "N", STOPPING)] = None,
    ignore_eos: Annotated[
        bool | None,
        typer.Option(
            "--ignore-eos/--no-ignore-eos",
            help=SETTINGS["ignore_eos"].help,
            rich_help_panel=STOPPING,
            show_default=False,
        ),
    ] = None,
    max_seq_len: Annotated[str | None, _option("max_seq_len", "N", CACHE)] = None,
    cache_dtype: Annotated[str | None, _option("cache_dtype", "DTYPE", CACHE)] = None,
    model_dtype: Annotated[str | None, _option("model_dtype", "DTYPE", CACHE)] = None,
    chunk_size: Annotated[str | None, _option("chunk_size", "N", CACHE)] = None,
    blas: Annotated[str | None, _option("blas", "LIBRARY")] = None,
    verbose: Annotated[
        int,
        typer.Option(
            "-v",
            "--verbose",
            count=True,
            metavar="",
            help="Say what is in force.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = 0,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Say nothing but errors.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Continue or answer a prompt, on stdout, token by token."""
    console = Console(quiet=quiet, verbosity=verbose)
    console.require_stdout()
    flags = {name: value for name, value in context.params.items() if name in SETTINGS}
    settings = override_with_flags(resolve_settings(config_file=config, environ=os.environ), flags)
    if greedy:
        _require_no_other_sampler(flags)
        settings = settings.override({"temperature": 0.0}, "--greedy")
    text = read_prompt(prompt, console)
    if text is None:
        with redirect_stdout(sys.stderr):
            print(context.get_help())
        console.error("there is no prompt", "give one with --prompt TEXT, or pipe it in")
        raise typer.Exit(ExitCode.USAGE)
    _run(settings, text, console)


def _require_no_other_sampler(flags: dict[str, FlagValue]) -> None:
    for name in ("temperature", "top_k", "top_p", "min_p"):
        if flags[name] is not None:
            raise UsageError(
                f"--greedy contradicts {SETTINGS[name].flag} {flags[name]}", "leave one of them out"
            )


def _run(settings: Settings, text: str, console: Console) -> None:
    """Check everything that needs no weights, then load, then generate."""
    from metal_gen.backend import require_mlx

    require_mlx(settings.blas)

    from metal_gen.checkpoint.prompt import encode_prompt
    from metal_gen.engine.stopping import require_capacity

    prepared = _prepare(settings, console)
    settings = prepared.settings
    prompt = encode_prompt(
        prepared.checkpoint, text, system=settings.system, raw=settings.raw, thinking=settings.thinking
    )
    require_capacity(len(prompt.ids), settings.max_tokens, prepared.plan.cache.max_seq_len)
    for notice in (*prepared.notices, *prompt.notices):
        console.warn(notice)
    report_start(prepared, console)
    _stream(prepared.load(), prompt, console)


def _prepare(settings: Settings, console: Console) -> "PreparedModel":
    from metal_gen.loading import prepare

    if settings.model is None:
        console.note(
            "no --model given: this is the small story model that comes with metal-gen; "
            f"for a real one try --model {EXAMPLE_MODEL}"
        )
    with ProgressBar(console, f"downloading {settings.model}", is_bytes=True) as bar:
        announced = False

        def on_download(progress: "DownloadProgress") -> None:
            nonlocal announced
            if not announced and not console.stderr_is_terminal:
                console.note(f"downloading {settings.model}: {progress.total_bytes:,} bytes")
            announced = True
            bar.update(progress.done_bytes, progress.total_bytes)

        return prepare(settings, on_download=on_download)


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
