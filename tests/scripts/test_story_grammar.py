"""Tests the story grammar of the bundled checkpoint: repeatable, varied, correct English, held-out words."""

import re
import sys
from itertools import product
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from bundled_model.corpus import make_corpus, make_document
from bundled_model.evaluate import held_out_requests
from bundled_model.grammar import fix_articles, tell_story, title_case
from bundled_model.rules import chat_rules, plots
from bundled_model.split import (
    CHARACTER_NOUNS,
    NOUNS,
    PLACE_NOUNS,
    THING_NOUNS,
    is_held_out,
    mentioned_nouns,
    mentions_held_out,
)
from bundled_model.world import draw_world

SEED = 5


@pytest.fixture(scope="module")
def documents():
    return list(make_corpus(400, SEED))


@pytest.fixture(scope="module")
def stories():
    drawn = []
    for number in range(400):
        rng = Random(number)
        drawn.append(tell_story(draw_world(rng), rng))
    return drawn


def test_a_seed_repeats_and_another_seed_differs(documents):
    assert documents == list(make_corpus(400, SEED))
    assert documents[7] == make_document(7, SEED)
    assert documents != list(make_corpus(400, SEED + 1))


def test_more_processes_make_the_same_corpus(documents):
    assert list(make_corpus(50, SEED, processes=2)) == documents[:50]


def test_no_two_stories_are_the_same(stories):
    assert len({story.text for story in stories}) == len(stories)


def test_every_story_mentions_its_character_place_and_thing(stories):
    for story in stories:
        world = story.world
        wanted = {world.hero.kind.noun, world.place.noun, world.thing.noun}
        assert wanted <= mentioned_nouns(story.text), story.text


def test_every_story_has_a_paragraph_break_and_a_sensible_length(stories):
    for story in stories:
        assert "\n\n" in story.text
        assert 90 <= len(story.text.split()) <= 280, story.text


def test_nothing_of_the_notation_is_left_in_a_story(stories):
    for story in stories:
        assert not re.search(r"[{}\[\]|/]|  | [.,!?]", story.text + story.title), story.text


def test_articles_agree_with_the_next_word(stories):
    for story in stories:
        assert not re.search(r"\b[Aa] [aeio]", re.sub(r"\ba one", "", story.text)), story.text
        assert not re.search(r"\b[Aa]n (?![aeiou]|hon|hour)", story.text), story.text


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("a owl and an fox", "an owl and a fox"),
        ("A honest hen", "An honest hen"),
        ("an unicorn, a umbrella", "a unicorn, an umbrella"),
    ],
)
def test_fix_articles(written, right):
    assert fix_articles(written) == right


def test_pronouns_agree_with_the_hero():
    for number in range(200):
        rng = Random(number)
        world = draw_world(rng)
        if world.hero.pronoun == world.helper.pronoun == "she" and world.plot != "deliver":
            text = tell_story(world, rng).text
            assert not re.search(r"\b(himself|his|him)\b", text), text


def test_title_case_leaves_small_words_alone():
    assert title_case("the fox and the jar of honey") == "The Fox and the Jar of Honey"


def test_no_training_text_mentions_a_held_out_combination(documents):
    for document in documents:
        nouns = mentioned_nouns(document.text)
        trios = product(nouns & CHARACTER_NOUNS, nouns & PLACE_NOUNS, nouns & THING_NOUNS)
        assert not any(is_held_out(*trio) for trio in trios)


def test_one_combination_in_ten_is_held_out_and_every_word_is_trained_on():
    trios = list(product(sorted(CHARACTER_NOUNS), sorted(PLACE_NOUNS), sorted(THING_NOUNS)))
    held_out = [trio for trio in trios if is_held_out(*trio)]
    assert 0.08 < len(held_out) / len(trios) < 0.12
    assert {noun for trio in trios if not is_held_out(*trio) for noun in trio} == NOUNS


def test_the_measured_requests_are_held_out_and_name_all_three():
    requests = held_out_requests(100, SEED)
    assert len({(request.character, request.place, request.thing) for request in requests}) == 100
    for request in requests:
        assert mentions_held_out(request.text)
        assert {request.character, request.place, request.thing} <= mentioned_nouns(request.text)


def test_every_rule_that_is_named_exists():
    world = draw_world(Random(SEED))
    given = {*world.words(), "hero", "scene", "spot"}
    asked = {"someone", "somewhere", "something", "a_place", "a_thing", "first_sentence", "asks"}
    for rules in [*plots().values(), chat_rules()]:
        for line in (line for alternatives in rules.values() for line in alternatives):
            for name in re.findall(r"\{(\w+)\??\}", line):
                assert name.lower() in given | asked | rules.keys(), line


def test_no_noun_hides_inside_another():
    for noun in NOUNS:
        assert mentioned_nouns(noun) == {noun}
