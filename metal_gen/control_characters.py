"""Makes control characters visible, so that a terminal does not obey them."""

import re

# C0 except tab and newline, DEL, C1, and the marks that reorder or hide text.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Replace control characters by visible ones: ESC becomes U+241B."""
    return CONTROLS.sub(lambda match: _picture(ord(match[0])), text)


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"
