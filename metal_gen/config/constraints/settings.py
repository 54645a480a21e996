"""Settings that constrain a text, and that end thinking and loops."""

import json
from dataclasses import dataclass
from typing import Any

from metal_gen.config.checks import Flag, Text, Whole
from metal_gen.config.constraints.checks import CONSTRAINTS, Choices, Grammar, Schema, Source
from metal_gen.config.constraints.tools import Tools
from metal_gen.config.setting_info import TERMINAL, setting

# Of `tool_choice`: words that name no function.
ANY_ANSWER, NO_TOOL, ANY_TOOL = "auto", "none", "required"


@dataclass(frozen=True, kw_only=True)
class ConstraintSettings:
    """Part of `Settings`. A text has at most one of the first four."""

    schema: str | None = setting(
        "generation",
        Schema(),
        None,
        "Answer with JSON that fits this JSON Schema: a file, JSON, or fields such as 'name, age int'; "
        "the prompt has to ask for them too",
    )
    regex: str | None = setting(
        "generation",
        Source("a regular expression", may_be_blank=True),
        None,
        "Answer with a text that matches this regex",
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
    tools: str | None = setting(
        "generation",
        Tools(),
        None,
        "Add the functions in this JSON file to the prompt; metal-gen runs none of them",
    )
    tool_choice: str | None = setting(
        "generation",
        Text(may_be_empty=False),
        None,
        "Require a call: required, or the name of a function; auto leaves it to the model, none forbids it",
        unset="auto",
    )
    schema_indent: int | None = setting(
        TERMINAL,
        Whole(0, 8),
        None,
        "Put each value of a schema's JSON on its own line, indented by this many spaces",
        unset="compact",
    )

    @property
    def functions(self) -> list[dict[str, Any]]:
        """The tools that the model is told of, as the chat template takes them."""
        return json.loads(self.tools) if self.tools and self.tool_choice != NO_TOOL else []

    @property
    def requires_call(self) -> bool:
        """Whether the answer has to be a call."""
        return self.tool_choice not in (None, ANY_ANSWER, NO_TOOL)

    @property
    def is_constrained(self) -> bool:
        """Whether there is anything that the text has to be."""
        return self.requires_call or any(getattr(self, name) for name in CONSTRAINTS)
