"""Makes the guide of a text from settings."""

from dataclasses import replace

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.constraints.checks import CONSTRAINTS
from metal_gen.config.settings import Settings
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.matcher import GrammarMatcher
from metal_gen.errors import UsageError
from metal_gen.generation.guides.guide import TextGuide
from metal_gen.generation.guides.thinking import Phase, Thinking
from metal_gen.generation.memory_plan import MemoryPlan
from metal_gen.generation.strategy_settings import place_of
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.thinking import THINK_CLOSE, ThinkingSplitter

BLANK_LINES = "\n\n"


def constraint_from(settings: Settings) -> Constraint | None:
    """Return the constraint that the settings ask for.

    Raises:
        UsageError: There are two kinds; ConfigError if a file or a variable has set them.
    """
    kinds = [name for name in CONSTRAINTS if getattr(settings, name)]
    if len(kinds) > 1:
        places = [place_of(settings, name) for name in kinds[:2]]
        raise places[1][1](
            f"{places[0][0]} and {places[1][0]} are both set, and a text has one constraint",
            "leave one of them out",
        )
    return Constraint(kinds[0], getattr(settings, kinds[0])) if kinds else None


def require_constraint(settings: Settings) -> None:
    """Check the constraint that the settings ask for, without a tokenizer.

    Raises:
        UsageError: It cannot be kept to, or the library for it is not installed; ConfigError if a file or a
            variable has set it.
    """
    constraint = constraint_from(settings)
    if constraint is None:
        return
    try:
        constraint.require_usable()
    except UsageError as error:
        place, refuse = place_of(settings, constraint.kind)
        raise refuse(f"{place}: {error.message}", error.hint) from None


def require_room(plan: MemoryPlan, settings: Settings) -> None:
    """Check that memory suffices for a constraint that was not planned when the model was loaded.

    Raises:
        DoesNotFitError: Memory is too small.
    """
    if constraint_from(settings) is not None and not plan.is_constrained:
        replace(plan, is_constrained=True).require_fit()


def guide_for(checkpoint: Checkpoint, prompt: Prompt, settings: Settings) -> TextGuide | None:
    """Return the guide of one text; None if nothing limits what may come.

    Args:
        checkpoint: Checkpoint of the model.
        prompt: The prompt that the text follows.
        settings: Settings in force.

    Raises:
        UsageError: The constraint cannot be used with this prompt or this model.
    """
    constraint = constraint_from(settings)
    breaks_loops = bool(settings.break_loops)
    tokenizer = checkpoint.tokenizer
    thinking = Thinking(tokenizer, prompt, budget=settings.thinking_budget, breaks_loops=breaks_loops)
    limits_thinking = breaks_loops or settings.thinking_budget is not None
    if constraint is None and (not limits_thinking or THINK_CLOSE not in tokenizer.added_ids):
        return None
    if constraint is None:
        return TextGuide(thinking, None, vocab_size=tokenizer.vocab_size, forces=settings.logprobs is None)
    _require_fitting(constraint, prompt, thinking, settings)
    template = checkpoint.chat_template
    may_think = settings.thinking or (template is not None and template.has_thinking_switch)
    if settings.thinking is False or not may_think:
        thinking.begin_with_answer()
    return TextGuide(
        thinking,
        GrammarMatcher(checkpoint.token_table, constraint),
        vocab_size=tokenizer.vocab_size,
        blank_lines=tokenizer.encode_part(BLANK_LINES),
        forces=settings.logprobs is None,
    )


def _require_fitting(constraint: Constraint, prompt: Prompt, thinking: Thinking, settings: Settings) -> None:
    """Check that the constraint can begin right after the prompt and its thinking."""
    if ThinkingSplitter(prompt).prefilled[1].strip():
        raise UsageError(
            f"prefill contradicts {constraint.kind}: the answer would begin before its constraint",
            "leave the prefill out",
        )
    if prompt.opens_thinking and thinking.phase is Phase.ANSWER and ThinkingSplitter(prompt).is_thinking:
        raise UsageError(
            f"{constraint.kind} cannot follow this model's thinking: {THINK_CLOSE} is not a token of its own",
            "switch thinking off with --no-thinking",
        )
