"""Text in, text out: the library's `load`, `generate` and `stream_generate`."""

from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from metal_gen.background import Background
from metal_gen.config.settings import Settings
from metal_gen.config.sources import override_with_arguments, resolve_settings
from metal_gen.constraints.constraint import Constraint
from metal_gen.engine.decoder import PrefillProgress
from metal_gen.engine.stopping import require_capacity
from metal_gen.errors import UsageError
from metal_gen.generation.guides.making import require_constraint
from metal_gen.generation.loading import TextModel, prepare
from metal_gen.generation.pieces import Generation, Piece, join
from metal_gen.generation.prompt import encode_as_set
from metal_gen.generation.prompt_texts import PromptTexts
from metal_gen.generation.strategy_settings import (
    STRATEGY_SETTINGS,
    require_text_settings,
    strategy_from,
    without_end,
)
from metal_gen.hub.locate import ProgressCallback
from metal_gen.sampling.strategy import SamplingStrategy, require_vocabulary
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.messages import Message


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
        settings: Any setting by name, such as `max_seq_len=4096`; they override the file's.

    Raises:
        MetalGenError: Something is wrong; the subclass says what. No memory stays in use.
    """
    base = resolve_settings(config_file=None if config_file is None else Path(config_file))
    arguments = {"model": None if model is None else str(model), **settings}
    prepared = prepare(override_with_arguments(base, arguments), on_download=on_download)
    # The weights are read by this thread: MLX starts a thread, which stays, for every thread that computes.
    with Background(prepared.checkpoint.read_tokenizer) as reading:
        loaded = prepared.load()
        reading.result()
    return loaded


def generate(
    model: TextModel,
    prompt: str | Sequence[Message] | Prompt,
    *,
    strategy: SamplingStrategy | None = None,
    constraint: Constraint | None = None,
    on_piece: Callable[[Piece], bool | None] | None = None,
    **settings: Any,
) -> Generation:
    """Generate a text.

    Args:
        model: Model from `load`.
        prompt: A user's message, a conversation, or an encoded prompt.
        strategy: How to choose tokens; default: according to the settings.
        constraint: What the text has to be; the same as the setting `schema`, `regex`, `choice` or `grammar`.
        on_piece: Called with every piece; returning False cancels the generation.
        settings: Settings of sampling and generation by name, such as `max_tokens`, `seed`, `stop`;
            they override those that the model was loaded with.

    Raises:
        MetalGenError: The prompt or a setting cannot be used, or does not fit. Nothing was computed.
    """
    if "samples" in settings:
        raise UsageError("generate makes one text: use generate_samples for several")
    pieces = []
    given = {**settings, "samples": 1}
    for piece in stream_generate(model, prompt, strategy=strategy, constraint=constraint, **given):
        pieces.append(piece)
        if on_piece is not None and on_piece(piece) is False:
            break
    return join(pieces)


def generate_samples(
    model: TextModel,
    prompt: str | Sequence[Message] | Prompt,
    samples: int,
    *,
    strategy: SamplingStrategy | None = None,
    constraint: Constraint | None = None,
    **settings: Any,
) -> list[Generation]:
    """Generate several texts for one prompt, which is computed once. Arguments are as in `generate`."""
    given = {**settings, "samples": samples}
    pieces = stream_generate(model, prompt, strategy=strategy, constraint=constraint, **given)
    return [join(list(group)) for _, group in groupby(pieces, key=lambda piece: piece.sample)]


def stream_generate(
    model: TextModel,
    prompt: str | Sequence[Message] | Prompt,
    *,
    strategy: SamplingStrategy | None = None,
    constraint: Constraint | None = None,
    on_prefill: PrefillProgress | None = None,
    **settings: Any,
) -> Generator[Piece, None, None]:
    """Yield the pieces of a text as they come. Closing the iterator cancels the generation.

    If `samples` is above 1, the texts come one after another, and `Piece.sample` tells them apart.

    Args:
        model: Model from `load`; its cache is cleared first.
        prompt: A user's message, a conversation, or an encoded prompt.
        strategy: How to choose tokens; default: according to the settings.
        constraint: What the text has to be; the same as the setting `schema`, `regex`, `choice` or `grammar`.
        on_prefill: Called after each chunk but the last, with the prompt tokens done and their total.
        settings: Settings of sampling and generation by name, as in `generate`.

    Raises:
        MetalGenError: The prompt or a setting cannot be used, or does not fit. Nothing was computed.
    """
    if constraint is not None:
        settings[constraint.kind] = constraint.value
    in_force = override_with_arguments(model.settings, settings)
    _refuse_misplaced(settings, strategy)
    require_constraint(in_force, model.checkpoint)
    if not isinstance(prompt, Prompt):
        prompt = encode_as_set(model.checkpoint, prompt, in_force, most_tokens=model.plan.most_tokens)
    capacity, most = model.plan.cache.max_seq_len, model.plan.largest_max_seq_len
    require_capacity(len(prompt.ids), in_force.max_tokens, capacity, most=most)
    return PromptTexts(model, prompt, in_force, _strategy(model, strategy, in_force)).pieces(on_prefill)


def _refuse_misplaced(settings: Mapping[str, object], strategy: SamplingStrategy | None) -> None:
    """Refuse settings that would have no effect."""
    given = [name for name, value in settings.items() if value is not None]
    require_text_settings(given)
    for name in given:
        if strategy is not None and name in STRATEGY_SETTINGS:
            raise UsageError(f"{name} and strategy are both given", f"put {name} into the strategy")


def _strategy(model: TextModel, given: SamplingStrategy | None, settings: Settings) -> SamplingStrategy:
    checkpoint = model.checkpoint
    if given is None:
        return strategy_from(settings, checkpoint.tokenizer, checkpoint.eos_ids)
    require_vocabulary(given, checkpoint.config.vocab_size)
    return without_end(given, checkpoint.eos_ids) if settings.ignore_eos else given
