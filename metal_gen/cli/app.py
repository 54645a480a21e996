"""The command line's commands and their common options."""

from typing import Annotated

import typer

from metal_gen import __version__
from metal_gen.cli.bench import bench
from metal_gen.cli.generate import generate

app = typer.Typer(
    name="metal-gen",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"metal-gen {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Stream text from Qwen checkpoints on MLX, in memory that is fixed before it starts."""


app.command()(generate)
app.command()(bench)
