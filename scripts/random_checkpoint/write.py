"""Writes a whole checkpoint: weights, config.json, generation_config.json and tokenizer."""

import errno
import json
import shutil
from pathlib import Path

from metal_gen.conversion.convert import TOKENIZER_FILES
from metal_gen.conversion.new_folder import NewFolder
from metal_gen.errors import DoesNotFitError, MetalGenError, UsageError
from scripts.random_checkpoint.numbers import RandomNumbers
from scripts.random_checkpoint.shapes import SPECIAL_TOKENS, Config, end_of_text
from scripts.random_checkpoint.tensors import stored_name, tensor_shapes
from scripts.random_checkpoint.tokenizer import write_tokenizer
from scripts.random_checkpoint.weight_files import write_weights

# As published.
SHARD_BYTES = 5_000_000_000


def write_checkpoint(
    config: Config,
    out: NewFolder,
    numbers: RandomNumbers,
    *,
    tokenizer: Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Write a checkpoint, and return the bytes of its weights.

    Args:
        config: Contents of config.json.
        out: The folder to write.
        numbers: Makes the tensors.
        tokenizer: Folder whose tokenizer is copied; None makes one of as many tokens.
        shard_bytes: Maximum size of a weight file, unless a single tensor is larger.

    Raises:
        UsageError: The folder for the tokenizer has none.
        DoesNotFitError: The disk has too little room; nothing is left behind.
        MetalGenError: The folder cannot be written for another reason; nothing is left behind.
    """
    if tokenizer is not None and not (tokenizer / TOKENIZER_FILES[0]).is_file():
        raise UsageError(f"{tokenizer} has no {TOKENIZER_FILES[0]}")
    first = end_of_text(config)
    ends = [first + SPECIAL_TOKENS.index("<|im_end|>"), first]
    with out:
        try:
            total_bytes = write_weights(
                out.part,
                tensor_shapes(config),
                numbers,
                shard_bytes=shard_bytes,
                stored_as=lambda name: stored_name(name, config),
            )
            (out.part / "config.json").write_text(json.dumps(config, indent=2))
            (out.part / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
            if tokenizer is None:
                write_tokenizer(out.part, first)
            else:
                for path in filter(Path.is_file, (tokenizer / name for name in TOKENIZER_FILES)):
                    shutil.copyfile(path, out.part / path.name)
            out.publish()
        except OSError as error:
            message = f"{out.path} cannot be written: {error.strerror or error}"
            raise (DoesNotFitError if error.errno == errno.ENOSPC else MetalGenError)(message) from error
    return total_bytes
