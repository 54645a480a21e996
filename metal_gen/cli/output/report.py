"""The messages on stderr before and after a text."""

import os
from typing import TYPE_CHECKING

from metal_gen.cli.terminal.console import Console
from metal_gen.config.settings import SETTINGS
from metal_gen.device.command_buffers import COMMAND_BUFFERS

if TYPE_CHECKING:
    from metal_gen.generation.loading import PreparedModel, TextModel
    from metal_gen.generation.pieces import Piece


def report_start(prepared: "PreparedModel", console: Console) -> None:
    """Report the planned memory before it is used; with `-v`, the values in use and their sources."""
    from metal_gen.byte_sizes import format_bytes
    from metal_gen.config.settings_file import shown_value
    from metal_gen.device.backend import counts_other_programs, device_name
    from metal_gen.device.blas import blas_in_use
    from metal_gen.device.blas_advice import blas_advice
    from metal_gen.generation.strategy_settings import strategy_from

    plan, settings, cache = prepared.plan, prepared.settings, prepared.plan.cache
    checkpoint = prepared.checkpoint
    loading = f"; {format_bytes(plan.loading_bytes)} while loading" if plan.is_loading_more else ""
    guesses = "" if plan.guesses is None else f" + guesses {format_bytes(plan.guesses_bytes)}"
    console.detail(
        f"weights {format_bytes(plan.weights_bytes)} + cache {format_bytes(cache.nbytes)} "
        f"({cache.max_seq_len} tokens){guesses} + working memory {format_bytes(plan.working_bytes)}{loading}"
        f", of {format_bytes(plan.available_bytes)} available"
        f"{'' if counts_other_programs() else ' (what other programs use is not taken off)'}"
    )
    if not console.verbosity:
        return
    console.note(f"device: {device_name()}; computing in {plan.dtype}")
    if blas := blas_in_use():
        advice = blas_advice(blas, settings.blas)
        console.note(f"blas: {blas}{'' if advice is None else f'; {advice}'}")
    if in_force := [f"{name}={os.environ[name]}" for name in COMMAND_BUFFERS if name in os.environ]:
        console.note(f"command buffers: {', '.join(in_force)}")
    reason = "" if plan.chunk_reason is None else f": {plan.chunk_reason}"
    console.note(f"prefill: {plan.chunk_size} prompt tokens at once{reason}")
    console.note(f"attention of new tokens: {prepared.kernels.attention}")
    console.note(f"residual sums with their norms: {prepared.kernels.residual_norms}")
    if checkpoint.weights.packings:
        console.note(f"products of quantized weights: {prepared.kernels.quantized_products}")
    console.note(f"decode step: {'compiled' if prepared.compiles else 'not compiled'}")
    if prepared.guesses is not None and plan.guesses is not None:
        console.note(f"speculation: {settings.speculate}, at most {plan.guesses.most_guesses} guesses a pass")
    if prepared.linear_attention is not None:
        console.note(f"linear attention: {prepared.linear_attention}")
    console.note(f"checkpoint: {checkpoint.folder}")
    console.note(
        f"cache: {cache.nbytes} bytes, {cache.bytes_per_token} a token: {cache.num_layers} layers, "
        f"{cache.num_kv_heads} key/value heads of {cache.head_dim}, {cache.dtype}, "
        f"batch size {cache.batch_size}"
    )
    console.note(f"sampling: {strategy_from(settings, checkpoint.tokenizer, checkpoint.eos_ids)}")
    for name in SETTINGS:
        if name in settings.sources or console.verbosity > 1:
            console.note(f"{name} = {shown_value(settings, name)} ({settings.source(name)})")


def report_end(piece: "Piece", model: "TextModel", console: Console, *, is_failure: bool) -> None:
    """Report on a text: one line on a terminal, only the seed in a log.

    Args:
        piece: The last piece of the text.
        model: Model that wrote it.
        console: Console of the run.
        is_failure: Whether an error will say why the text ended.
    """
    from metal_gen.byte_sizes import format_bytes
    from metal_gen.engine.stopping import larger_capacity

    statistics = piece.statistics
    capacity = model.plan.cache.max_seq_len
    if piece.finish == "cache_full" and not is_failure:
        larger = larger_capacity(capacity, None, model.plan.largest_max_seq_len)
        console.warn(
            f"the text ends here because the cache is full: max_seq_len is {capacity} "
            f"({model.settings.source('max_seq_len')})",
            f"raise it under [cache], or with --max-seq-len {larger}" if larger else "",
        )
    if not console.stderr_is_terminal and not console.verbosity:
        if piece.sample == 0:
            console.note(repeated_by(piece, model))
        return
    if console.verbosity > 1 and (compiled := model.decoder.compiled) is not None:
        steps = "step" if compiled.count == 1 else "steps"
        source = 0 if model.speculation is None else model.speculation.source.compiled_count
        others = model.decoder.compiled_count - compiled.count + source
        more = f", and {others} other functions" if others else ""
        console.note(f"compiled {compiled.count} {steps} in {compiled.seconds:.2f} s{more}")
    if console.verbosity and statistics.speculation is not None:
        depths = sorted(statistics.speculation.by_depth.items())
        console.note(f"passes by guesses: {', '.join(f'{depth}: {passes}' for depth, passes in depths)}")
    prefill = f" ({statistics.prefill_tps:.0f} tok/s)" if statistics.prefill_tps else ""
    decode = f", then {statistics.decode_tps:.1f} tok/s" if statistics.decode_tps else ""
    console.note(
        f"{token_counts(piece)}; {piece.ending}; first after {statistics.ttft_s:.2f} s{prefill}{decode}; "
        f"{guess_counts(piece)}cache {statistics.cache_tokens} of {capacity}; "
        f"peak {format_bytes(statistics.peak_memory_bytes)}; {repeated_by(piece, model)}"
    )


def warn_of_prefixes(model: "TextModel", console: Console) -> None:
    """Warn of stored prefixes that could not be used or written, each once in a run."""
    for notice in model.prefixes.take_notices() if model.prefixes is not None else ():
        console.warn(notice)


def repeated_by(piece: "Piece", model: "TextModel") -> str:
    """Return what is needed besides the settings to repeat a text: the seed, and the dtype."""
    return f"seed {piece.statistics.seed}, {model.plan.dtype}"


def guess_counts(piece: "Piece") -> str:
    """Return what came of guesses, for a line; nothing without them."""
    counts = piece.statistics.speculation
    if counts is None:
        return ""
    right = f"{counts.accepted} of {counts.drafted} guesses right"
    return f"{counts.source}: {right}, {counts.tokens_per_pass:.2f} tokens a pass; "


def token_counts(piece: "Piece") -> str:
    """Return the token counts of a text up to this piece, with the number of prompt tokens computed."""
    statistics = piece.statistics
    is_partly_new = 0 < statistics.computed_tokens < statistics.prompt_tokens
    stored = f", {statistics.stored_tokens} from the prefix cache" if statistics.stored_tokens else ""
    new = f" ({statistics.computed_tokens} new{stored})" if is_partly_new else ""
    thinking = f"thinking {statistics.thinking_tokens}, " if statistics.thinking_tokens else ""
    answer = statistics.completion_tokens - statistics.thinking_tokens
    return f"prompt {statistics.prompt_tokens}{new}, {thinking}answer {answer} tokens"
