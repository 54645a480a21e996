"""Tests that no way to generate takes more memory than planned, where a second cache would be."""

import pytest
from peak_memory import rounding_of_operations, usual_peak
from scripted_guide import ScriptedGuide
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.cache.forms import PACKED
from metal_gen.config.settings import Settings
from metal_gen.device.backend import product_scratch_bytes, runs_on_cpu
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens
from metal_gen.engine.guided import generate_guided_tokens
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.generation.loading import prepare
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy, Temperature

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

PROMPT = [3 + place % 60 for place in range(40)]
NEW_TOKENS = 12
# The cache has to be larger than what a library may take for products.
CAPACITY, SLOTS = 131_072 if product_scratch_bytes() else 16_384, 4


# In 8 bits, the cache of a few layers takes no more than what a prompt unpacks of one.
CASES = {
    "full": ("auto", tiny_config("qwen3")),
    "hybrid": ("auto", tiny_config("qwen3_5_text")),
    "8 bits": ("q8", tiny_config("qwen3", head_dim=64, num_hidden_layers=6)),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    cache_dtype, config = CASES[request.param]
    folder = tmp_path_factory.mktemp("model")
    return {"model": str(write_checkpoint(folder, config)), "cache_dtype": cache_dtype}


def prepared(case, *, slots=1):
    settings = Settings(
        **case,
        model_dtype="float32",
        max_seq_len=CAPACITY // slots,
        batch_size=slots,
        # Few tokens, whose scores some layers of a GPU have at once.
        chunk_size=16 if slots > 1 else 4,
        compile="off",
    )
    return prepare(settings, most_slots=slots)


def loaded(ready, *, compiles):
    """Return a decoder that compiles without the setting, for which a CPU would need a C++ compiler."""
    made = ready.load().decoder
    return Decoder(
        made.model, made.cache, chunk_size=made.chunk_size, ahead_bytes=made.ahead_bytes, compiles=compiles
    )


def sampler(strategy, number=0):
    return Sampler(strategy, RandomKeys(1, number), prompt=PROMPT, capacity=CAPACITY)


def one_text(decoder, strategy, number=0):
    logits = decoder.prefill(PROMPT)
    list(generate_tokens(decoder, logits, sampler(strategy, number), endings={}, max_tokens=NEW_TOKENS))


def one_greedy_text(decoder):
    one_text(decoder, Greedy())


def samples(decoder):
    for number in range(3):
        decoder.cache.clear()
        one_text(decoder, Temperature(1.0), number)


def guided(decoder):
    logits = decoder.prefill(PROMPT)
    guide = ScriptedGuide(forces=lambda tokens: [5, 6] if len(tokens) == 4 else ())
    made = generate_guided_tokens(
        decoder, logits, sampler(Temperature(1.0)), guide, endings={}, max_tokens=NEW_TOKENS
    )
    list(made)


def assert_peak_is_planned(prepared, run):
    """A cache takes most of the plan, so that a second one could not hide in what the plan has too much."""
    plan = prepared.plan
    # With 8 bits, a GPU's plan has what several layers unpack.
    if plan.cache.dtype != PACKED or runs_on_cpu():
        assert plan.cache.nbytes > plan.total_bytes / 2
    assert usual_peak(run) <= 1.05 * plan.total_bytes + rounding_of_operations()


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("generate", [one_greedy_text, samples, guided])
def test_one_text_at_a_time(case, generate, compiles):
    ready = prepared(case)
    assert_peak_is_planned(ready, lambda: generate(loaded(ready, compiles=compiles)))


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("is_guided", [False, True])
def test_slots(case, is_guided, compiles):
    """One more text than slots, so that one begins while others are generated."""
    ready = prepared(case, slots=SLOTS)

    def run():
        decoder = ready.load().decoder
        slots = SlotDecoder(decoder.model, decoder.cache, chunk_size=16, stride=16, compiles=compiles)
        waiting = list(range(SLOTS + 1))
        while waiting or slots.in_use:
            while waiting and slots.has_free_slot:
                number = waiting.pop()
                slots.begin(
                    PROMPT,
                    sampler(Temperature(1.0), number),
                    endings={},
                    max_tokens=NEW_TOKENS - number,
                    guide=ScriptedGuide() if is_guided else None,
                )
            slots.step()

    assert_peak_is_planned(ready, run)
