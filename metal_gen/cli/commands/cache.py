"""`metal-gen cache`: manages the prompt prefixes stored on this disk."""

from typing import TYPE_CHECKING, Annotated

import typer

from metal_gen.byte_sizes import format_bytes
from metal_gen.cli.command_help import add_command, command_group
from metal_gen.cli.input.setting_options import JsonOption, QuietOption, settings_in_force, with_settings
from metal_gen.cli.terminal.console import Console
from metal_gen.errors import ExitCode, MetalGenError, UsageError

if TYPE_CHECKING:
    from metal_gen.prefix_cache.folder import EntryFile, PrefixFolder

cache = command_group(
    "cache",
    """List, check and delete the prompt prefixes that --prefix-cache stores on disk.

    For downloaded models, see `metal-gen models`.""",
    "metal-gen cache list",
    "metal-gen cache rm --all",
)

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Name entries as list does", show_default="none"),
]


@add_command(cache, "list", "metal-gen cache list", "metal-gen cache list --json | jq '.[].bytes'")
@with_settings("prefix_cache_dir")
def list_entries(context: typer.Context, json: JsonOption = False, **settings_given: object) -> None:
    """List the stored prefixes, the most recently used first."""
    from metal_gen.cli.output.prefix_report import entries_table, entry_json
    from metal_gen.cli.terminal.tables import print_json, print_rendered

    console = Console()
    console.require_stdout()
    folder = _folder(context)
    entries = folder.entries()
    if json:
        print_json([entry_json(entry) for entry in entries], console)
    elif entries:
        print_rendered(lambda width: entries_table(entries, width), console)
        size = format_bytes(sum(entry.nbytes for entry in entries))
        console.detail(f"{_prefixes(len(entries))}, {size} in {folder.path}")
    else:
        console.note(f"no prefixes in {folder.path}; --prefix-cache stores them")


@add_command(cache, "show", "metal-gen cache show 3f2a", "metal-gen cache show 3f2a --json")
@with_settings("prefix_cache_dir")
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name an entry as list does")],
    json: JsonOption = False,
    **settings_given: object,
) -> None:
    """Show one stored prefix. Its tokens are in the file; only its model can turn them into text."""
    from metal_gen.cli.output.prefix_report import entry_json
    from metal_gen.cli.terminal.tables import details_table, print_json, print_rendered

    console = Console()
    console.require_stdout()
    details = entry_json(_chosen(_folder(context), [name])[0])
    if json:
        print_json(details, console)
    else:
        print_rendered(lambda width: details_table(details), console)


@add_command(cache, "rm", "metal-gen cache rm 3f2a", "metal-gen cache rm --all")
@with_settings("prefix_cache_dir")
def remove(
    context: typer.Context,
    names: Names = None,
    all_entries: Annotated[bool, typer.Option("--all", help="Delete every entry")] = False,
    quiet: QuietOption = False,
    **settings_given: object,
) -> None:
    """Delete stored prefixes. A run that reads one at this moment keeps it."""
    if bool(names) is all_entries:
        raise UsageError("name entries, or give --all", "metal-gen cache list shows them")
    console = Console(quiet=quiet)
    folder = _folder(context)
    chosen = folder.entries() if all_entries else _chosen(folder, names or [])
    removed = folder.remove(chosen)
    if all_entries:
        folder.remove_notes()
    freed = sum(entry.nbytes for entry in removed)
    console.note(f"deleted {_prefixes(len(removed))}, {format_bytes(freed)}")
    if len(removed) < len(chosen):
        raise MetalGenError(
            f"{len(chosen) - len(removed)} of the stored prefixes cannot be deleted: {folder.path}"
        )


@add_command(cache, "verify", "metal-gen cache verify", "metal-gen cache verify 3f2a")
@with_settings("prefix_cache_dir")
def verify(context: typer.Context, names: Names = None, **settings_given: object) -> None:
    """Read entries whole and compare their checksums; name those that are damaged."""
    from metal_gen.prefix_cache.entry import Entry, EntryError, OtherVersionError

    console = Console()
    folder = _folder(context)
    chosen = _chosen(folder, names) if names else folder.entries()
    damaged = others = 0
    for entry in chosen:
        try:
            Entry(entry.path).verify()
        except OtherVersionError:
            others += 1
        except EntryError as error:
            damaged += 1
            console.error(error.message, f"metal-gen cache rm {entry.name}")
    of_others = f", {others:,} of another version, not checked" if others else ""
    console.note(f"checked {_prefixes(len(chosen) - others)}: {damaged:,} damaged{of_others}")
    if damaged:
        raise typer.Exit(ExitCode.BAD_CHECKPOINT)


@add_command(cache, "path", "metal-gen cache path", 'du -sh "$(metal-gen cache path)"')
@with_settings("prefix_cache_dir")
def path(context: typer.Context, **settings_given: object) -> None:
    """Print the folder of the stored prefixes, whether it exists or not."""
    from metal_gen.cli.terminal.tables import print_path

    console = Console()
    console.require_stdout()
    print_path(_folder(context).path, console)


def _prefixes(count: int) -> str:
    return "1 stored prefix" if count == 1 else f"{count:,} stored prefixes"


def _folder(context: typer.Context) -> "PrefixFolder":
    from metal_gen.prefix_cache.folder import folder_of

    return folder_of(settings_in_force(context.params))


def _chosen(folder: "PrefixFolder", names: list[str]) -> "list[EntryFile]":
    """Return the entries with these names.

    Raises:
        UsageError: A name matches no entry, or several.
    """
    chosen = []
    for name in names:
        found = folder.named(name)
        if len(found) != 1:
            problem = "no stored prefix is" if not found else f"{len(found)} stored prefixes are"
            raise UsageError(f"{problem} called {name[:40]!a}", "metal-gen cache list shows their names")
        chosen += found
    return chosen
