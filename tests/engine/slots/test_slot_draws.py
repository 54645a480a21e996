"""Draws that the compiled step makes for all slots are those of each text alone, also if one is repeated."""

import random

import pytest
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens
from metal_gen.engine.slots.compiled_slots import CompiledSlots
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.sampling import draw_rule
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import SamplingStrategy

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

CAPACITY, SLOTS, TEXTS = 96, 3, 12
STRATEGY = SamplingStrategy(temperature=1.5, top_p=0.6)
OTHER = SamplingStrategy(temperature=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of eight blocks of tokens."""
    folder = write_checkpoint(tmp_path_factory.mktemp("blocks"), tiny_config("qwen3", vocab_size=1024))
    return Checkpoint(folder).weights.load("float32")


@pytest.fixture
def redrawn(monkeypatch):
    """Search so few candidates that some draws miss: their texts, indices and rows."""
    monkeypatch.setattr(
        draw_rule, "candidate_blocks", lambda strategy, vocabulary: 0 if strategy.is_greedy else 6
    )
    found, redraw = [], Sampler.redraw

    def noted(self, missed):
        found.append((self.number, missed.index, missed.row))
        return redraw(self, missed)

    monkeypatch.setattr(Sampler, "redraw", noted)
    return found


def make_sampler(number, prompt):
    sampler = Sampler(
        OTHER if number % 5 == 4 else STRATEGY, RandomKeys(2, number), prompt=prompt, capacity=CAPACITY
    )
    sampler.number = number
    return sampler


def test_each_text_is_its_own(model, make_cache, redrawn, monkeypatch):
    chance = random.Random(4)
    prompts = [[chance.randrange(1024) for _ in range(chance.choice([1, 5, 20]))] for _ in range(TEXTS)]
    lengths = [chance.choice([1, 12, 40]) for _ in range(TEXTS)]
    cache, alone = make_cache(model, max_seq_len=CAPACITY), []
    for number, (prompt, most) in enumerate(zip(prompts, lengths, strict=True)):
        cache.clear()
        decoder, sampler = Decoder(model, cache), make_sampler(number, prompt)
        tokens = generate_tokens(decoder, decoder.prefill(prompt), sampler, endings={}, max_tokens=most)
        alone.append([token.id for token in tokens])
    redrawn_alone = sorted(miss[:2] for miss in redrawn)
    redrawn.clear()

    passes, run = [], CompiledSlots.run

    def noted(self, rows, texts):
        results = run(self, rows, texts)
        passes.append((len(texts), results[1] is not None))
        return results

    monkeypatch.setattr(CompiledSlots, "run", noted)
    slots = make_cache(model, max_seq_len=CAPACITY, batch_size=SLOTS)
    decoder, waiting = SlotDecoder(model, slots, chunk_size=16, stride=16, compiles=True), list(range(TEXTS))
    found, numbers = [[] for _ in range(TEXTS)], {}
    while waiting or decoder.in_use:
        while waiting and decoder.has_free_slot and (not decoder.in_use or chance.random() < 0.3):
            number = waiting.pop(0)
            sampler = make_sampler(number, prompts[number])
            text = decoder.begin(prompts[number], sampler, endings={}, max_tokens=lengths[number])
            numbers[text] = number
        for text, token in decoder.step():
            found[numbers[text]].append(token.id)
    assert found == alone
    assert sorted(miss[:2] for miss in redrawn) == redrawn_alone
    assert any(row for _, _, row in redrawn)
    # The step has drawn for any number of texts, and not for texts with other rules or after a miss.
    assert set(passes) >= {(count, True) for count in range(1, SLOTS + 1)} | {(SLOTS, False)}
