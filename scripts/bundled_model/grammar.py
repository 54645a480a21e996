"""A seeded grammar of short children's stories.

Expands rules for a world and turns the result into correct English. The sentences are in the rule files, the
words in `world.py`; this module does not know tokens or training.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from .rules import Rules, lean, plots
from .world import World

CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)(\??)\}")
ARTICLE = re.compile(r"\b([Aa])n? (?=(\w+))")
SMALL_TITLE_WORDS = {"a", "an", "and", "for", "in", "of", "on", "the", "to", "with"}


def fix_articles(text: str) -> str:
    """Use "an" before a vowel and "a" otherwise."""

    def article(match: re.Match[str]) -> str:
        word = match[2].lower()
        vowel = word[0] in "aeiou" and not word.startswith(("uni", "use", "one", "eu"))
        return f"{match[1]}n " if vowel or word.startswith(("hour", "honest")) else f"{match[1]} "

    return ARTICLE.sub(article, text)


def title_case(text: str) -> str:
    """Capitalize every word of a title except the small ones inside it."""
    words = text.split(" ")
    return " ".join(
        word.lower() if index and word.lower() in SMALL_TITLE_WORDS else word[:1].upper() + word[1:]
        for index, word in enumerate(words)
    )


class Teller:
    """Expands rules for one world, preferring alternatives that it has not used yet.

    Args:
        world: The world of the story.
        rules: The alternatives of every rule.
        rng: The only source of randomness.
        extra: More words for the rules, or replacements of the world's words.
    """

    def __init__(self, world: World, rules: Rules, rng: Random, extra: dict[str, str] | None = None) -> None:
        self.world = world
        self.rules = rules
        self.rng = rng
        self.words = world.words() | (extra or {})
        self.subjects = (world.hero.kind.noun, world.place.noun, world.thing.noun)
        self.told: set[str] = set()

    def tell(self, rule: str) -> str:
        """Expand a rule into finished English."""
        text = self._expand(self._pick(rule))
        return fix_articles(re.sub(r" *// *", "\n\n", " ".join(text.split())))

    def _fresh(self, alternatives: Sequence[str]) -> Sequence[str]:
        """Return the alternatives that this story has not used; all of them if all are used."""
        return [a for a in alternatives if a not in self.told] or alternatives

    def _pick(self, rule: str) -> str:
        """Pick an alternative of a rule; each rule leans with the hero, the place or the thing."""
        subject = self.subjects[zlib.crc32(rule.encode()) % len(self.subjects)]
        choice = lean(self.rng, subject, self._fresh(self.rules[rule]))
        self.told.add(choice)
        return choice

    def _place_detail(self, details: Sequence[str]) -> str:
        """Pick a scene or a spot of the place."""
        choice = self.rng.choice(self._fresh(details))
        self.told.add(choice)
        return choice

    def _expand(self, text: str) -> str:
        """Resolve the [this|that] choices, then fill the slots."""
        text = CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), text)
        return SLOT.sub(self._slot, text)

    def _slot(self, match: re.Match[str]) -> str:
        """Return the text of one slot: a word of the world, or the expansion of another rule."""
        if match[2] and self.rng.random() < 0.5:
            return ""
        key = match[1].lower()
        if key in self.words:
            text = self.words[key]
        elif key == "hero":
            text = self._hero()
        elif key in ("scene", "spot"):
            text = self._place_detail(self.world.place.scenes if key == "scene" else self.world.place.spots)
        else:
            text = self._expand(self._pick(key))
        return text[:1].upper() + text[1:] if match[1][0].isupper() else text

    def _hero(self) -> str:
        """Return the hero's name or kind."""
        if self.world.hero.name and self.rng.random() < 0.65:
            return self.world.hero.name
        return f"the {self.world.hero.kind.noun}"


@dataclass(frozen=True)
class Story:
    """A told story."""

    world: World
    title: str
    text: str


def tell_story(world: World, rng: Random) -> Story:
    """Tell one story of a world; the same world and state of `rng` give the same story."""
    teller = Teller(world, plots()[world.plot], rng)
    return Story(world, title_case(teller.tell("title")), teller.tell("story"))
