"""The messages of a chat about its answers and the room that is left."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from metal_gen.cli.output.report import guess_counts, repeated_by, token_counts
from metal_gen.cli.terminal.console import Console
from metal_gen.engine.stopping import LEAST_ANSWER_TOKENS

if TYPE_CHECKING:
    from metal_gen.generation.conversation import Conversation
    from metal_gen.generation.pieces import Piece


def choices(conversation: "Conversation", needed: int = 0) -> str:
    """Return what a user at a terminal can do about a full cache.

    Args:
        conversation: The conversation that fills it.
        needed: Tokens of a message that did not fit, including the conversation before it.
    """
    larger = _larger_cache(conversation, needed)
    more = f"; or /save FILE, and continue with --load FILE --max-seq-len {larger}" if larger else ""
    return f"/undo takes the last turn back, /forget drops the oldest{more}"


def choices_in_a_pipe(conversation: "Conversation") -> str:
    """Return what can be done about a full cache in a pipe, which has no commands."""
    if larger := _larger_cache(conversation):
        return f"--max-seq-len {larger} gives it more room"
    return "there is room for no more: begin another conversation, or choose another model"


def _larger_cache(conversation: "Conversation", needed: int = 0) -> int | None:
    """Return up to twice the capacity, limited by the model's context and memory; None if nothing helps."""
    plan, capacity = conversation.model.plan, conversation.capacity
    used = max(capacity, needed)
    longest = plan.longest_fit(min(2 * used, plan.model.context_length))
    return longest if longest >= used + LEAST_ANSWER_TOKENS else None


def report_answer(
    last: "Piece | None",
    conversation: "Conversation",
    remedies: Callable[["Conversation"], str],
    console: Console,
) -> None:
    """Report an answer: one line on a terminal, only the seed in a log.

    Args:
        last: Last piece of the answer; None if it was stopped before it began.
        conversation: The conversation, with the answer.
        remedies: Returns what can be done about a full cache.
        console: Shows the line.
    """
    if last is None:
        console.note("stopped before the answer began: nothing was added to the conversation")
        return
    if last.finish is None:
        console.note("stopped; the answer so far is kept: /undo removes the turn, /retry answers again")
    elif last.finish == "cache_full":
        console.warn(
            f"the answer ends here because the cache is full: max_seq_len is {conversation.capacity}",
            remedies(conversation),
        )
    seed = repeated_by(last, conversation.model)
    if console.stderr_is_terminal or console.verbosity:
        use = f"cache {last.statistics.cache_tokens} of {conversation.capacity}"
        speed = f"{last.statistics.decode_tps:.1f} tok/s; " if last.statistics.decode_tps else ""
        console.note(f"{token_counts(last)}; {last.ending}; {speed}{guess_counts(last)}{use}; {seed}")
    else:
        console.note(seed)


def describe(conversation: "Conversation", last: "Piece | None") -> str:
    """Return the lines of /stats."""
    from metal_gen.byte_sizes import format_bytes

    plan = conversation.model.plan
    lines = [
        f"turns: {conversation.turns}; {room(conversation)}",
        f"sampling: {conversation.strategy}",
        f"memory: weights {format_bytes(plan.weights_bytes)}, cache {format_bytes(plan.cache.nbytes)}",
    ]
    if last is not None:
        statistics = last.statistics
        decode = f", then {statistics.decode_tps:.1f} tok/s" if statistics.decode_tps else ""
        lines += [
            f"last answer: {token_counts(last)}; {last.ending}; first after {statistics.ttft_s:.2f} s "
            f"({statistics.prefill_tps:.0f} tok/s){decode}; {guess_counts(last)}"
            f"{repeated_by(last, conversation.model)}",
            f"peak memory: {format_bytes(statistics.peak_memory_bytes)}",
        ]
    return "\n".join(lines)


def room(conversation: "Conversation") -> str:
    """Describe how many tokens the messages take; raises as `Conversation.count_tokens` does."""
    return f"the conversation has {conversation.count_tokens()} tokens, of {conversation.capacity}"
