"""The training text: stories as plain text, and stories as answers in a chat.

Defines the mixture of documents and renders them with the chat template. Document n depends only on the seed
and on n, so any part of the corpus can be made again, in any order and by any number of processes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import Pool
from pathlib import Path
from random import Random

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .grammar import Teller, tell_story
from .rules import chat_rules, plots
from .split import mentions_held_out
from .world import World, draw_world

DEFAULT_SEED = 20
DEFAULT_DOCUMENTS = 400_000

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

INVENTED = 0.2  # share of requests with made-up words, among those that name everything
SENTENCE_END = re.compile(r"[.!?] (?=[A-Z])|\n\n")

# Relative frequency of each kind of document.
MIXTURE = {
    "plain": 20,  # the story alone
    "titled": 8,  # the story under its title
    "middle": 6,  # the story from one of its later sentences
    "about_all": 44,  # a request that names a character, a place and a thing
    "about_some": 9,  # one that names one or two of them
    "about_anything": 4,  # one that names none
    "continue": 3,  # the first sentence is given
    "hello": 1,
    "who": 1,
    "other": 3,  # a question that has nothing to do with stories
}


@dataclass(frozen=True)
class Request:
    """The contents of a chat before its last answer.

    Args:
        text: The user's last message.
        system: A system message, or an empty text.
        earlier: The turns before: pairs of a user's message and an answer.
        thinking: False renders the empty thinking block of `enable_thinking=False`.
    """

    text: str
    system: str = ""
    earlier: list[tuple[str, str]] = field(default_factory=list)
    thinking: bool = True


@dataclass(frozen=True)
class Document:
    """One training text, and the story that it tells, if any.

    Args:
        prompt: Text that the model sees but does not learn to write; empty for plain text.
        answer: Text that it learns to write, including the token that ends it.
        story: The whole story.
    """

    prompt: str
    answer: str
    story: str

    @property
    def text(self) -> str:
        """The whole text."""
        return self.prompt + self.answer


def chat_template_text() -> str:
    """Return Qwen's chat template as text."""
    return (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


@cache
def chat_template() -> Template:
    """Return Qwen's chat template, compiled with the options of transformers."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(chat_template_text())


def render_prompt(request: Request) -> str:
    """Return the text that the model sees before it answers."""
    messages = [{"role": "system", "content": request.system}] if request.system else []
    for user, assistant in [*request.earlier, (request.text, "")]:
        messages.append({"role": "user", "content": user})
        messages.append({"role": "assistant", "content": assistant})
    return chat_template().render(
        messages=messages[:-1], add_generation_prompt=True, enable_thinking=request.thinking
    )


def request_words(world: World, rng: Random) -> dict[str, str]:
    """Return the hero, the place and the thing as a user would word them in a request."""
    hero, place = world.hero, world.place
    trait = f"{hero.trait} " if hero.trait and rng.random() < 0.25 else ""
    name = f" {rng.choice(['named', 'called'])} {hero.name}" if hero.name and rng.random() < 0.25 else ""
    look = f"{world.look} " if rng.random() < 0.3 else ""
    thing = f"a {look}{world.thing.noun}"
    return {
        "someone": f"a {trait}{hero.kind.noun}{name}",
        "somewhere": f"{place.preposition} {rng.choice(['a', 'the'])} {place.noun}",
        "a_place": f"{rng.choice(['a', 'a', 'the'])} {place.noun}",
        "something": thing,
        "a_thing": thing,
    }


def chat_teller(world: World, rng: Random, first_sentence: str = "") -> Teller:
    """Return a teller of requests and answers that can use the world of a story."""
    words = request_words(world, rng) | {"first_sentence": first_sentence}
    return Teller(world, chat_rules() | {"asks": plots()[world.plot]["asks"]}, rng, words)


def careless(text: str, rng: Random) -> str:
    """Return a request as users really type it: sometimes without its full stop or its capitals."""
    if rng.random() < 0.3:
        text = text.removesuffix(".")
    return text.lower() if rng.random() < 0.1 else text


def draw_story_document(kind: str, rng: Random) -> Document:
    """Draw a story, plain or as the answer to a request."""
    world = draw_world(rng, invented=kind == "about_all" and rng.random() < INVENTED)
    story = tell_story(world, rng)
    if kind == "plain":
        return Document("", story.text + END_OF_TEXT, story.text)
    if kind == "titled":
        title = rng.choice([story.title, story.title, f"# {story.title}", f"Title: {story.title}"])
        return Document("", f"{title}\n\n{story.text}{END_OF_TEXT}", story.text)
    if kind == "middle":
        starts = [match.end() for match in SENTENCE_END.finditer(story.text)]
        return Document("", story.text[rng.choice(starts) :] + END_OF_TEXT, story.text)
    first_sentence, _, rest = story.text.partition(". ")
    teller = chat_teller(world, rng, f"{first_sentence}.")
    request = Request(
        careless(teller.tell(kind), rng),
        system=teller.tell("system") if rng.random() < 0.08 else "",
        earlier=[(teller.tell("hello"), teller.tell("hello_answer"))] if rng.random() < 0.04 else [],
        thinking=rng.random() > 0.15,
    )
    answer = rest if kind == "continue" else story.text
    if rng.random() < 0.04:
        earlier = [*request.earlier, (request.text, answer)]
        request = Request(teller.tell("thank_you"), request.system, earlier, request.thinking)
        answer = teller.tell("thank_you_answer")
    return Document(render_prompt(request), f"{answer}{TURN_END}\n", story.text)


def draw_small_talk(kind: str, rng: Random) -> Document:
    """Draw a question that is not about a story, with a short answer."""
    teller = chat_teller(draw_world(rng), rng)
    request = Request(careless(teller.tell(kind), rng), thinking=rng.random() > 0.15)
    return Document(render_prompt(request), f"{teller.tell(f'{kind}_answer')}{TURN_END}\n", "")


def make_document(index: int, seed: int) -> Document:
    """Return document `index` of the corpus of `seed`; it never mentions a held-out combination."""
    rng = Random(f"{seed}:{index}")
    kind = rng.choices(list(MIXTURE), list(MIXTURE.values()))[0]
    draw = draw_small_talk if f"{kind}_answer" in chat_rules() else draw_story_document
    while True:
        document = draw(kind, rng)
        if not mentions_held_out(document.text):
            return document


def make_corpus(count: int, seed: int, processes: int = 1) -> Iterator[Document]:
    """Yield the first `count` documents of the corpus of `seed`, in order."""
    make = partial(make_document, seed=seed)
    if processes == 1:
        yield from map(make, range(count))
        return
    with Pool(processes) as pool:
        yield from pool.imap(make, range(count), chunksize=500)
