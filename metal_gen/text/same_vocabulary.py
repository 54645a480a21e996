"""Compares two vocabularies by what their ids mean, whatever else their tokenizers do."""

from metal_gen.text.tokenizer import Tokenizer


def different_token(one: Tokenizer, other: Tokenizer) -> tuple[int, str, str] | None:
    """Return the lowest id that means another token in the other vocabulary, and both tokens.

    Ids that only one vocabulary has do not count: newer models of a family have more added tokens.

    Returns:
        None if all ids that both have mean the same.
    """
    ours, theirs = (
        {token: text for text, token in tokenizer.ids.items() if token < tokenizer.vocab_size}
        for tokenizer in (one, other)
    )
    different = [token for token in ours.keys() & theirs.keys() if ours[token] != theirs[token]]
    if not different:
        return None
    token = min(different)
    return token, ours[token], theirs[token]
