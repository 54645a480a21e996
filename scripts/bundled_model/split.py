"""Defines the combinations of character, place and thing that are held out from training.

A checksum of the three nouns holds out one combination in ten, so the rule needs no list and does not change
with a seed. No training text may mention all three nouns of a held-out combination, in any roles.
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
    """Return whether this combination of nouns is reserved for the evaluation."""
    return zlib.crc32(f"{character}|{place}|{thing}".encode()) % HELD_OUT_ONE_IN == 0


def mentioned_nouns(text: str) -> set[str]:
    """Return the vocabulary's nouns that a text mentions, in any case, singular or plural."""
    words = WORD.findall(text.lower())
    pairs = map(" ".join, pairwise(words))
    triples = map(" ".join, zip(words, words[1:], words[2:], strict=False))
    return {FORMS[phrase] for phrase in {*words, *pairs, *triples} & FORMS.keys()}


def mentions_held_out(text: str) -> bool:
    """Return whether a text mentions all three nouns of a held-out combination."""
    nouns = mentioned_nouns(text)
    trios = product(nouns & CHARACTER_NOUNS, nouns & PLACE_NOUNS, nouns & THING_NOUNS)
    return any(is_held_out(*trio) for trio in trios)
