"""`metal-gen generate`: answers one prompt."""

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from metal_gen.cli.generate.run import GenerateRun, TextForm
from metal_gen.cli.input.escapes import unescape_options
from metal_gen.cli.input.model_preparation import Preparation
from metal_gen.cli.input.prompt_source import read_prompt
from metal_gen.cli.input.setting_options import (
    CONSTRAINT_SETTINGS,
    OUTPUT,
    SAMPLING_SETTINGS,
    SPECULATION_SETTINGS,
    STOPPING_SETTINGS,
    QuietOption,
    VerboseOption,
    settings_in_force,
    with_settings,
)
from metal_gen.cli.output.output_file import OutputFile, existing_file, is_stdout, require_different
from metal_gen.cli.switch_values import ARGUMENTS, hint_for_mixture
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.streams import are_one_file
from metal_gen.errors import UsageError

# Shown at the end of the help.
EXAMPLES = (
    'metal-gen generate "Tell me a story about a fox."',
    'metal-gen generate --model Qwen/Qwen3-0.6B --prompt "Why is the sky blue?" --top-p 0.9 --seed 1',
    'cat notes.txt | metal-gen generate --model Qwen/Qwen3-0.6B --prompt "Summarize:" -o summary.txt',
    'metal-gen generate --prompt "Tell me a story about an owl." --json | jq -r .text',
    "metal-gen generate \"Tell me about Ann.\" --schema 'name, age int' | jq .age",
)
CONTRADICTIONS = (
    ("json", "jsonl"),
    *(("json", "markdown"), ("json", "hide_thinking")),
    *(("jsonl", "markdown"), ("jsonl", "hide_thinking")),
    *(("json", "no_newline"), ("jsonl", "no_newline")),
    ("logprobs", "markdown"),
)


@with_settings(
    *("model", "adapter", "system", "raw", "thinking", "prefill", "template_arg", "compile", "blas"),
    *("markdown", "hide_thinking"),
    *CONSTRAINT_SETTINGS,
    *("tools", "tool_choice"),
    "schema_indent",
    *SAMPLING_SETTINGS,
    *("samples", "logprobs"),
    *STOPPING_SETTINGS,
    *SPECULATION_SETTINGS,
    *("max_seq_len", "cache_dtype", "model_dtype", "quantize", "rope_scaling"),
    *("chunk_size", "memory_limit_bytes", "prefix_cache", "prefix_file", "prefix_cache_dir"),
)
def generate(
    context: typer.Context,
    argument: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="Answer this prompt, in quotes; the same as --prompt", show_default="stdin"
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="Answer this prompt, after piped text; - reads stdin",
            show_default="stdin",
        ),
    ] = None,
    prompt_file: Annotated[
        str | None,
        typer.Option(
            "--prompt-file",
            metavar="FILE",
            help="Read text that comes before --prompt from this file; - reads stdin",
        ),
    ] = None,
    escape: Annotated[
        bool,
        typer.Option("--escape", help=r"Read \n in --prompt, --system, --prefill and --stop as a new line"),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the text to this file when it is complete, in place of an older one",
            show_default="stdout",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end", rich_help_panel=OUTPUT)
    ] = False,
    jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl", help="Print one JSON object per token, and one at the end", rich_help_panel=OUTPUT
        ),
    ] = False,
    no_newline: Annotated[
        bool,
        typer.Option(
            "--no-newline",
            "-j",
            help="End the text as the model does, without a newline",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
    **settings_given: object,
) -> None:
    """Answer a prompt: stream the text to stdout, and everything else to stderr."""
    console = Console(quiet=quiet, verbosity=verbose)
    given = _with_prompt(context)
    if escape:
        given = unescape_options(given)
    _refuse_contradictions(given)
    require_different(
        prompt=prompt_file,
        model=existing_file(given["model"]),
        config=existing_file(given["config"]),
        output=output,
    )
    file = None
    if is_stdout(output):
        console.require_stdout()
    else:
        file = OutputFile(Path(str(output)), spares=None if prompt_file is None else Path(prompt_file))
    try:
        settings = settings_in_force(given)
        form = TextForm(is_json=json, is_jsonl=jsonl, ends_line=not no_newline)
        if settings.logprobs is not None and form.is_text and file is None:
            _refuse_mixture(console)
        preparation = Preparation(settings, console)
        text = read_prompt(given["prompt"] or (), prompt_file, console, preparation.most_prompt_bytes)
        if text is None:
            if console.stderr_is_terminal:
                with redirect_stdout(sys.stderr):
                    print(context.get_help())
            raise UsageError("there is no prompt", 'give one, as in metal-gen generate "...", or pipe it in')
        keep = partial(setattr, context.find_root(), "obj")
        GenerateRun(preparation, form, file, console, keep).write(text)
    finally:
        if file is not None:
            file.discard()


def _with_prompt(context: typer.Context) -> Mapping[str, Any]:
    """Return the parameters with the argument as the prompt."""
    given = context.params
    argument = given["argument"]
    if argument is None:
        return given
    if given["prompt"]:
        hint = hint_for_mixture(context.meta.get(ARGUMENTS, ()), context.command)
        raise UsageError(
            "the prompt is given twice, as an argument and with --prompt", hint or "leave one of them out"
        )
    return {**given, "prompt": [argument]}


def _refuse_contradictions(given: Mapping[str, Any]) -> None:
    for one, other in CONTRADICTIONS:
        if given[one] and given[other]:
            flags = [f"--{name.replace('_', '-')}" for name in (one, other)]
            raise UsageError(f"{flags[0]} contradicts {flags[1]}", "leave one of them out")


def _refuse_mixture(console: Console) -> None:
    """Refuse to mix text and log-probabilities in one place, where neither would be usable."""
    is_one_terminal = console.stdout_is_terminal and console.stderr_is_terminal
    if is_one_terminal or are_one_file(sys.stdout, sys.stderr):
        place = "on the terminal" if is_one_terminal else "in one file"
        raise UsageError(
            f"the text and its log-probabilities would be mixed {place}",
            "--json or --jsonl has both; or keep them apart with 2>logprobs.jsonl, or -o FILE",
        )
