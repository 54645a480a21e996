"""Texts with guesses of models: the same as without, however many guesses are right."""

import pytest
from speculated import STRATEGIES, decoder_for, guessed_text, plain_text, sampler_for
from story_model import write_story_model
from tiny_checkpoint import hybrid_configs, tiny_config, write_checkpoint

from metal_gen.cache.config import HybridCacheConfig
from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.models.cache_size import cache_size
from metal_gen.speculation.draft_model import DraftSource
from metal_gen.speculation.lookup import Lookup
from metal_gen.speculation.planning import plan_mtp
from metal_gen.speculation.together import Together

CAPACITY = 200
CONFIGS = {"qwen3": tiny_config("qwen3"), **dict(hybrid_configs())}
PROMPT = [7, 3, 55, 12, 9, 41, 33, 20, 8, 5, 60, 11, 4, 4, 17, 29, 31, 2, 6]
STORY = (
    "<|im_start|>user\nWrite a story about a fox, a lighthouse and a lantern.<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def new_decoder(model, **options):
    size = cache_size(model.config, max_seq_len=CAPACITY, dtype="float32")
    if isinstance(size, HybridCacheConfig):
        size = HybridCacheConfig(**{**vars(size), "recent_passes": 12, "most_replayed": 12})
    return decoder_for(model, new_cache(size), **options)


def draft_of(model, vocab_size):
    size = cache_size(model.config, max_seq_len=CAPACITY, dtype="float32")
    return DraftSource(decoder_for(model, new_cache(size)), vocab_size)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of the same small vocabulary, by name."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: Checkpoint(write_checkpoint(folder / name, CONFIGS[name])).weights.load("float32")
        for name in ("qwen3", "qwen3_5_text-alone")
    }


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """The trained model, its heads, and the tokens of a request for a story."""
    checkpoint = Checkpoint(write_story_model(tmp_path_factory.mktemp("stories")))
    model = checkpoint.weights.load("float32")
    prompt = checkpoint.tokenizer.encode(STORY, add_special_tokens=False)
    return model, plan_mtp(Settings(), checkpoint, "float32").load(model, CAPACITY), prompt


def both(model, source, prompt, strategy, *, most=25, depth=3, **options):
    """Return a text without guesses, the same with them, and their counts."""
    decoder = new_decoder(model)

    def sampler():
        return sampler_for(prompt, STRATEGIES[strategy], capacity=CAPACITY)

    plain = plain_text(decoder, prompt, sampler(), most=most)
    guessed, speculation = guessed_text(decoder, prompt, sampler(), source, most=most, depth=depth, **options)
    return plain, guessed, speculation.counts


@pytest.mark.parametrize("strategy", ["greedy", "penalties"])
@pytest.mark.parametrize(
    ("target", "draft"), [("qwen3", "qwen3_5_text-alone"), ("qwen3_5_text-alone", "qwen3")]
)
def test_a_draft_that_knows_nothing_changes_nothing(models, target, draft, strategy):
    source = draft_of(models[draft], 64)
    plain, guessed, counts = both(models[target], source, PROMPT, strategy)
    assert guessed == plain
    assert counts.accepted < counts.drafted / 2


@pytest.mark.parametrize("strategy", ["sampled", "bias"])
@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_text-alone"])
def test_a_model_guesses_its_own_draws_whatever_they_are(models, name, strategy):
    """The draft draws with the key of the place, so all of its guesses are right."""
    plain, guessed, counts = both(models[name], draft_of(models[name], 64), PROMPT, strategy)
    assert guessed == plain
    assert counts.accepted >= counts.drafted - 2


@pytest.mark.parametrize("strategy", ["greedy", "sampled", "penalties"])
def test_heads_of_a_trained_model_change_nothing_and_are_mostly_right(stories, strategy):
    model, source, prompt = stories
    plain, guessed, counts = both(model, source, prompt, strategy, most=60, depth=2)
    assert guessed == plain
    assert counts.accepted > counts.drafted * (0.3 if strategy == "penalties" else 0.7)


def test_a_lookup_beside_the_heads_leaves_them_right(stories):
    model, heads, prompt = stories
    source = Together([Lookup(CAPACITY), heads])
    plain, guessed, counts = both(model, source, [*prompt, *prompt], "sampled", most=60)
    assert guessed == plain
    assert counts.accepted > counts.drafted / 2


@pytest.mark.quick
def test_rows_together_are_the_same_up_to_rounding(stories):
    model, source, prompt = stories
    plain, guessed, counts = both(model, source, prompt, "greedy", most=60, depth=2, rows_apart=False)
    assert [each[0] for each in guessed] == [each[0] for each in plain]
    assert counts.accepted > counts.drafted * 0.7
