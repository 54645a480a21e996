"""A tokenizer for a checkpoint that has none: as many tokens as the published one, none of them a word."""

import json
from itertools import chain, islice, product
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from metal_gen.text.tokenization.byte_level import ALPHABET
from scripts.random_checkpoint.shapes import SPECIAL_TOKENS


def write_tokenizer(folder: Path, ordinary: int) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    The tokens are all single bytes, all pairs of bytes, and so on. There are no merges, so that a text is
    encoded byte by byte.

    Args:
        folder: Folder of the files.
        ordinary: Number of ordinary tokens. The special ones follow.

    Raises:
        OSError: A file cannot be written.
    """
    texts = chain.from_iterable(product(ALPHABET, repeat=length) for length in (1, 2, 3))
    vocabulary = {"".join(text): token for token, text in enumerate(islice(texts, ordinary))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": SPECIAL_TOKENS[-1]}))
