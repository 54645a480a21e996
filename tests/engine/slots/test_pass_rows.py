"""Tests how passes over slots are filled: no more rows than are planned, and a turn for every text."""

import random
from collections import defaultdict
from functools import partial

import pytest
from scripted_guide import ScriptedGuide
from speculated import STRATEGIES, decoder_for, plain_text, sampler_for
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.slots import pass_builder
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.generation.loading import prepare

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

CAPACITY = 300
NO_ENDINGS = list(range(3, 64))
CONFIGS = {
    "full": tiny_config("qwen3"),
    "dynamic": tiny_config(
        "qwen2", rope_scaling={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=60
    ),
    "hybrid": tiny_config("qwen3_5_text"),
}


@pytest.fixture(scope="module", params=["full", "dynamic", pytest.param("hybrid", marks=pytest.mark.release)])
def folder(request, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model"), CONFIGS[request.param])


@pytest.fixture(scope="module")
def model(folder):
    return Checkpoint(folder).weights.load("float32")


def forced_runs(runs, tokens):
    """Force as many tokens as `runs` has for the number of tokens so far."""
    return [3 + (place * 5 + len(tokens)) % 60 for place in range(runs.get(len(tokens), 0))]


class Request:
    """A text to generate: a prompt, and runs of forced tokens by their places."""

    def __init__(self, chance, *, prompt=None, runs=None):
        self.prompt = [chance.randrange(3, 64) for _ in range(prompt or chance.choice([1, 17, 40, 100]))]
        self.runs = {chance.randrange(90): chance.randint(1, 80) for _ in range(3)} if runs is None else runs
        self.most = 90
        self.strategy = STRATEGIES[chance.choice(["greedy", "penalties"])]

    @property
    def sampler(self):
        return sampler_for(self.prompt, self.strategy, capacity=CAPACITY)

    @property
    def guide(self):
        return ScriptedGuide(lambda tokens: NO_ENDINGS, partial(forced_runs, self.runs))

    def alone(self, decoder):
        made = plain_text(decoder, self.prompt, self.sampler, most=self.most, guide=self.guide)
        return [token for token, *_ in made]

    def begin(self, decoder):
        return decoder.begin(self.prompt, self.sampler, endings={}, max_tokens=self.most, guide=self.guide)


class Passes:
    """Notes the passes that are built.

    Attributes:
        rows: Number of rows of each pass.
        parts: Start and length of the parts of each text.
        waits: How many passes in turn each text has waited at the most.
    """

    def __init__(self, monkeypatch):
        self.rows, self.parts, self.waits = [], defaultdict(list), defaultdict(int)
        self._texts, self._waiting = [], defaultdict(int)
        self._run, self._build = pass_builder.run_pass, pass_builder.PassBuilder.build
        monkeypatch.setattr(pass_builder, "run_pass", self._note_rows)
        monkeypatch.setattr(pass_builder.PassBuilder, "build", lambda *given: self._note_pass(*given))

    def _note_rows(self, model, slots, periods, nexts, prompts):
        self.rows[-1] += len(nexts) + sum(len(part.tokens) for part in prompts)
        for part in prompts:
            self.parts[self._texts[part.slot]].append((part.start, len(part.tokens)))
        return self._run(model, slots, periods, nexts, prompts)

    def _note_pass(self, builder, texts):
        self.rows.append(0)
        self._texts = list(texts)
        before = list(builder._slots.positions)
        built = self._build(builder, texts)
        worked = {*built.fed, *built.prefilled}
        assert len(worked) == len(built.fed) + len(built.prefilled)
        for text in filter(None, texts):
            if text in worked:
                assert builder._slots.positions[text.slot] > before[text.slot]
            self._waiting[text] = 0 if text in worked or text.is_last else self._waiting[text] + 1
            self.waits[text] = max(self.waits[text], self._waiting[text])
        return built


@pytest.fixture
def passes(monkeypatch):
    return Passes(monkeypatch)


def together(decoder, requests):
    """Return the texts of requests and their tokens, in order."""
    waiting, found = list(requests), {}
    while waiting or decoder.in_use:
        while waiting and decoder.has_free_slot:
            found[waiting.pop(0).begin(decoder)] = []
        for text, token in decoder.step():
            found[text].append(token.id)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_no_pass_has_more_rows_than_are_planned_and_texts_stay_the_same(
    folder, model, make_cache, passes, seed
):
    chance = random.Random(seed)
    chunk_size, slots = chance.randint(8, 64), chance.randint(1, 8)
    settings = Settings(
        model=str(folder),
        model_dtype="float32",
        max_seq_len=CAPACITY,
        batch_size=slots,
        chunk_size=chunk_size,
    )
    plan = prepare(settings, most_slots=slots).plan
    assert plan.chunk_size == chunk_size
    cache = make_cache(model, max_seq_len=CAPACITY, batch_size=slots)
    decoder = SlotDecoder(model, cache, chunk_size=chunk_size, stride=chance.choice([16, 64]))
    requests = [Request(chance) for _ in range(slots + 2)]
    found = together(decoder, requests)
    assert max(passes.rows) <= plan._working(chunk_size).tokens
    alone = decoder_for(model, make_cache(model, max_seq_len=CAPACITY))
    assert list(found.values()) == [request.alone(alone) for request in requests]


@pytest.mark.parametrize("chunk_size", [8, 24, 64])
def test_parts_of_forced_tokens_depend_on_their_text_alone(model, make_cache, passes, chunk_size):
    """On a CPU, texts are the same to the last bit beside any others, and parts of other lengths are not."""
    requests = [Request(random.Random(seed), prompt=1 + seed) for seed in range(9)]

    def parts(slots):
        passes.parts.clear()
        cache = make_cache(model, max_seq_len=CAPACITY, batch_size=slots)
        decoder = SlotDecoder(model, cache, chunk_size=chunk_size)
        return [passes.parts[text] for text in together(decoder, requests)]

    assert parts(1) == parts(4) == parts(8)


@pytest.mark.parametrize("chunk_size", [16, 20, 48])
def test_no_text_waits_for_long(model, make_cache, passes, chunk_size):
    """Three texts ask for as many forced tokens as fit, while prompts come without end."""
    slots, chance = 4, random.Random(3)
    cache = make_cache(model, max_seq_len=CAPACITY, batch_size=slots)
    decoder = SlotDecoder(model, cache, chunk_size=chunk_size, stride=16)
    forced = [Request(chance, prompt=5, runs=dict.fromkeys(range(1, 90, 17), 16)) for _ in range(3)]
    running = [request.begin(decoder) for request in forced]
    prompts = 0
    while not all(text.is_over for text in running):
        if decoder.has_free_slot and prompts < 40:
            request = Request(chance, prompt=40, runs={})
            request.most = 1
            request.begin(decoder)
            prompts += 1
        decoder.step()
    assert prompts > 3
    assert max(passes.waits.values()) <= 2 * slots


@pytest.mark.parametrize("chunk_size", [1, 8, 30, 64])
def test_a_text_alone_has_no_more_forced_tokens_in_a_pass(model, make_cache, monkeypatch, chunk_size):
    counts, extend = [], Decoder.extend

    def noted(self, tokens, **options):
        counts.append(len(tokens))
        return extend(self, tokens, **options)

    request = Request(random.Random(1), runs={2: 80, 85: 3})
    cache = make_cache(model, max_seq_len=CAPACITY)
    expected = request.alone(Decoder(model, cache))
    monkeypatch.setattr(Decoder, "extend", noted)
    assert request.alone(Decoder(model, cache, chunk_size=chunk_size)) == expected
    assert 1 <= max(counts) <= chunk_size
