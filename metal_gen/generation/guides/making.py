"""Makes the guide of a text from settings."""

from dataclasses import replace

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.constraints.checks import CONSTRAINTS
from metal_gen.config.settings import Settings
from metal_gen.config.sources import place_of
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.matcher import GrammarMatcher
from metal_gen.errors import UsageError
from metal_gen.generation.guides.guide import TextGuide
from metal_gen.generation.guides.thinking import Phase, Thinking
from metal_gen.generation.guides.tool_grammar import tool_choice_grammar
from metal_gen.generation.memory.plan import MemoryPlan
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.thinking import THINK_CLOSE, ThinkingSplitter
from metal_gen.text.tokenizer import Tokenizer
from metal_gen.text.tool_calls import CLOSE, OPEN

BLANK_LINES = "\n\n"
TOOL_CHOICE = "tool_choice"
TAGS_OF_CALLS = {OPEN, CLOSE}


def constraint_from(settings: Settings, *, is_xml: bool = False) -> Constraint | None:
    """Return the constraint that the settings ask for.

    Args:
        settings: Settings in force.
        is_xml: Whether the chat template writes calls of functions as XML.

    Raises:
        UsageError: There are two kinds, or there is no such function; ConfigError if a file or a variable
            has set them.
    """
    kinds = [name for name in CONSTRAINTS if getattr(settings, name)]
    kinds += [TOOL_CHOICE] if settings.requires_call else []
    if len(kinds) > 1:
        places = [place_of(settings, name) for name in kinds[:2]]
        raise places[1][1](
            f"{places[0][0]} and {places[1][0]} are both set, and a text has one constraint",
            "leave one of them out",
        )
    if kinds == [TOOL_CHOICE]:
        return Constraint(TOOL_CHOICE, _tool_grammar(settings, is_xml=is_xml))
    return Constraint(kinds[0], getattr(settings, kinds[0])) if kinds else None


def _tool_grammar(settings: Settings, *, is_xml: bool) -> str:
    functions = settings.functions
    if not functions:
        raise UsageError("tool_choice needs tools, and there are none", "give them with --tools FILE")
    return tool_choice_grammar(functions, settings.tool_choice or "", is_xml=is_xml)


def require_constraint(settings: Settings, checkpoint: Checkpoint) -> None:
    """Check the constraint that the settings ask for, without weights.

    Args:
        settings: Settings in force.
        checkpoint: Checkpoint of the model.

    Raises:
        UsageError: It cannot be kept to, or the library for it is not installed; ConfigError if a file or a
            variable has set it.
        CheckpointError: The tokenizer cannot be used.
    """
    if not settings.is_constrained:
        return  # Without reading the tokenizer.
    constraint = _constraint_for(settings, checkpoint)
    if constraint is None:
        return
    if constraint.kind == TOOL_CHOICE and not checkpoint.tokenizer.added_ids.keys() >= TAGS_OF_CALLS:
        return  # Refused with the prompt.
    try:
        checkpoint.token_table.require_usable(constraint)
    except UsageError as error:
        place, refuse = place_of(settings, constraint.kind)
        raise refuse(f"{place}: {error.message}", error.hint) from None


def _constraint_for(settings: Settings, checkpoint: Checkpoint) -> Constraint | None:
    template = checkpoint.chat_template
    return constraint_from(settings, is_xml=template is not None and template.has_xml_calls)


def require_room(plan: MemoryPlan, settings: Settings) -> None:
    """Check that memory suffices for a constraint that was not planned when the model was loaded.

    Raises:
        DoesNotFitError: Memory is too small.
    """
    if settings.is_constrained and not plan.is_constrained:
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
    constraint = _constraint_for(settings, checkpoint)
    breaks_loops = bool(settings.break_loops)
    tokenizer = checkpoint.tokenizer
    thinking = Thinking(tokenizer, prompt, budget=settings.thinking_budget, breaks_loops=breaks_loops)
    limits_thinking = breaks_loops or settings.thinking_budget is not None
    if constraint is None and (not limits_thinking or THINK_CLOSE not in tokenizer.added_ids):
        return None
    if constraint is None:
        return TextGuide(thinking, None, vocab_size=tokenizer.vocab_size, forces=settings.logprobs is None)
    _require_fitting(constraint, prompt, thinking, tokenizer)
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


def _require_fitting(
    constraint: Constraint, prompt: Prompt, thinking: Thinking, tokenizer: Tokenizer
) -> None:
    """Check that the constraint can begin right after the prompt and its thinking."""
    if constraint.kind == TOOL_CHOICE and not (
        prompt.is_chat and tokenizer.added_ids.keys() >= TAGS_OF_CALLS
    ):
        raise UsageError(
            "tool_choice cannot be kept to: this model has no tokens for calls of functions",
            "leave it out, or use --schema with the parameters of the function",
        )
    splitter = ThinkingSplitter(prompt)
    if splitter.prefilled[1].strip():
        raise UsageError(
            f"prefill contradicts {constraint.kind}: the answer would begin before its constraint",
            "leave the prefill out",
        )
    if thinking.phase is Phase.ANSWER and splitter.is_thinking:
        raise UsageError(
            f"{constraint.kind} cannot follow this model's thinking: {THINK_CLOSE} is not a token of its own",
            "switch thinking off with --no-thinking" if prompt.opens_thinking else "leave the prefill out",
        )
