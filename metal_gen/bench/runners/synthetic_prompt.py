"""Prompts of any length that are the same on every machine."""

import random

from metal_gen.text.tokenizer import Tokenizer

SEED = 20240229


def synthetic_prompt(tokenizer: Tokenizer, length: int) -> list[int]:
    """Return ordinary token ids: no special or added tokens, and none without text.

    A shorter prompt is a prefix of a longer one.
    """
    stream = random.Random(SEED)
    added = frozenset(tokenizer.added_ids.values())
    ids: list[int] = []
    while len(ids) < length:
        token = stream.randrange(tokenizer.vocab_size)
        if token not in added and tokenizer.token_bytes(token):
            ids.append(token)
    return ids
