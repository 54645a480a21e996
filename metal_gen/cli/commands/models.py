"""`metal-gen models`: manages the models in the Hub's cache."""

from typing import TYPE_CHECKING, Annotated

import typer

from metal_gen.byte_sizes import format_bytes
from metal_gen.cli.command_help import add_command, command_group
from metal_gen.cli.completion import complete_model
from metal_gen.cli.input.model_preparation import EXAMPLE_MODEL, DownloadReporter
from metal_gen.cli.input.setting_options import JsonOption, QuietOption
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import ModelNotFoundError, UsageError

if TYPE_CHECKING:
    from metal_gen.hub.cached_models import CachedModel

models = command_group(
    "models",
    "List, download, inspect and delete models in the Hugging Face cache.",
    "metal-gen models list",
    f"metal-gen models pull {EXAMPLE_MODEL}",
)

HubModels = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...", help="Name Hub ids: org/name, org/name@revision", autocompletion=complete_model
    ),
]
AnyModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Name a Hub id, a folder or a GGUF file", autocompletion=complete_model
    ),
]


@add_command(models, "list", "metal-gen models list", "metal-gen models list --json | jq -r '.[].model'")
def list_models(json: JsonOption = False) -> None:
    """List the models in the cache: size, architecture, weights, last use.

    The last use is the time when the weights were last read. Many file systems record it once a day at
    most, some never.
    """
    from metal_gen.cli.output.model_report import model_json, models_table
    from metal_gen.cli.terminal.tables import print_json, print_rendered
    from metal_gen.hub.cache import cache_folder
    from metal_gen.hub.cached_models import cache_contents

    console = Console()
    console.require_stdout()
    contents = cache_contents()
    if json:
        print_json([model_json(model) for model in contents.models], console)
    elif contents.models:
        print_rendered(lambda width: models_table(contents.models, width), console)
        count = f"{len(contents.models)} model{'s' * (len(contents.models) > 1)}"
        console.detail(f"{count}, {format_bytes(contents.size_bytes)} in {cache_folder()}")
    else:
        console.note(f"no models in {cache_folder()}; to get one: metal-gen models pull {EXAMPLE_MODEL}")


@add_command(
    models,
    "pull",
    f"metal-gen models pull {EXAMPLE_MODEL}",
    f'folder=$(metal-gen models pull {EXAMPLE_MODEL} -q) && cd "$folder"',
)
def pull(models: HubModels, quiet: QuietOption = False) -> None:
    """Download models, or only what has changed, and print the folder of each.

    Only files that are missing or have the wrong size are downloaded. A broken connection is resumed;
    after an interruption, complete files are kept.
    """
    from metal_gen.cli.terminal.tables import print_path
    from metal_gen.hub.locate import pull_checkpoint

    console = Console(quiet=quiet)
    console.require_stdout()
    for model in models:
        with DownloadReporter(model, console) as reporter:
            folder = pull_checkpoint(model, on_progress=reporter.update)
        if not reporter.fetched_bytes:
            console.note(f"nothing to download: {model} is complete")
        print_path(folder, console)


@add_command(
    models, "show", f"metal-gen models show {EXAMPLE_MODEL}", "metal-gen models show ./my-checkpoint --json"
)
def show(model: AnyModel, json: JsonOption = False) -> None:
    """Show the details of a model on this disk, and whether it can be loaded.

    Only config.json and the headers of the weights are read. If the model cannot be loaded, the details
    come first, then the reason, with the exit code that loading it would give.
    """
    from metal_gen.cli.output.model_report import describe_model
    from metal_gen.cli.terminal.tables import details_table, print_json, print_rendered

    console = Console()
    console.require_stdout()
    details, problem = describe_model(model)
    if json:
        print_json({**details, "problem": None if problem is None else problem.message}, console)
    else:
        print_rendered(lambda width: details_table(details), console)
    if problem is not None:
        raise problem


@add_command(
    models,
    "path",
    "metal-gen models path",
    f'folder=$(metal-gen models path {EXAMPLE_MODEL}) && ls "$folder"',
)
def path(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="Name a Hub id",
            autocompletion=complete_model,
            show_default="the cache itself",
        ),
    ] = None,
) -> None:
    """Print the folder of a downloaded model, or of the cache."""
    from metal_gen.cli.terminal.tables import print_path
    from metal_gen.hub.cache import cache_folder
    from metal_gen.hub.locate import find_checkpoint

    console = Console()
    console.require_stdout()
    print_path(cache_folder() if model is None else find_checkpoint(model), console)


@add_command(models, "rm", f"metal-gen models rm {EXAMPLE_MODEL}", "metal-gen models rm org/name@v1.0 --yes")
def remove(
    models: HubModels,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking")] = False,
    quiet: QuietOption = False,
) -> None:
    """Delete models from the cache, with all their revisions, or with @revision that one alone."""
    from metal_gen.hub.deletion import delete_from_cache

    console = Console(quiet=quiet)
    chosen = {commit.folder: commit for model in models for commit in _cached(model)}.values()
    names = ", ".join(commit.reference for commit in chosen)
    size = format_bytes(sum(commit.size_bytes for commit in chosen))
    if not yes and not console.ask(f"delete {names}: {size}?", "--yes"):
        console.note("nothing was deleted")
        return
    for repo_id in dict.fromkeys(commit.repo_id for commit in chosen):
        commits = [commit for commit in chosen if commit.repo_id == repo_id]
        delete_from_cache(commits)
        console.note(f"deleted {', '.join(commit.reference for commit in commits)}")


def _cached(model: str) -> "list[CachedModel]":
    """Return what the cache has of a model, complete or not."""
    from metal_gen.hub.cached_models import cache_contents
    from metal_gen.hub.locate import find_checkpoint

    found = cache_contents().matching(model)
    if found:
        return found
    lists = "`metal-gen models list` lists what is"
    try:
        folder = find_checkpoint(model)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(error.message, lists) from None
    raise UsageError(
        f"not in the cache: {folder}", f"metal-gen deletes nothing but what is in the cache; {lists}"
    )
