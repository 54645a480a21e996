"""Decode speed with and without guesses, over kinds of texts that repeat their prompt more or less."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from metal_gen.bench.measurement import METAL_GEN, Measurement, Trial, Unit
from metal_gen.bench.request import SPECULATION
from metal_gen.engine.generator import GeneratedToken, generate_tokens
from metal_gen.generation.loading import TextModel
from metal_gen.generation.prompt import encode_as_set
from metal_gen.generation.strategy_settings import strategy_from
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.speculation.generator import generate_with_guesses
from metal_gen.speculation.speculation import Speculation

SEED = 1
NEW_TOKENS = 128
_REPORT = (
    "On Monday the council met in the old hall to discuss the bridge. The engineer said that it would cost "
    "four million and take two years. Three members asked about the road to the school, which floods every "
    "spring. The mayor promised an answer by June. Nine members voted for the bridge, two were against it, "
    "and one was absent."
)
_CODE = """def total_price(items, tax_rate):
    total = 0.0
    for item in items:
        if item.quantity < 0:
            raise ValueError("quantity must not be negative")
        total += item.price * item.quantity
    return total * (1 + tax_rate)
"""
WORKLOADS = {
    "copy": f"Return this text with the word Monday replaced by Friday, and nothing else:\n\n{_REPORT}",
    "summary": f"Summarize this text in two sentences:\n\n{_REPORT}",
    "code_edit": f"Rename tax_rate to rate, and print the whole function:\n\n{_CODE}",
    "story": "Tell me a story about a fox who wants to see the sea.",
    "thinking": "A train leaves at 9:40 and arrives at 11:15. How long does it take? Think step by step.",
}


def speculation_trials(model: TextModel, speculation: Speculation) -> list[Trial]:
    """Return a trial for each kind of text that fits: without guesses, then with them.

    Args:
        model: The model; its cache is used.
        speculation: Guesses for it.
    """
    prompts = {name: _prompt(model, name, text) for name, text in WORKLOADS.items()}
    capacity = model.decoder.cache.config.max_seq_len
    return [
        _trial(model, speculation, name, prompt)
        for name, prompt in prompts.items()
        if len(prompt) + NEW_TOKENS <= capacity + 1
    ]


def _trial(model: TextModel, speculation: Speculation, name: str, prompt: Sequence[int]) -> Trial:
    figures = tuple(
        Measurement(SPECULATION, f"{name}_{figure}", unit, METAL_GEN)
        for figure, unit in (
            ("off_tps", Unit.TOKENS_PER_SECOND),
            ("tps", Unit.TOKENS_PER_SECOND),
            ("gain", Unit.RATIO),
            ("tokens_per_pass", Unit.TOKENS_PER_PASS),
        )
    )

    def run() -> tuple[float, ...]:
        plain = _speed(_tokens(model, None, prompt))
        guessed = _speed(_tokens(model, speculation, prompt))
        return plain, guessed, guessed / plain, speculation.counts.tokens_per_pass

    return Trial(figures, run)


def _prompt(model: TextModel, name: str, text: str) -> Sequence[int]:
    settings = model.settings
    if name == "thinking" and settings.thinking is None:
        settings = replace(settings, thinking=True)
    return encode_as_set(model.checkpoint, text, settings).ids


def _tokens(
    model: TextModel, speculation: Speculation | None, prompt: Sequence[int]
) -> Iterator[GeneratedToken]:
    """Yield the tokens after a prompt; end tokens do not stop it."""
    decoder, checkpoint = model.decoder, model.checkpoint
    sampler = Sampler(
        strategy_from(model.settings, checkpoint.tokenizer, checkpoint.eos_ids),
        RandomKeys(SEED),
        prompt=prompt,
        capacity=decoder.cache.config.max_seq_len,
    )
    decoder.cache.clear()
    if speculation is None:
        logits = decoder.prefill(prompt)
        yield from generate_tokens(decoder, logits, sampler, endings={}, max_tokens=NEW_TOKENS)
        return
    speculation.begin(prompt, 0)
    logits = decoder.prefill(prompt, on_hidden=speculation.takes_hidden)
    speculation.begin_text()
    yield from generate_with_guesses(decoder, logits, sampler, speculation, endings={}, max_tokens=NEW_TOKENS)
    speculation.end_text()


def _speed(tokens: Iterator[GeneratedToken]) -> float:
    """Return tokens in a second, from the first to the last."""
    next(tokens)
    begin = time.perf_counter()
    count = sum(1 for _ in tokens)
    return count / (time.perf_counter() - begin)
