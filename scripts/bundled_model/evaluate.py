"""Evaluates a story model on requests for combinations that its training text does not contain.

Run from the repository's root: `python -m scripts.bundled_model.evaluate` evaluates the bundled checkpoint
with metal-gen; `--engine transformers` does the same with the reference implementation. Every story is
generated greedily, with at most 400 tokens.
"""

import argparse
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from .corpus import DEFAULT_DOCUMENTS, DEFAULT_SEED, chat_teller, make_corpus
from .split import FORMS, is_held_out, mentioned_nouns
from .world import draw_world

MAX_TOKENS = 400
NOUN_WORDS = frozenset(word for form in FORMS for word in form.split())


@dataclass(frozen=True)
class Request:
    """A request and the three nouns that its story must mention."""

    text: str
    character: str
    place: str
    thing: str


@dataclass(frozen=True)
class Answer:
    """The model's answer to a request; `finish_reason` is "stop" or "length"."""

    text: str
    finish_reason: str


@dataclass(frozen=True)
class Report:
    """Shares of the requests, each from 0 to 1."""

    requests: int
    mentions_character: float
    mentions_place: float
    mentions_thing: float
    mentions_all_three: float
    ends_by_itself: float
    copies_no_story: float
    copies_no_story_with_words_swapped: float
    all_different: float


def held_out_requests(count: int, seed: int) -> list[Request]:
    """Return requests in many wordings, each for a different held-out combination."""
    rng = Random(f"held out {seed}")
    requests: dict[tuple[str, str, str], Request] = {}
    while len(requests) < count:
        world = draw_world(rng)
        trio = world.hero.kind.noun, world.place.noun, world.thing.noun
        if is_held_out(*trio):
            requests[trio] = Request(chat_teller(world, rng).tell("about_all"), *trio)
    return list(requests.values())


def generate_with_metal_gen(model: Path | None, prompts: Sequence[str]) -> list[Answer]:
    """Return greedy answers of metal-gen."""
    import metal_gen

    loaded = metal_gen.load(model)
    results = (
        metal_gen.generate(loaded, prompt, strategy=metal_gen.Greedy(), max_tokens=MAX_TOKENS)
        for prompt in prompts
    )
    return [Answer(result.text, result.finish_reason) for result in results]


def generate_with_transformers(model: Path | None, prompts: Sequence[str]) -> list[Answer]:
    """Return greedy answers of the reference implementation, computed 50 at a time."""
    import torch  # type: ignore[import-not-found,unused-ignore]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(model or "metal_gen/bundled")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    network = network.to(device)
    ends = network.generation_config.eos_token_id
    answers: list[Answer] = []
    for start in range(0, len(prompts), 50):
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + 50]]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        ).to(device)
        outputs = network.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        for ids in outputs[:, inputs["input_ids"].shape[1] :].tolist():
            stopped = any(end in ids for end in ends)
            text = tokenizer.decode(ids, skip_special_tokens=True)
            answers.append(Answer(text, "stop" if stopped else "length"))
    return answers


ENGINES = {"metal-gen": generate_with_metal_gen, "transformers": generate_with_transformers}


def normalized(story: str) -> str:
    """Return a story without case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", story.lower()))


def with_words_swapped(story: str) -> str:
    """Return a normalized story with all capitalized words and vocabulary nouns replaced by one symbol."""
    words = re.findall(r"\w+", story)
    return " ".join("_" if word[0].isupper() or word in NOUN_WORDS else word for word in words)


def copied(answers: Sequence[Answer], stories: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the answers that copy a whole training story: word by word, and with words swapped."""
    exact = {normalized(answer.text): answer.text for answer in answers}
    swapped = {with_words_swapped(answer.text): answer.text for answer in answers}
    exact_copies: set[str] = set()
    swapped_copies: set[str] = set()
    for story in stories:
        if (form := normalized(story)) in exact:
            exact_copies.add(exact[form])
        if (form := with_words_swapped(story)) in swapped:
            swapped_copies.add(swapped[form])
    return exact_copies, swapped_copies


def measure(requests: Sequence[Request], answers: Sequence[Answer], stories: Iterable[str]) -> Report:
    """Return the report on one answer per request; `stories` are all stories of the training text."""
    mentions = [mentioned_nouns(answer.text) for answer in answers]
    character = [request.character in nouns for request, nouns in zip(requests, mentions, strict=True)]
    place = [request.place in nouns for request, nouns in zip(requests, mentions, strict=True)]
    thing = [request.thing in nouns for request, nouns in zip(requests, mentions, strict=True)]
    count = len(requests)
    exact_copies, swapped_copies = copied(answers, stories)
    return Report(
        requests=count,
        mentions_character=sum(character) / count,
        mentions_place=sum(place) / count,
        mentions_thing=sum(thing) / count,
        mentions_all_three=sum(map(all, zip(character, place, thing, strict=True))) / count,
        ends_by_itself=sum(answer.finish_reason == "stop" for answer in answers) / count,
        copies_no_story=sum(answer.text not in exact_copies for answer in answers) / count,
        copies_no_story_with_words_swapped=sum(a.text not in swapped_copies for a in answers) / count,
        all_different=len({answer.text for answer in answers}) / count,
    )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line; the defaults evaluate the bundled checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", choices=sorted(ENGINES), default="metal-gen")
    parser.add_argument("--model", type=Path, help="checkpoint folder; the bundled one by default")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="the training corpus's seed")
    parser.add_argument("--documents", type=int, default=DEFAULT_DOCUMENTS, help="its size")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="to make it again")
    parser.add_argument("--json", type=Path, help="write the report, the requests and the stories here")
    return parser.parse_args()


def main() -> None:
    """Generate, measure, and print the table."""
    arguments = parse_arguments()
    requests = held_out_requests(arguments.requests, arguments.seed)
    answers = ENGINES[arguments.engine](arguments.model, [request.text for request in requests])
    corpus = make_corpus(arguments.documents, arguments.seed, arguments.processes)
    report = asdict(measure(requests, answers, (document.story for document in corpus if document.story)))
    for name, value in report.items():
        print(f"{name.replace('_', ' '):36}" + (f"{value:8}" if name == "requests" else f"{value:8.1%}"))
    if arguments.json:
        pairs = zip(requests, answers, strict=True)
        rows = [{"request": asdict(request), "answer": asdict(answer)} for request, answer in pairs]
        arguments.json.write_text(json.dumps({"report": report, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
