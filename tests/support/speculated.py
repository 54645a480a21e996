"""Texts with and without guesses, from any source."""

from dataclasses import replace

from metal_gen.cache.config import HybridCacheConfig
from metal_gen.cache.hybrid import new_cache
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens
from metal_gen.engine.guided import generate_guided_tokens
from metal_gen.engine.stopping import FinishDetail
from metal_gen.models.cache_size import cache_size
from metal_gen.sampling.logprobs import read_logprobs
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.speculation.depth import Depths
from metal_gen.speculation.generator import generate_with_guesses
from metal_gen.speculation.source import Guesses
from metal_gen.speculation.speculation import Speculation

ENDINGS = {1: FinishDetail.EOS, 2: FinishDetail.STOP_TOKEN}
STRATEGIES = {
    "greedy": SamplingStrategy(temperature=0.0),
    "sampled": SamplingStrategy(temperature=0.8, top_p=0.9),
    "flat": SamplingStrategy(temperature=1.3, top_k=5),
    "penalties": SamplingStrategy(temperature=0.9, repetition_penalty=1.3, frequency_penalty=0.2),
    "bias": SamplingStrategy(temperature=1.0, min_tokens=9, logit_bias=((5, 2.0), (7, -4.0))),
}


class EveryDepth(Depths):
    """As many guesses as there are, of any kind."""

    def __init__(self, most=9):
        self.most = most

    def choose(self, kind):
        return self.most


class Oracle:
    """Guesses a known text, with an error at every few tokens.

    Args:
        text: The new tokens to guess.
        wrong: Which of its places to guess wrongly, counted from 0.
    """

    name, compiled_count = "oracle", 0

    def __init__(self, text, wrong=(), *, needs_hidden=False, vocabulary=64):
        self.text, self.wrong, self.needs_hidden = list(text), set(wrong), needs_hidden
        self.vocabulary = vocabulary
        self.given, self.hidden, self.prefilled_tokens = [], [], 0

    def begin(self, prompt, kept):
        self.given = []

    def prefilled(self, hidden):
        self.prefilled_tokens += hidden.shape[1]

    def expects(self, wanted):
        return len(self.given) + 1 < len(self.text) or self.needs_hidden

    def guess(self, room, draw):
        begin = len(self.given)
        tokens = [
            (token + (begin + place in self.wrong)) % self.vocabulary
            for place, token in enumerate(self.text[begin : begin + room("oracle")])
        ]
        return Guesses(tokens, "oracle") if tokens or self.needs_hidden else None

    def guess_after(self, running, choose):
        pass

    def accepted(self, tokens, hidden):
        self.given += tokens
        self.hidden += [None] * len(tokens) if hidden is None else list(hidden)
        assert hidden is None or len(hidden) == len(tokens)

    def take_back(self, count):
        del self.given[len(self.given) - count :]

    def end_text(self):
        pass


def sampler_for(prompt, strategy, *, seed=3, capacity=300, logprobs=None, kind=Sampler):
    return kind(
        strategy,
        RandomKeys(seed),
        prompt=prompt,
        capacity=capacity,
        ending_ids=ENDINGS,
        logprobs=logprobs,
    )


def described(tokens):
    return [
        (token.id, token.finish, None if token.logprobs is None else read_logprobs(token.logprobs))
        for token in tokens
    ]


def plain_text(decoder, prompt, sampler, *, most=None, guide=None):
    """The text without guesses: token ids, reasons to end, log-probabilities."""
    decoder.cache.clear()
    logits = decoder.prefill(prompt)
    generate = generate_tokens
    if guide is not None:
        generate = generate_guided_tokens
    extra = {} if guide is None else {"guide": guide}
    return described(generate(decoder, logits, sampler, endings=ENDINGS, max_tokens=most, **extra))


def guessed_text(decoder, prompt, sampler, source, *, most=None, guide=None, depth=9, rows_apart=None):
    """The text with guesses, and the speculation that made it."""
    decoder.cache.clear()
    speculation = Speculation(source, EveryDepth(depth), rows_apart=rows_apart)
    speculation.begin(prompt, 0)
    on_hidden = source.prefilled if source.needs_hidden else None
    logits = decoder.prefill(prompt, on_hidden=on_hidden)
    speculation.begin_text()
    tokens = generate_with_guesses(
        decoder, logits, sampler, speculation, endings=ENDINGS, max_tokens=most, guide=guide
    )
    found = described(tokens)
    speculation.end_text()
    return found, speculation


def decoder_for(model, cache, *, compiles=False):
    return Decoder(model, cache, compiles=compiles, chunk_size=16)


def decoder_of(model, *, compiles, capacity=60, depth=5):
    """A decoder with a float32 cache; a hybrid can take back so many guesses and the token before them."""
    size = cache_size(model.config, max_seq_len=capacity, dtype="float32")
    if isinstance(size, HybridCacheConfig):
        size = replace(size, most_replayed=depth + 1)
    return decoder_for(model, new_cache(size), compiles=compiles)
