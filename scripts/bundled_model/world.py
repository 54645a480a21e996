"""The world of a story: who, where, about what, and which plot.

Draws characters with their names and traits, and provides a world's words to the rules. The kinds of
characters, places and things are in the modules of those names.
"""

from dataclasses import dataclass
from random import Random

from .characters import CHARACTERS, TRAITS, Character
from .places import PLACES, Place
from .rules import lean, plots
from .things import LOOKS, THINGS, Thing

HE_NAMES = "Adam Arthur Elias Henry Jonas Kofi Leon Liam Lucas Mateo Noah Oscar Paul Ravi Tom Yusuf".split()
SHE_NAMES = "Alice Aisha Clara Ellen Emma Hana Ines Julia Kira Lena Lucy Mary Nina Priya Rosa Sarah".split()
PRONOUNS = {"he": ("he", "him", "his", "himself"), "she": ("she", "her", "her", "herself")}

# The parts of made-up words.
ONSETS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sc sh sl sn sp st str t th tr v w z"
).split()
VOWELS = "a e i o u a e i o u ai au ea ee ie oa oo ou y".split()
CODAS = "b ck d ff g l ll lt m mp n nd ng nt p r rd rk rn rt s sh ss st t ve x".split()


@dataclass(frozen=True)
class Someone:
    """A character of one story: a kind, perhaps with a trait and a name."""

    kind: Character
    pronoun: str
    trait: str
    name: str

    def introduced(self) -> str:
        """Return an introduction such as "a clever fox named Ruby"."""
        named = f" named {self.name}" if self.name else ""
        return f"a {self.trait} {self.kind.noun}".replace("  ", " ") + named


@dataclass(frozen=True)
class World:
    """Everything that is fixed before a story is told."""

    hero: Someone
    helper: Someone
    place: Place
    thing: Thing
    look: str
    plot: str

    def words(self) -> dict[str, str]:
        """Return the words that the rules can use, by their names in the rule files."""
        he, him, his, himself = PRONOUNS[self.hero.pronoun]
        helper_he, helper_him, helper_his, _ = PRONOUNS[self.helper.pronoun]
        kind, helper = self.hero.kind, self.helper.kind
        return {
            "kind": kind.noun, "name": self.hero.name, "a_hero": self.hero.introduced(),
            "he": he, "him": him, "his": his, "himself": himself, "moved": kind.moved, "said": kind.said,
            "helper": helper.noun, "a_helper": self.helper.introduced(),
            "helper_he": helper_he, "helper_him": helper_him, "helper_his": helper_his,
            "helper_moved": helper.moved, "helper_said": helper.said,
            "place": self.place.noun, "at_place": f"{self.place.preposition} the {self.place.noun}",
            "thing": self.thing.noun, "look": self.look, "use": self.thing.use, "used": self.thing.used,
        }  # fmt: skip


def draw_someone(rng: Random, kind: Character) -> Someone:
    """Give a kind of character a sex, and often a trait and a name."""
    pronoun = rng.choice([p for p, names in (("he", kind.he_names), ("she", kind.she_names)) if names])
    own_names = (kind.he_names if pronoun == "he" else kind.she_names).split()
    other_names = HE_NAMES if pronoun == "he" else SHE_NAMES
    name = rng.choice(own_names if rng.random() < 0.8 else other_names) if rng.random() < 0.55 else ""
    trait = rng.choice(kind.traits.split() if rng.random() < 0.5 else TRAITS) if rng.random() < 0.8 else ""
    return Someone(kind, pronoun, trait, name)


def invent_noun(rng: Random) -> str:
    """Return a word in no dictionary, such as "blimbo", for requests with unknown words."""
    syllables = [
        rng.choice(ONSETS) + rng.choice(VOWELS) + (rng.choice(CODAS) if rng.random() < 0.5 else "")
        for _ in range(rng.choice([1, 2, 2, 2, 3, 3]))
    ]
    return "".join(syllables).removeprefix(rng.choice(["b", "f", "m", "t", "d", "-"]))


def draw_world(rng: Random, invented: bool = False) -> World:
    """Choose who, where, what and the plot.

    Args:
        rng: The only source of randomness.
        invented: Give the hero, the place and the thing made-up nouns, each half of the time.
    """
    hero_kind, place, thing = rng.choice(CHARACTERS), rng.choice(PLACES), rng.choice(THINGS)
    others = {character.noun: character for character in CHARACTERS if character is not hero_kind}
    helper_kind = others[lean(rng, hero_kind.noun, list(others))]
    plot = lean(rng, thing.noun, sorted(plots()))
    if invented and rng.random() < 0.5:
        hero_kind = Character(invent_noun(rng), "Zed", "Zora", "strange", "wandered", "said")
    if invented and rng.random() < 0.5:
        place = Place(invent_noun(rng), place.preposition, place.scenes, place.spots)
    if invented and rng.random() < 0.5:
        thing = Thing(invent_noun(rng), thing.looks, thing.use, thing.used)
    look = rng.choice(thing.looks.split() if rng.random() < 0.5 else LOOKS)
    hero, helper = draw_someone(rng, hero_kind), draw_someone(rng, helper_kind)
    return World(hero, helper, place, thing, look, plot)
