"""Chooses the capacity of the KV cache if `max_seq_len` is not set.

The capacity is chosen once, before the cache is allocated, and never changes afterwards.
"""

from dataclasses import dataclass, replace

from metal_gen.engine.stopping import ANSWER_TOKENS
from metal_gen.generation.memory.plan import MemoryPlan
from metal_gen.models.config.model_config import ModelConfig

USUAL_TOKENS = 2048
CHAT_TOKENS = 16_384
# A cache larger than requested leaves 1 / SPARED_PART of the memory to other programs.
SPARED_PART = 10


@dataclass(frozen=True)
class Capacity:
    """A size for the cache.

    Attributes:
        tokens: Number of tokens, at least 1.
        reason: Reason for this size, shown in place of a setting's source.
    """

    tokens: int
    reason: str


def usual_capacity(model: ModelConfig) -> int:
    """Return the capacity to use while no prompt is known."""
    return min(USUAL_TOKENS, model.context_length)


def capacity_for_any(plan: MemoryPlan) -> Capacity:
    """Choose a capacity while no prompt is known."""
    return _bounded(plan, USUAL_TOKENS, USUAL_TOKENS, "the usual size")


def capacity_for_prompt(plan: MemoryPlan, prompt_tokens: int, max_tokens: int | None) -> Capacity:
    """Choose room for a prompt and its answer.

    Args:
        plan: Memory plan of the run, with a cache of any size.
        prompt_tokens: Number of prompt tokens.
        max_tokens: Maximum number of new tokens; None if only the cache limits them.

    Returns:
        The smallest of what the answer needs, what the model was trained for and what memory holds. It
        may be too small for the prompt.
    """
    if max_tokens is not None:
        needed = wanted = prompt_tokens + max_tokens
        reason = f"the prompt of {prompt_tokens:,} tokens and max_tokens"
    else:
        needed, wanted = prompt_tokens, prompt_tokens + ANSWER_TOKENS
        reason = f"the prompt of {prompt_tokens:,} tokens and {ANSWER_TOKENS:,} more"
    if wanted <= USUAL_TOKENS:
        reason = "the usual size"
    return _bounded(plan, max(needed, USUAL_TOKENS), max(wanted, USUAL_TOKENS), reason)


def capacity_for_chat(plan: MemoryPlan) -> Capacity:
    """Choose room for a conversation, which grows."""
    return _bounded(plan, USUAL_TOKENS, CHAT_TOKENS, "the usual size of a chat")


def _bounded(plan: MemoryPlan, needed: int, wanted: int, reason: str) -> Capacity:
    """Return as many tokens as wanted, within the model's context and memory.

    The needed tokens may take all the memory and shrink a prompt's chunks. Tokens beyond those leave some
    memory to other programs and keep the chunks.
    """
    trained = plan.model.context_length
    spared = replace(
        plan,
        available_bytes=plan.available_bytes - plan.available_bytes // SPARED_PART,
        least_chunk=plan.most_chunk,
    )
    tokens = max(plan.longest_fit(min(needed, trained)), spared.longest_fit(min(wanted, trained)))
    if tokens >= wanted:
        return Capacity(tokens, reason)
    if tokens == trained:
        return Capacity(tokens, "all that the model was trained for")
        # If tokens is 0, a cache of the usual size is refused later, with the sizes of all parts.
    return Capacity(tokens or usual_capacity(plan.model), "what memory allows")
