"""Stored prefixes as a table and as JSON."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import RenderableType

from metal_gen.byte_sizes import format_bytes
from metal_gen.cli.terminal.tables import Column, rows_table, shown
from metal_gen.generation.record import Record
from metal_gen.prefix_cache.entry import Entry, EntryError, OtherVersionError

if TYPE_CHECKING:
    from metal_gen.prefix_cache.folder import EntryFile

COLUMNS = (
    Column("name"),
    Column("model"),
    Column("tokens", is_figure=True),
    Column("size", is_figure=True),
    Column("last used"),
)


def entry_json(file: "EntryFile") -> Record:
    """Describe an entry; what is not known of one that cannot be read is None."""
    record: Record = {"name": file.name, "state": "ready", "model": None, "tokens": None}
    record |= {"bytes": file.nbytes}
    record |= {"written": None, "used": _iso(file.used_s), "path": str(file.path), "problem": None}
    try:
        notes = Entry(file.path).notes
    except EntryError as error:
        state = "other version" if isinstance(error, OtherVersionError) else "damaged"
        return record | {"state": state, "problem": error.message}
    return record | {"model": notes.model, "tokens": notes.tokens, "written": _iso(notes.written_s)}


def entries_table(files: Sequence["EntryFile"], width: int) -> RenderableType:
    """Show entries in a table."""
    rows = []
    for record, file in ((entry_json(file), file) for file in files):
        model = shown(str(record["model"] if record["state"] == "ready" else record["state"]))
        tokens = "" if record["tokens"] is None else f"{record['tokens']:,}"
        used = (_iso(file.used_s) or "")[: len("2026-01-31T23:59")].replace("T", " ")  # local time
        rows.append([file.name, model, tokens, format_bytes(file.nbytes), used])
    return rows_table(COLUMNS, rows, width)


def _iso(time_s: float) -> str | None:
    """Return a time in the local time zone; None if no calendar has it."""
    try:
        return datetime.fromtimestamp(time_s).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
