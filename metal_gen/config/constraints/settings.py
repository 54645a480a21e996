"""Settings that constrain a text, and that end thinking and loops."""

from dataclasses import dataclass

from metal_gen.config.checks import Flag, Whole
from metal_gen.config.constraints.checks import Choices, Grammar, Schema, Source
from metal_gen.config.setting_info import TERMINAL, setting


@dataclass(frozen=True, kw_only=True)
class ConstraintSettings:
    """Part of `Settings`. A text has at most one of the first four."""

    schema: str | None = setting(
        "generation",
        Schema(),
        None,
        "Answer with JSON that fits this JSON Schema: a file, JSON, or fields such as 'name, age int'",
    )
    regex: str | None = setting(
        "generation", Source("a regular expression"), None, "Answer with a text that matches this regex"
    )
    choice: tuple[str, ...] = setting("generation", Choices(), (), "Answer with one of these texts")
    grammar: str | None = setting(
        "generation", Grammar(), None, "Answer with a text that the Lark grammar in this file accepts"
    )
    thinking_budget: int | None = setting(
        "generation", Whole(0), None, "End the model's thinking after this many tokens", unset="no limit"
    )
    break_loops: bool | None = setting(
        "generation",
        Flag(),
        None,
        "End thinking or an answer that repeats itself",
        unset="off; on in a batch",
    )
    schema_indent: int | None = setting(
        TERMINAL,
        Whole(0, 8),
        None,
        "Put each value of a schema's JSON on its own line, indented by this many spaces",
        unset="compact",
    )
