"""Settings for making the prompt."""

from dataclasses import dataclass

from metal_gen.config.checks import Flag, Text
from metal_gen.config.setting_info import setting
from metal_gen.config.template_args import TemplateArgs


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """Part of `Settings`."""

    system: str | None = setting(
        "generation", Text(), None, "Set the system message", unset="the chat template's"
    )
    raw: bool = setting(
        "generation", Flag(), False, "Continue the prompt as it is, without the chat template"
    )
    thinking: bool | None = setting(
        "generation", Flag(), None, "Let the model think first", unset="the chat template's"
    )
    prefill: str | None = setting(
        "generation", Text(may_be_empty=False), None, "Begin the answer with this text"
    )
    template_arg: tuple[tuple[str, object], ...] = setting(
        "generation", TemplateArgs(), (), "Set a variable of the chat template to a JSON value or a text"
    )
