"""Checks, before a model's weights are read, that a text can be written within a constraint."""

import time
from collections.abc import Mapping, Set
from random import Random
from typing import Any

from metal_gen.constraints.constraint import Constraint, is_limit
from metal_gen.constraints.library import llguidance, new_matcher
from metal_gen.errors import UsageError
from metal_gen.text.tokenization import byte_level
from metal_gen.text.tokenizer import Tokenizer

# Other bytes would begin a character that is written in fewer bytes, or one beyond Unicode.
UTF8_BYTES = frozenset(range(256)) - {0xC0, 0xC1, *range(0xF5, 0x100)}
# Texts to follow a constraint for, the tokens of each, and the seconds after which no more are tried.
MOST_TEXTS, LONGEST_TEXT = 32, 256
MOST_S = 0.3
# These end the values of a document. They are tried more often, so that its end is reached.
MARKS = frozenset(b'"{}[],:')
MARKS_WEIGHT = 16
# What the library says where nothing can come next.
NOTHING_FITS = "NoExtension"
ENDLESS_HINT = "correct it, or make it smaller"
UNREADABLE = "\ufffd"
# Stands for an added token among the bytes that must come.
ADDED_TOKEN = 0xFF


def require_text(constraint: Constraint, added: Mapping[str, int]) -> None:
    """Check the grammar, with bytes for tokens.

    Args:
        constraint: The constraint.
        added: Added tokens of the model by their text, which a grammar may name.

    Raises:
        UsageError: The library cannot keep to the constraint; or nothing, only the empty text, or no
            text that ends soon fits it.
    """
    letters = _Bytes(added)
    table = llguidance().LLTokenizer(
        letters, n_vocab=len(letters.tokens), eos_token=letters.eos_token_id, slices=[]
    )
    matcher = new_matcher(table, constraint.library_grammar)
    allowed = _places(_bits(constraint, matcher))
    if not allowed:
        raise _nothing_fits(constraint)
    if allowed == [letters.eos_token_id]:
        raise UsageError(f"only the empty text fits the {constraint.kind}", "correct it, or leave it out")
    _require_end(constraint, matcher)


def _require_end(constraint: Constraint, matcher: Any) -> None:
    """Check that what must come first has an end, and that something fits after it.

    Raises:
        UsageError: The library has reached one of its limits, or nothing fits there.
    """
    matcher.consume_tokens(matcher.compute_ff_tokens())
    # The library looks ahead to what must come after these.
    if matcher.is_error() and is_limit(matcher.get_error()):
        raise UsageError(f"no text that ends soon fits the {constraint.kind}", ENDLESS_HINT)
    if not _bits(constraint, matcher).strip(b"\0"):
        raise _nothing_fits(constraint)


def _nothing_fits(constraint: Constraint) -> UsageError:
    return UsageError(f"no text fits the {constraint.kind}", "correct it")


def lacks_bytes(tokenizer: Tokenizer) -> bool:
    """Return whether some byte of UTF-8 has no token of its own."""
    return not _tokens_of_bytes(tokenizer).keys() >= UTF8_BYTES


def _tokens_of_bytes(tokenizer: Tokenizer) -> dict[int, int]:
    tokens = ((byte, tokenizer.id_of(letter)) for letter, byte in byte_level.ALPHABET.items())
    return {byte: token for byte, token in tokens if token is not None and token < tokenizer.vocab_size}


def require_writable(constraint: Constraint, matcher: Any, tokenizer: Tokenizer) -> None:
    """Check that a model has the bytes that a constraint needs, as far as trying some texts shows.

    Args:
        constraint: The constraint.
        matcher: Its matcher at the beginning of a text, with the tokens of the model.
        tokenizer: Tokenizer of the model.

    Raises:
        UsageError: A text comes to a place where no token fits, or must have a byte that is in no token.
    """
    added = set(tokenizer.added_ids.values())
    every = [text for token, text in enumerate(tokenizer.all_token_bytes()) if text and token not in added]
    begins, contained = {text[0] for text in every}, set(b"".join(every))
    # Texts of single bytes come through all parts of a grammar soon.
    alone = [(token, byte) for byte, token in _tokens_of_bytes(tokenizer).items()]
    random, end_s = Random(0), time.monotonic() + MOST_S
    for _ in range(MOST_TEXTS):
        text = matcher.deep_copy()
        for _ in range(LONGEST_TEXT):
            if (text.is_stopped() and text.is_accepting()) or time.monotonic() > end_s:
                break
            needed = bytes(text.compute_ff_bytes())
            bits = _bits(constraint, text)
            if not bits.strip(b"\0") or _lacking(needed, begins, contained):
                raise _missing(constraint, _lacking(needed, begins, contained) or needed)
            tried = [pair for pair in alone if bits[pair[0] // 8] >> pair[0] % 8 & 1]
            tried = tried or [(token, ADDED_TOKEN) for token in _places(bits)]
            weights = [MARKS_WEIGHT if byte in MARKS else 1 for _, byte in tried]
            text.consume_token(random.choices(tried, weights)[0][0])


def _lacking(needed: bytes, begins: Set[int], contained: Set[int]) -> bytes:
    """Return bytes that must come next from the first that cannot; nothing if all can.

    Args:
        needed: The bytes.
        begins: Bytes that a token begins with.
        contained: Bytes that a token has anywhere.
    """
    for place, byte in enumerate(needed):
        if byte == ADDED_TOKEN:
            return b""  # What follows names an added token.
        if byte not in (begins if place == 0 else contained):
            return needed[place:]
    return b""


def _missing(constraint: Constraint, needed: bytes) -> UsageError:
    """Return the error for bytes that must come next and cannot; none if several could come."""
    what = "a character"
    if needed:
        shown = needed.decode(errors="replace")[0]
        what = f"the byte 0x{needed[0]:02x}" + ("" if shown == UNREADABLE else f" of {shown!r}")
    return UsageError(
        f"the {constraint.kind} needs {what}, for which this model has no token",
        "use other characters, or a model that has them",
    )


def _bits(constraint: Constraint, matcher: Any) -> bytes:
    """Return the bits of the tokens that may come next: none if none can.

    Raises:
        UsageError: The library has reached one of its limits.
    """
    bits = bytes(matcher.compute_bitmask())
    if not matcher.is_error():
        return bits
    if NOTHING_FITS not in matcher.get_error():
        raise constraint.refusal(matcher.get_error())
    return bytes(len(bits))


def _places(bits: bytes) -> list[int]:
    """Return the tokens whose bits are set."""
    return [8 * place + bit for place, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1]


class _Bytes:
    """A vocabulary of single bytes, in the form that `LLTokenizer` reads."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, added: Mapping[str, int]) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)]
        self.tokens += [text.encode() for text in added]
        self.eos_token_id = len(self.tokens)
        self.tokens.append(b"<end of text>")
        self.special_token_ids = list(range(256, len(self.tokens)))

    def __call__(self, text: bytes | str) -> list[int]:
        """Encode a part of a text."""
        return list(text if isinstance(text, bytes) else text.encode())
