"""The cost of a token apart from the model: cache writes, sampling, detokenizing, printing."""

import time
from collections.abc import Callable, Sequence

from metal_gen.bench.measurement import Measurement, Trial, Unit
from metal_gen.bench.request import PARTS
from metal_gen.bench.runners.engine import EngineRunner
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.text.detokenizer import Detokenizer
from metal_gen.text.tokenizer import Tokenizer

EACH = ("cache_write", "sampler", "detokenizer", "printing")


def parts_trial(
    runner: EngineRunner,
    tokenizer: Tokenizer,
    strategy: SamplingStrategy,
    prompt: Sequence[int],
    print_texts: Callable[[Sequence[str]], None],
    count: int,
) -> Trial:
    """Return a trial of each part alone and of a whole decode step.

    A part's share is relative to the total time of a token: the step, which contains the cache writes and a
    greedy draw, plus detokenizing and printing, which follow it.

    Args:
        runner: The runner to measure, at a depth of the prompt's length.
        tokenizer: Tokenizer of the checkpoint.
        strategy: Sampling strategy in force.
        prompt: Provides logits to sample from, and text to detokenize and print.
        print_texts: Prints pieces as the command line does.
        count: Tokens per run, at least two; the cache must have room for them after the prompt.
    """
    logits = runner.logits(prompt)
    ids = [prompt[index % len(prompt)] for index in range(count)]

    def run() -> list[float]:
        step_us = 1e6 / runner.decode(len(prompt), count).decode_tps
        write_us = 1e6 * runner.cache_write_s(len(prompt), count) / count
        sampler_us = 1e6 * runner.sample_s(strategy, logits, count) / count
        begin = time.perf_counter()
        detokenizer = Detokenizer(tokenizer)
        pieces = [detokenizer.add(token) for token in ids]
        detokenized = time.perf_counter()
        print_texts(pieces)
        printing_us = 1e6 * (time.perf_counter() - detokenized) / count
        detokenizer_us = 1e6 * (detokenized - begin) / count
        parts = [write_us, sampler_us, detokenizer_us, printing_us]
        token_us = step_us + detokenizer_us + printing_us
        return [step_us, *parts, *(part / token_us for part in parts)]

    where = {"depth": len(prompt)}
    times = [
        Measurement(PARTS, f"{name}_us", Unit.MICROSECONDS, parameters=where) for name in ("step", *EACH)
    ]
    shares = [Measurement(PARTS, f"{name}_share", Unit.SHARE, parameters=where) for name in EACH]
    return Trial((*times, *shares), run)
