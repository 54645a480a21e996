"""The plan of a run with guesses of a model is within 5 % of what MLX allocates."""

from dataclasses import replace

import mlx.core as mx
import pytest
from mtp_checkpoint import write_mtp_checkpoint
from peak_memory import highest_peak, rounding_of_operations, usual_peak
from speculated import guessed_text
from tiny_checkpoint import tiny_config, write_checkpoint
from tiny_text_checkpoint import byte_tokenizer

from metal_gen.config.settings import Settings
from metal_gen.device import backend
from metal_gen.generation.loading import prepare
from metal_gen.sampling.draw_rule import Status
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy
from metal_gen.speculation.generator import generate_with_guesses
from metal_gen.speculation.source import Guesses

pytestmark = pytest.mark.metal

LENGTH, NEW_TOKENS = 512, 9
SIZES = {"hidden_size": 256, "intermediate_size": 1024, "vocab_size": 8192, "num_hidden_layers": 4}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
}


def settings_for(folder, speculate, **settings):
    """Write a model with heads, or one that is its own draft."""
    if speculate == "mtp":
        config = tiny_config("qwen3_5_text", max_position_embeddings=2048, **SIZES, **LINEAR)
        write_mtp_checkpoint(folder, config)
    else:
        write_checkpoint(folder, tiny_config("qwen3", max_position_embeddings=2048, **SIZES))
        byte_tokenizer().save(str(folder / "tokenizer.json"))
        settings["draft_model"] = str(folder)
    return Settings(model=str(folder), max_seq_len=LENGTH, speculate=speculate, **settings)


@pytest.mark.parametrize(
    ("speculate", "dtype", "chunk_size"),
    [
        ("mtp", "float32", 64),
        ("draft", "float32", 64),
        pytest.param("mtp", "bfloat16", 512, marks=pytest.mark.release),
        pytest.param("draft", "bfloat16", 512, marks=pytest.mark.release),
    ],
)
def test_the_plan_is_within_five_percent_of_the_peak(tmp_path, speculate, dtype, chunk_size):
    prepared = prepare(settings_for(tmp_path, speculate, model_dtype=dtype, chunk_size=chunk_size))
    prompt = [1 + place % 500 for place in range(LENGTH - NEW_TOKENS)]
    planned = prepared.plan.total_bytes

    def run():
        model = prepared.load()
        speculation = model.speculation
        source = speculation.source
        sampler = Sampler(Greedy(), RandomKeys(0), prompt=prompt, capacity=LENGTH)
        speculation.begin(prompt, 0)
        on_hidden = source.prefilled if source.needs_hidden else None
        logits = model.decoder.prefill(prompt, on_hidden=on_hidden)
        speculation.begin_text()
        made = generate_with_guesses(
            model.decoder, logits, sampler, speculation, endings={}, max_tokens=NEW_TOKENS
        )
        assert len(list(made)) == NEW_TOKENS

    peak = highest_peak(run, enough=planned / 1.05)
    assert peak < 1.05 * planned
    if backend.runs_on_cpu():
        assert peak > planned / 1.05


class Doubtful(Sampler):
    """Every third draw is uncertain, which is known once it is computed."""

    def draw(self, logits, index, allowed=None):
        draw = super().draw(logits, index, allowed)
        doubt = mx.array([0, Status.UNCERTAIN if index % 3 == 0 else 0])
        return replace(draw, outcomes=draw.outcomes + doubt)

    def follows_rule_alone(self, index):
        return False


class Fickle:
    """Guesses now and then. Plain steps are built ahead, and those after a doubtful draw are dropped."""

    name, needs_hidden, compiled_count = "fickle", False, 0

    def __init__(self):
        self.count = 0

    def begin(self, prompt, kept):
        self.count = 0

    def expects(self, wanted):
        return self.count % 3 == 2

    def guess(self, room, draw):
        self.count += 1
        return Guesses([7, 8], "fickle") if self.count % 3 == 0 else None

    def guess_after(self, running, choose):
        pass

    def accepted(self, tokens, hidden):
        pass

    def take_back(self, count):
        pass

    def end_text(self):
        pass


@pytest.mark.quick
@pytest.mark.parametrize("rows_apart", [True, False], ids=["apart", "together"])
def test_a_step_that_is_dropped_leaves_no_second_cache(tmp_path, rows_apart):
    config = tiny_config("qwen3", max_position_embeddings=100_000)
    folder = str(write_checkpoint(tmp_path, config))
    # The cache has to be larger than what a library may take for products.
    capacity = 65_536 if backend.product_scratch_bytes() else 16_384
    plan = prepare(Settings(model=folder, max_seq_len=capacity, chunk_size=4, model_dtype="float32"))
    assert plan.plan.cache.nbytes > plan.plan.total_bytes / 2
    prompt = [3 + place % 60 for place in range(40)]

    def run():
        decoder = plan.load().decoder
        sampler = Doubtful(Greedy(), RandomKeys(0), prompt=prompt, capacity=capacity)
        guessed_text(decoder, prompt, sampler, Fickle(), most=16, depth=2, rows_apart=rows_apart)

    assert usual_peak(run) <= 1.05 * plan.plan.total_bytes + rounding_of_operations()
