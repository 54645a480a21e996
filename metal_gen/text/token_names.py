"""Finds tokens that the user names by text or id."""

from metal_gen.errors import UsageError
from metal_gen.text.tokenizer import Tokenizer

LONGEST_ID = 20


def token_id(tokenizer: Tokenizer, name: str) -> int:
    """Find the token with this name.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        name: An id in digits; or the text of a token, including special ones such as `<|im_end|>`; or a
            text that is encoded as a single token.

    Raises:
        UsageError: There is no such token.
    """
    if name.isascii() and name.isdecimal():
        if len(name) > LONGEST_ID or int(name) >= tokenizer.vocab_size:
            raise UsageError(
                f"there is no token {name[:LONGEST_ID]}: the vocabulary ends at {tokenizer.vocab_size - 1}",
                "name it by its text, or by an id of this model",
            )
        return int(name)
    if name in tokenizer.added_ids:
        return tokenizer.added_ids[name]
    ids = tokenizer.encode(name, add_special_tokens=False)
    if len(ids) != 1:
        raise UsageError(
            f"there is no single token {name!r}: it takes {len(ids)} tokens",
            f"name one of them by its id: {', '.join(map(str, dict.fromkeys(ids[:8])))}" if ids else "",
        )
    return ids[0]
