"""Which combinations of character, place and thing training never sees.

Owns the held-out rule and the test of whether a text mentions a word. One in ten of the combinations is held
out, by a checksum of its three nouns, so that the rule needs no list and never changes with a seed. No
training text may mention all three nouns of a held-out combination, in whatever roles.
"""

import re
import zlib
from itertools import pairwise, product

from .characters import CHARACTERS
from .places import PLACES
from .things import THINGS

HELD_OUT_ONE_IN = 10

CHARACTER_NOUNS = frozenset(character.noun for character in CHARACTERS)
PLACE_NOUNS = frozenset(place.noun for place in PLACES)
THING_NOUNS = frozenset(thing.noun for thing in THINGS)
NOUNS = CHARACTER_NOUNS | PLACE_NOUNS | THING_NOUNS

WORD = re.compile("[a-z]+")
FORMS = {noun + ending: noun for noun in NOUNS for ending in ("", "s", "es")}


def is_held_out(character: str, place: str, thing: str) -> bool:
    """Whether this combination of nouns is kept for the measurement."""
    return zlib.crc32(f"{character}|{place}|{thing}".encode()) % HELD_OUT_ONE_IN == 0


def mentioned_nouns(text: str) -> set[str]:
    """The vocabulary's nouns that a text mentions, in any case, singular or plural."""
    words = WORD.findall(text.lower())
    pairs = map(" ".join, pairwise(words))
    triples = map(" ".join, zip(words, words[1:], words[2:], strict=False))
    return {FORMS[phrase] for phrase in {*words, *pairs, *triples} & FORMS.keys()}


def mentions_held_out(text: str) -> bool:
    """Whether a text mentions all three nouns of any held-out combination."""
    nouns = mentioned_nouns(text)
    trios = product(nouns & CHARACTER_NOUNS, nouns & PLACE_NOUNS, nouns & THING_NOUNS)
    return any(is_held_out(*trio) for trio in trios)
