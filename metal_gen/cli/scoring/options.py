"""The options that `metal-gen score` and `metal-gen rank` share."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from metal_gen.cli.batch.options import row_flag
from metal_gen.cli.input.setting_options import OUTPUT
from metal_gen.errors import UsageError

SETTINGS = (
    *("model", "adapter", "system", "raw", "thinking", "prefill", "template_arg", "blas"),
    *("max_seq_len", "batch_size", "cache_dtype", "model_dtype", "quantize", "rope_scaling"),
    *("chunk_size", "memory_limit_bytes"),
)
RecordsOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the record or records to this file",
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


def refuse_both_forms(given: Mapping[str, Any]) -> None:
    """Refuse one object and an object for each row together.

    Raises:
        UsageError: Both are asked for.
    """
    if given["json"] and given["jsonl"]:
        raise UsageError("--json contradicts --jsonl", "--jsonl reads rows, and writes a record for each")
