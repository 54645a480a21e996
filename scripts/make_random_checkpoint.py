"""Writes a checkpoint with random weights in the shape of a published model, to measure speed and memory.

    python -m scripts.make_random_checkpoint qwen3-8b OUT
    python -m scripts.make_random_checkpoint qwen3.5-35b-a3b OUT --layers 12 --tokenizer FOLDER
    python -m scripts.make_random_checkpoint qwen3-8b OUT --right 0.7 --draft DRAFT
    python -m scripts.make_random_checkpoint qwen3.5-4b OUT --right 0.85

Run it from the repository's root. The tensors are those of the published language model and, for Qwen3.5, of
its layers for multi-token prediction (MTP), but no part that reads images. Without `--tokenizer`, tokens are
bytes, pairs of bytes and so on, as many as published. generation_config.json only says which tokens end a
text, so that sampling is metal-gen's own. The same seed gives the same weights on the same kind of device.

`--right` is for measuring speculation: each token then has a fixed next token, which the draft model (a
Qwen3-0.6B) or the MTP layers guess for this share of the tokens. Such a model has a head of its own, although
small published ones share it with the embedding.

Memory holds a small block of one tensor at a time. Two cores of a CPU took 45 s for a billion weights.
"""

import argparse
import sys
import time
from pathlib import Path

from metal_gen.device.backend import DTYPE_BYTES, dtype_named, require_mlx
from metal_gen.errors import MetalGenError, UsageError

require_mlx()

from metal_gen.conversion.new_folder import NewFolder  # noqa: E402
from scripts.random_checkpoint.next_tokens import NextTokens  # noqa: E402
from scripts.random_checkpoint.numbers import RandomNumbers  # noqa: E402
from scripts.random_checkpoint.shapes import (  # noqa: E402
    SHAPES,
    Config,
    end_of_text,
    is_hybrid,
    published_config,
)
from scripts.random_checkpoint.write import write_checkpoint  # noqa: E402

DRAFT_SHAPE = "qwen3-0.6b"


def main(arguments: list[str] | None = None) -> int:
    """Write the checkpoint, print its size, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", choices=SHAPES, metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to create")
    parser.add_argument("--layers", type=int, help="keep so many of the layers")
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="copy the tokenizer of a checkpoint")
    parser.add_argument("--dtype", choices=DTYPE_BYTES, default="bfloat16", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--right", type=share, metavar="SHARE", help="of right guesses, 0 to 1")
    parser.add_argument("--draft", type=Path, metavar="OUT2", help="folder to create for the draft model")
    wanted = parser.parse_args(arguments)
    try:
        make(wanted)
    except MetalGenError as error:
        print(f"make_random_checkpoint: {error.message}", file=sys.stderr)
        return int(error.exit_code)
    return 0


def make(wanted: argparse.Namespace) -> None:
    """Write the checkpoint, and its draft model if there is one."""
    needs_draft = wanted.right is not None and not is_hybrid(SHAPES[wanted.shape])
    if needs_draft != (wanted.draft is not None):
        raise UsageError(
            f"--right of {wanted.shape} needs --draft"
            if needs_draft
            else "--draft needs --right and a shape without MTP layers"
        )
    out = NewFolder(wanted.out)
    draft_out = NewFolder(wanted.draft) if needs_draft else None
    if draft_out is not None and draft_out.path == out.path:
        raise UsageError(f"{wanted.out} cannot be both the model and its draft")
    config = config_of(wanted, wanted.shape, wanted.layers)
    if wanted.right is None:
        around_zero = is_hybrid(config)
        numbers = RandomNumbers(dtype_named(wanted.dtype), wanted.seed, around_zero=around_zero)
    else:
        numbers = next_tokens(wanted, config, 1.0 if needs_draft else wanted.right)
    write(wanted, config, out, numbers)
    if draft_out is not None:
        draft = config_of(wanted, DRAFT_SHAPE, None)
        write(wanted, draft, draft_out, next_tokens(wanted, draft, wanted.right))


def config_of(wanted: argparse.Namespace, shape: str, layers: int | None) -> Config:
    """Return the contents of config.json."""
    changes = {} if wanted.right is None else {"tie_word_embeddings": False}
    return published_config(shape, layers=layers, dtype=wanted.dtype, **changes)


def next_tokens(wanted: argparse.Namespace, config: Config, right: float) -> NextTokens:
    """Return what makes weights with fixed next tokens."""
    return NextTokens(
        dtype_named(wanted.dtype),
        wanted.seed,
        around_zero=is_hybrid(config),
        vocab_size=config.get("text_config", config)["vocab_size"],
        ordinary=end_of_text(config),
        right=right,
        in_mtp=is_hybrid(config),
    )


def write(wanted: argparse.Namespace, config: Config, out: NewFolder, numbers: RandomNumbers) -> None:
    """Write a checkpoint, and print its size."""
    begin_s = time.perf_counter()
    nbytes = write_checkpoint(config, out, numbers, tokenizer=wanted.tokenizer)
    print(f"{out.path}: {nbytes / 1e9:.2f} GB of weights in {time.perf_counter() - begin_s:.0f} s")


def share(text: str) -> float:
    """Return a number from 0 to 1.

    Raises:
        ValueError: It is none.
    """
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
