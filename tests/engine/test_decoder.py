"""Tests the forward pass over a cache: cached = uncached = chunked, and no token sees the future."""

import mlx.core as mx
import pytest
from decoded import VARIANTS, assert_close
from doubtful_sampler import doubtful_sampler
from peak_memory import in_use
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.cache.kv_cache import CacheOverflowError
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens
from metal_gen.engine.stopping import FinishDetail, require_capacity
from metal_gen.errors import DoesNotFitError
from metal_gen.sampling.logits_error import LogitsError
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy, SamplingStrategy

pytestmark = pytest.mark.metal


@pytest.fixture(params=VARIANTS)
def model(request, tmp_path):
    config = tiny_config("qwen3", **VARIANTS[request.param])
    return Checkpoint(write_checkpoint(tmp_path, config)).weights.load("float32")


def test_token_by_token_equals_one_pass(model, make_cache, tokens):
    length = tokens.shape[1]
    whole = model.logits(model(tokens, make_cache(model)))
    cache = make_cache(model)
    steps = [model.logits(model(tokens[:, i : i + 1], cache, sequence_length=length)) for i in range(length)]
    assert_close(mx.concatenate(steps, axis=1), whole)


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 19, 20, 512])
def test_chunked_prefill_equals_whole(model, make_cache, tokens, chunk_size):
    whole = model.logits(model(tokens, make_cache(model))[:, -1])
    prompt = tokens[0].tolist()
    progress = []
    decoder = Decoder(model, make_cache(model), chunk_size=chunk_size)
    chunked = decoder.prefill(prompt, lambda done, total: progress.append((done, total)))
    assert_close(chunked, whole)
    assert decoder.cache.position == 20
    assert progress == [(done, 20) for done in range(chunk_size, 20, chunk_size)]


def test_prefill_queues_no_more_than_its_memory_allows(tiny_model, make_cache, monkeypatch):
    """Imitate a GPU, which would keep the memory of many layers at once."""
    limits = []
    set_limit = mx.set_memory_limit
    monkeypatch.setattr(mx, "set_memory_limit", lambda limit: limits.append(limit) or set_limit(limit))
    usual = set_limit(2**40)
    try:
        decoder = Decoder(tiny_model, make_cache(tiny_model), chunk_size=4, ahead_bytes=1000)
        before = in_use()
        mx.eval(decoder.prefill(list(range(10))))
        assert limits == [before + 1000, 2**40]
        with pytest.raises(CacheOverflowError):
            decoder.prefill(list(range(100)))
        assert limits[-1] == 2**40
    finally:
        set_limit(usual)


def test_later_tokens_do_not_change_a_prefix(tiny_model, make_cache, tokens):
    prefix = tiny_model.logits(tiny_model(tokens[:, :9], make_cache(tiny_model)))
    whole = tiny_model.logits(tiny_model(tokens, make_cache(tiny_model)))
    assert_close(whole[:, :9], prefix)


def test_a_cleared_cache_remembers_nothing(tiny_model, make_cache, tokens):
    cache = make_cache(tiny_model)
    fresh = tiny_model.logits(tiny_model(tokens[:, :5], cache))
    tiny_model(tokens, cache)
    cache.clear()
    assert_close(tiny_model.logits(tiny_model(tokens[:, :5], cache)), fresh)


def test_sequences_of_a_batch_do_not_mix(tiny_model, make_cache, tokens):
    pair = mx.concatenate([tokens, tokens[:, ::-1]])
    both = tiny_model.logits(tiny_model(pair, make_cache(tiny_model, batch_size=2)))
    for row in range(2):
        alone = tiny_model.logits(tiny_model(pair[row : row + 1], make_cache(tiny_model)))
        assert_close(both[row : row + 1], alone)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_narrower_cache_changes_logits_by_its_rounding_only(tiny_model, make_cache, tokens, dtype):
    exact = tiny_model.logits(tiny_model(tokens, make_cache(tiny_model)))
    rounded = tiny_model.logits(tiny_model(tokens, make_cache(tiny_model, dtype=dtype)))
    assert rounded.dtype == mx.float32
    assert float(mx.abs(rounded - exact).max()) < 0.05 * float(mx.abs(exact).max())


def run(decoder, prompt, sampler=None, endings=None, max_tokens=None):
    sampler = sampler or Sampler(
        Greedy(), RandomKeys(0), prompt=prompt, capacity=decoder.cache.config.max_seq_len
    )
    logits = decoder.prefill(prompt)
    return generate_tokens(decoder, logits, sampler, endings=endings or {}, max_tokens=max_tokens)


