"""The options that `metal-gen score` and `metal-gen rank` share."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from metal_gen.cli.batch.options import row_flag
from metal_gen.cli.input.setting_options import OUTPUT, flag_of
from metal_gen.errors import UsageError

# Settings of a prompt.
OF_PROMPTS = ("system", "raw", "thinking", "prefill", "template_arg")
SETTINGS = (
    *("model", "adapter", *OF_PROMPTS, "blas"),
    *("max_seq_len", "batch_size", "cache_dtype", "model_dtype", "quantize", "rope_scaling"),
    *("chunk_size", "memory_limit_bytes"),
)
RecordsOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the record to this file, in place of an older one; with --jsonl the records, to a "
        "new one",
        show_default="stdout",
        rich_help_panel=OUTPUT,
    ),
]
RecordOption = Annotated[
    bool,
    typer.Option("--json", help="Write one JSON object; this is the default", rich_help_panel=OUTPUT),
]
RowsOption = Annotated[
    bool, row_flag("--jsonl", "Read a row from each line, and write a record for each row")
]


def refuse_without_effect(given: Mapping[str, Any], names: Sequence[str], where: str, instead: str) -> None:
    """Refuse options that have no effect on the task.

    Settings from files and variables are for other tasks too, and are left alone.

    Args:
        given: The command's parameters by name.
        names: Names of the options.
        where: What they have no effect on.
        instead: How they would have one.

    Raises:
        UsageError: One is given.
    """
    for name in names:
        # A setting that is switched off is given too.
        if given[name] not in (None, [], ()):
            flag = f"--no-{name}" if given[name] is False else flag_of(name)
            raise UsageError(f"{flag} has no effect on {where}", f"leave it out, or {instead}")


def refuse_both_forms(given: Mapping[str, Any]) -> None:
    """Refuse one object and an object for each row together.

    Raises:
        UsageError: Both are asked for.
    """
    if given["json"] and given["jsonl"]:
        raise UsageError("--json contradicts --jsonl", "--jsonl reads rows, and writes a record for each")
