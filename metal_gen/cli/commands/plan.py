"""`metal-gen plan`: shows a model's memory needs on this machine, and the largest cache that fits."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from metal_gen.cli.completion import complete_model
from metal_gen.cli.input.setting_options import (
    CONSTRAINT_SETTINGS,
    SPECULATION_SETTINGS,
    JsonOption,
    settings_in_force,
    with_settings,
)
from metal_gen.cli.terminal.console import Console
from metal_gen.config.settings import Settings
from metal_gen.errors import UsageError

OF_A_MAC = (
    "Metal offers two thirds of a Mac's memory up to 32 GB, and three quarters above: "
    "--memory-limit-bytes 48G is a Mac of 64 GB"
)
# Shown at the end of the help.
EXAMPLES = (
    "metal-gen plan Qwen/Qwen3-0.6B",
    "metal-gen plan ./my-checkpoint --max-seq-len 32768 --batch-size 4 --cache-dtype float16",
    "metal-gen plan Qwen/Qwen3-32B --quantize 4 --memory-limit-bytes 48G",
    "metal-gen plan Qwen/Qwen3-0.6B --json | jq .largest_max_seq_len",
)


@with_settings(
    "adapter",
    *("max_seq_len", "batch_size", "cache_dtype", "model_dtype", "quantize", "rope_scaling"),
    *("chunk_size", "memory_limit_bytes", "prefix_cache", "blas"),
    *CONSTRAINT_SETTINGS,
    *SPECULATION_SETTINGS,
)
def plan(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="Plan for this Hub id, folder or GGUF file",
            autocompletion=complete_model,
            show_default="the bundled story model",
        ),
    ] = None,
    named_model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Plan for this model, as in other commands", hidden=True),
    ] = None,
    json: JsonOption = False,
    **settings_given: object,
) -> None:
    """Show how much memory a model needs, and the largest cache that fits, without loading it.

    Only the headers of its files are read; for a model that is not in the cache, from the Hub. With
    --memory-limit-bytes, the plan is for any machine that has so much. If the model does not fit, the
    table is printed anyway, and the exit code is 6.
    """
    console = Console()
    console.require_stdout()
    if model is not None and named_model is not None:
        raise UsageError("the model is named twice: as MODEL and with --model", "leave one of them out")
    parameters = {**context.params, "model": model if named_model is None else named_model}
    _run(settings_in_force(parameters), console, as_json=json)


def _run(settings: Settings, console: Console, *, as_json: bool) -> None:
    from metal_gen.device.backend import require_mlx

    require_mlx(settings.blas)

    from metal_gen.checkpoint.bundled import BUNDLED_FOLDER
    from metal_gen.hub.locate import borrowed_headers

    with ExitStack() as borrowed:
        folder, draft_folder = BUNDLED_FOLDER, None
        if settings.model is not None:
            folder = borrowed.enter_context(borrowed_headers(settings.model))
        if settings.draft_model is not None:
            draft_folder = borrowed.enter_context(borrowed_headers(settings.draft_model))
        _report(settings, folder, draft_folder, console, as_json=as_json)


def _report(
    settings: Settings, folder: Path, draft_folder: Path | None, console: Console, *, as_json: bool
) -> None:
    from metal_gen.checkpoint.bundled import BUNDLED_NAME
    from metal_gen.cli.output.plan_report import plan_json, render_plan
    from metal_gen.cli.terminal.tables import print_json, print_rendered
    from metal_gen.generation.memory.planning import plan_run
    from metal_gen.generation.opening import open_checkpoint

    checkpoint = open_checkpoint(folder, settings)
    # A plan should fail if a run would; a model on the Hub has only its headers here.
    if checkpoint.has_tokenizer:
        checkpoint.read_tokenizer()
    plan, _, _ = plan_run(settings, checkpoint, draft_folder=draft_folder, for_any_machine=True)
    name = settings.model or BUNDLED_NAME
    if as_json:
        print_json(plan_json(settings, checkpoint, plan), console)
    else:
        print_rendered(lambda width: render_plan(name, checkpoint, plan, width), console)
        if plan.is_for_another_machine:
            console.note(OF_A_MAC)
    plan.require_fit()
