"""`metal-gen convert`: converts a checkpoint to MLX format, optionally quantized."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metal_gen.byte_sizes import format_bytes
from metal_gen.cli.completion import complete_model, completion_from
from metal_gen.cli.input.model_preparation import DownloadReporter
from metal_gen.cli.input.setting_options import QuietOption
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import ProgressBar
from metal_gen.config.checks import Check, Choice, with_value
from metal_gen.config.quantize import MICROSCALED, USUAL_PACKINGS, Quantize, name_packing
from metal_gen.errors import UsageError

if TYPE_CHECKING:
    from metal_gen.conversion.new_folder import NewFolder

# Shown at the end of the help.
EXAMPLES = (
    "metal-gen convert Qwen/Qwen3-0.6B ./Qwen3-0.6B-4bit --quantize 4",
    "metal-gen convert ./my-checkpoint ./my-checkpoint-mxfp4 --quantize mxfp4",
    "metal-gen convert ./my-checkpoint ./my-checkpoint-bfloat16 --dtype bfloat16",
)
MODE = Choice(("affine", *MICROSCALED))
DTYPE = Choice(("float32", "bfloat16", "float16"))


def convert(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Convert this Hub id or folder", autocompletion=complete_model),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Write this folder, which must not exist yet")],
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="BITS",
            help="Quantize weights: 2, 3, 4, 5, 6 or 8 bits in groups of 64, 4g32 for other groups, or "
            "mxfp4, mxfp8, nvfp4",
            show_default="as stored",
            autocompletion=completion_from(USUAL_PACKINGS),
        ),
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Let this many numbers share a scale, as in 4g32", show_default="64"),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help=f"Quantize in this mode: {MODE}",
            show_default="affine",
            autocompletion=completion_from(MODE.words),
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help=f"Store weights that are not quantized in this dtype: {DTYPE}",
            show_default="as stored",
            autocompletion=completion_from(DTYPE.words),
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Convert a checkpoint to MLX format, optionally quantized.

    Both mlx-lm and metal-gen load the result. This needs about 1 GiB of memory, whatever the model's size.
    OUT appears only when the conversion is complete. Of a vision-language model, the language part is
    written, as a text model. Layers for multi-token prediction are kept as they are, in mtp.safetensors.
    """
    console = Console(quiet=quiet)
    named = _quantization(quantize, group_size, mode)
    chosen = _checked("--dtype", DTYPE, dtype)

    from metal_gen.device.backend import require_mlx

    require_mlx()

    from metal_gen.conversion.new_folder import NewFolder

    _run(model, NewFolder(out), named, chosen, console)


def _quantization(quantize: str | None, group_size: int | None, mode: str | None) -> str | None:
    """Return the value of the setting `quantize` for these three options."""
    kind = _checked("--mode", MODE, mode)
    if quantize is None:
        if group_size is not None or kind is not None:
            raise UsageError(
                f"{'--mode' if group_size is None else '--group-size'} needs --quantize",
                "give the bits too: --quantize 4",
            )
        return None
    try:
        return _checked("--quantize", Quantize(), name_packing(quantize, group_size, kind))
    except ValueError as error:
        others = [("--group-size", group_size), ("--mode", mode)]
        given = " and ".join(option for option, value in others if value is not None)
        raise UsageError(
            f"--quantize {quantize} contradicts {given}: {error}", f"leave out {given}"
        ) from None


def _checked(option: str, check: Check, text: str | None) -> str | None:
    try:
        return None if text is None else str(check.from_text(text))
    except ValueError as error:
        raise UsageError(f"{option} {with_value(error, repr(text))}") from None


def _run(model: str, out: "NewFolder", quantize: str | None, dtype: str | None, console: Console) -> None:
    from metal_gen.checkpoint.checkpoint import Checkpoint
    from metal_gen.checkpoint.packed.quantizing import packing_named
    from metal_gen.conversion.convert import convert as convert_checkpoint
    from metal_gen.conversion.mlx_lm_limits import limits_of_mlx_lm
    from metal_gen.hub.locate import locate_checkpoint

    with DownloadReporter(model, console) as reporter:
        folder = locate_checkpoint(model, on_progress=reporter.update)
    checkpoint = Checkpoint(folder, packing=None if quantize is None else packing_named(quantize))
    checkpoint.read_tokenizer()  # fails early: without a tokenizer the result would be useless
    for limit in limits_of_mlx_lm(checkpoint.config):
        console.warn(f"mlx-lm does not compute {limit}, which this model has: use metal-gen for it")
    with ProgressBar(console, f"converting {model}", is_bytes=True) as bar:
        conversion = convert_checkpoint(checkpoint, out, dtype=dtype, on_progress=bar.update)
    console.note(
        f"wrote {out.path}: {format_bytes(conversion.size_bytes)} of weights, "
        f"{conversion.bits_per_parameter:.2f} bits a parameter"
    )
    if conversion.mtp_bytes:
        console.note(f"kept its layers for multi-token prediction: {format_bytes(conversion.mtp_bytes)}")
