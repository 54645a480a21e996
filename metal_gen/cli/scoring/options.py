"""The options that `metal-gen score` and `metal-gen rank` share."""

from typing import Annotated

import typer

from metal_gen.cli.batch.options import row_flag
from metal_gen.cli.input.setting_options import OUTPUT

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
RowsOption = Annotated[
    bool, row_flag("--jsonl", "Read a row from each line, and write a record for each row")
]