def test_prompt_and_new_tokens_fit_exactly(tiny_model, make_cache):
    require_capacity(5, 12, 16)
    decoder = Decoder(tiny_model, make_cache(tiny_model, max_seq_len=16))
    made = list(run(decoder, [1, 2, 3, 4, 5], max_tokens=12))
    assert len(made) == 12
    assert decoder.cache.position == 16
    assert [token.finish for token in made] == [None] * 11 + [FinishDetail.MAX_TOKENS]


def test_one_token_more_is_refused_with_both_remedies():
    with pytest.raises(DoesNotFitError) as caught:
        require_capacity(5, 13, 16)
    assert "--max-seq-len 17" in caught.value.hint
    assert "at most 12 with --max-tokens" in caught.value.hint


def test_a_prompt_longer_than_the_cache_is_refused(tiny_model, make_cache):
    with pytest.raises(DoesNotFitError, match="17"):
        require_capacity(17, None, 16)
    with pytest.raises(CacheOverflowError):
        Decoder(tiny_model, make_cache(tiny_model, max_seq_len=16)).prefill([1] * 17)


def test_without_a_limit_the_cache_is_the_limit(tiny_model, make_cache):
    made = list(run(Decoder(tiny_model, make_cache(tiny_model, max_seq_len=16)), [1] * 10))
    assert len(made) == 7
    assert made[-1].finish is FinishDetail.CACHE_FULL


def test_an_end_token_ends_the_text(tiny_model, make_cache):
    made = list(run(Decoder(tiny_model, make_cache(tiny_model)), [1, 2], max_tokens=9))
    stop = made[4].id
    first = next(i for i, token in enumerate(made) if token.id == stop)
    endings = {stop: FinishDetail.EOS}
    ended = list(run(Decoder(tiny_model, make_cache(tiny_model)), [1, 2], endings=endings))
    assert [token.id for token in ended] == [token.id for token in made[: first + 1]]
    assert ended[-1].finish is FinishDetail.EOS


def test_the_next_step_is_started_before_a_token_is_read(tiny_model, make_cache):
    """When the first token is yielded, the sampler has already drawn the second."""
    asked = []

    class Watched(Sampler):
        def draw(self, logits, index, allowed=None):
            asked.append(index)
            return super().draw(logits, index, allowed)

    sampler = Watched(Greedy(), RandomKeys(0), prompt=[1], capacity=64)
    tokens = run(Decoder(tiny_model, make_cache(tiny_model)), [1], sampler, max_tokens=3)
    next(tokens)
    assert asked == [0, 1]
    assert len(list(tokens)) == 2
    assert asked == [0, 1, 2]


def test_an_uncertain_draw_is_taken_back_and_repeated(tiny_model, make_cache):
    """Text, history and cache are as if the token had been drawn from the whole vocabulary at once."""
    strategy = SamplingStrategy(top_p=0.9, repetition_penalty=1.3, frequency_penalty=0.5)
    redrawn = []

    def text(kind):
        sampler = kind(strategy, RandomKeys(5), prompt=[1, 2, 3], capacity=64)
        decoder = Decoder(tiny_model, make_cache(tiny_model, max_seq_len=30))
        made = [token.id for token in run(decoder, [1, 2, 3], sampler)]
        return made, decoder.cache.position

    assert text(doubtful_sampler(redrawn)) == text(Sampler)
    assert redrawn == list(range(0, 28, 3))


def test_logits_that_are_not_finite_name_the_step(tiny_model, make_cache):
    class Broken(Decoder):
        def step(self, token):
            logits = super().step(token)
            return logits * mx.nan if self.cache.position == 6 else logits

    tokens = run(Broken(tiny_model, make_cache(tiny_model)), [1, 2, 3], max_tokens=20)
    made = [next(tokens).id for _ in range(3)]
    assert len(made) == 3
    with pytest.raises(LogitsError, match="new token 4"):
        next(tokens)


def test_rewound_positions_are_overwritten(tiny_model, make_cache, tokens):
    cache = make_cache(tiny_model)
    tiny_model(tokens, cache)
    cache.take_back(15)
    tail = mx.array([[9, 8, 7]])
    again = tiny_model.logits(tiny_model(tail, cache))
    fresh = make_cache(tiny_model)
    tiny_model(tokens[:, :5], fresh)
    assert_close(again, tiny_model.logits(tiny_model(tail, fresh)))
    with pytest.raises(ValueError, match="cannot take back"):
        cache.take_back(9)
