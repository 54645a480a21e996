"""The byte-level alphabet: characters that stand for bytes in a vocabulary."""

# Normalization (NFC) makes a character from up to four times its bytes, but only these from ASCII.
MOST_SHRINKING = 4
MADE_BY_NORMALIZING = frozenset(b";K`")
# Not a character of Latin-1.
_NO_BYTE = "\uffff"


def _byte_level_alphabet() -> dict[str, int]:
    """Return the byte that each character stands for in a byte-level vocabulary.

    Printable bytes stand for themselves, and the others are written as characters from U+0100 on.
    Source: `bytes_to_unicode` of GPT-2's encoder.py.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return alphabet


ALPHABET = _byte_level_alphabet()


class _Bytes(dict[int, str]):
    """Maps each character of the alphabet to the Latin-1 character of its byte, and no other to one."""

    def __missing__(self, character: int) -> str:
        return _NO_BYTE


_LATIN = _Bytes({ord(character): chr(byte) for character, byte in ALPHABET.items()})


def token_bytes(text: str) -> bytes:
    """Return the bytes of a token from its text in the vocabulary."""
    try:
        # A vocabulary of 151,936 tokens takes 0.1 s.
        return text.translate(_LATIN).encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def most_bytes(token: bytes) -> int:
    """Return the length in bytes of the longest text that is normalized to the bytes of a token."""
    return sum(1 if byte < 0x80 and byte not in MADE_BY_NORMALIZING else MOST_SHRINKING for byte in token)
