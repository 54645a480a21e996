"""Text in, text out: the library's `load`, `generate` and `stream_generate`."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from metal_gen.checkpoint.chat_template import Message
from metal_gen.checkpoint.detokenizer import Detokenizer
from metal_gen.checkpoint.hub import ProgressCallback
from metal_gen.checkpoint.prompt import Prompt, encode_prompt
from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_arguments, resolve_settings
from metal_gen.engine.decoder import PrefillProgress
from metal_gen.engine.generator import Sampler, generate_tokens
from metal_gen.engine.stopping import FinishReason, require_capacity
from metal_gen.loading import TextModel, prepare
from metal_gen.sampling.random_keys import RandomKeys, choose_seed
from metal_gen.sampling.sampler import sample_token
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.thinking import ThinkingSplitter


@dataclass(frozen=True)
class Statistics:
    """Counts and times of one generation, up to now.

    Attributes:
        prompt_tokens: Tokens of the prompt, template included.
        completion_tokens: New tokens, the end token included.
        ttft_s: From the start of prefill to the first new token.
        prefill_tps: Prompt tokens per second of `ttft_s`.
        decode_tps: (n - 1) / (t_last - t_first); 0 before the second token.
        seed: What the draws came from.
        cache_tokens: Positions of the cache in use.
        cache_full: The text ended because the cache has no position left.
        peak_memory_bytes: Most that MLX has had allocated in this process.
    """

    prompt_tokens: int
    completion_tokens: int
    ttft_s: float
    prefill_tps: float
    decode_tps: float
    seed: int
    cache_tokens: int
    cache_full: bool
    peak_memory_bytes: int


@dataclass(frozen=True)
class Piece:
    """A part of the text, as it comes.

    Attributes:
        text: Final characters; may be empty while a character is incomplete.
        token_id: The token that completed it.
        is_thinking: The text belongs to the model's thinking, not to its answer.
        finish_reason: Set on the last piece.
        statistics: Up to this piece.
    """

    text: str
    token_id: int
    is_thinking: bool
    finish_reason: FinishReason | None
    statistics: Statistics


@dataclass(frozen=True)
class Generation:
    """A whole text.

    Attributes:
        text: The answer.
        thinking: What the model thought before it, where it does.
        token_ids: All new tokens, the end token included.
        finish_reason: Why it ended.
        statistics: Of the whole.
    """

    text: str
    thinking: str
    token_ids: list[int]
    finish_reason: FinishReason
    statistics: Statistics


def load(
    model: str | Path | None = None,
    *,
    config_file: str | Path | None = None,
    on_download: ProgressCallback | None = None,
    **settings: object,
) -> TextModel:
    """Load a checkpoint and allocate its cache.

    Args:
        model: A folder, a Hub id `org/name[@revision]`, or None for the bundled model.
        config_file: A TOML file of settings.
        on_download: Called while files come from the Hub.
        settings: Any setting by name, such as `max_seq_len=4096`; they go before the file's.

    Raises:
        MetalGenError: Of the kind that says what is wrong; memory is as before.
    """
    base = resolve_settings(config_file=None if config_file is None else Path(config_file))
    arguments = {"model": None if model is None else str(model), **settings}
    return prepare(override_with_arguments(base, arguments), on_download=on_download).load()


def strategy_from(settings: Settings) -> SamplingStrategy:
    """The strategy in force: greedy unless a temperature, a top-k or a top-p is set."""
    temperature = settings.temperature
    if temperature is None:
        temperature = 0.0 if settings.top_k is None and settings.top_p is None else 1.0
    return SamplingStrategy(temperature=temperature, top_k=settings.top_k, top_p=settings.top_p)


def generate(
    model: TextModel,
    prompt: str | Sequence[Message] | Prompt,
    *,
    strategy: SamplingStrategy | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    on_piece: Callable[[Piece], bool | None] | None = None,
) -> Generation:
    """Generate a text.

    Args:
        model: From `load`.
        prompt: A user's message, a conversation, or a prompt already encoded.
        strategy: How to choose tokens; by default as the settings say.
        max_tokens: Most new tokens; by default as the settings say, or what the cache holds.
        seed: Makes the draws repeatable; by default the settings', or a new one.
        on_piece: Called with every piece; returning False cancels.

    Raises:
        MetalGenError: The prompt cannot be used or does not fit; nothing was computed.
    """
    pieces = []
    for piece in stream_generate(model, prompt, strategy=strategy, max_tokens=max_tokens, seed=seed):
        pieces.append(piece)
        if on_piece is not None and on_piece(piece) is False:
            break
    last = pieces[-1]
    return Generation(
        text="".join(piece.text for piece in pieces if not piece.is_thinking),
        thinking="".join(piece.text for piece in pieces if piece.is_thinking),
        token_ids=[piece.token_id for piece in pieces],
        finish_reason=last.finish_reason or FinishReason.CANCELLED,
        statistics=last.statistics,
    )


def stream_generate(
    model: TextModel,
    prompt: str | Sequence[Message] | Prompt,
    *,
    strategy: SamplingStrategy | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    on_prefill: PrefillProgress | None = None,
) -> Generator[Piece, None, None]:
    """Yield the pieces of a text as they come; closing the iterator cancels.

    Args:
        model: From `load`; its cache is cleared first.
        prompt: As for `generate`.
        strategy: As for `generate`.
        max_tokens: As for `generate`.
        seed: As for `generate`.
        on_prefill: Called with prompt tokens done and in all, after each chunk.

    Raises:
        MetalGenError: As for `generate`.
    """
    settings = override_with_arguments(model.settings, {"max_tokens": max_tokens, "seed": seed})
    if not isinstance(prompt, Prompt):
        prompt = encode_prompt(
            model.checkpoint, prompt, system=settings.system, raw=settings.raw, thinking=settings.thinking
        )
    require_capacity(len(prompt.ids), settings.max_tokens, model.decoder.cache.config.max_seq_len)
    chosen_seed = choose_seed() if settings.seed is None else settings.seed
    return _pieces(
        model,
        prompt,
        sampler=_sampler(strategy or strategy_from(settings), chosen_seed),
        max_tokens=settings.max_tokens,
        seed=chosen_seed,
        on_prefill=on_prefill,
    )


def _sampler(strategy: SamplingStrategy, seed: int) -> Sampler:
    keys = RandomKeys(seed)
    return lambda logits, index: sample_token(logits, strategy, keys.key(index))


def _pieces(
    model: TextModel,
    prompt: Prompt,
    *,
    sampler: Sampler,
    max_tokens: int | None,
    seed: int,
    on_prefill: PrefillProgress | None,
) -> Generator[Piece, None, None]:
    cache = model.decoder.cache
    cache.clear()
    detokenizer = Detokenizer(model.checkpoint.tokenizer)
    splitter = ThinkingSplitter(model.checkpoint.tokenizer, prompt)
    clock = _Clock(prompt_tokens=len(prompt.ids), seed=seed)
    tokens = generate_tokens(
        model.decoder,
        prompt.ids,
        sampler,
        eos_ids=model.checkpoint.eos_ids,
        max_tokens=max_tokens,
        on_prefill=on_prefill,
    )
    for token in tokens:
        clock.tick()
        text = detokenizer.add(token.id) + (detokenizer.finish() if token.finish_reason else "")
        text, is_thinking = splitter.split(token.id, text)
        cache_full = token.finish_reason is FinishReason.LENGTH and clock.count != max_tokens
        statistics = clock.statistics(cache.position, cache_full)
        yield Piece(text, token.id, is_thinking, token.finish_reason, statistics)


class _Clock:
    """Counts tokens and notes when the first and the last came."""

    def __init__(self, *, prompt_tokens: int, seed: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.seed = seed
        self.count = 0
        self.start_s = self.first_s = self.last_s = time.perf_counter()

    def tick(self) -> None:
        self.last_s = time.perf_counter()
        if self.count == 0:
            self.first_s = self.last_s
        self.count += 1

    def statistics(self, cache_tokens: int, cache_full: bool) -> Statistics:
        ttft_s = self.first_s - self.start_s
        decode_s = self.last_s - self.first_s
        return Statistics(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.count,
            ttft_s=ttft_s,
            prefill_tps=self.prompt_tokens / ttft_s if ttft_s else 0.0,
            decode_tps=(self.count - 1) / decode_s if decode_s else 0.0,
            seed=self.seed,
            cache_tokens=cache_tokens,
            cache_full=cache_full,
            peak_memory_bytes=mx.get_peak_memory(),
        )
