"""Settings for guessing tokens ahead."""

from collections.abc import Mapping
from dataclasses import dataclass

from metal_gen.config.checks import Choice, Text, Whole
from metal_gen.config.setting_info import setting

MOST_GUESSES = 64
# Values of `speculate` that a draft model does not contradict.
WITH_DRAFT = ("auto", "draft")


@dataclass(frozen=True, kw_only=True)
class SpeculationSettings:
    """Part of `Settings`."""

    speculate: str = setting(
        "decode",
        Choice(("auto", "off", "lookup", "mtp", "draft")),
        "auto",
        "Guess tokens ahead and verify them in one pass; the text stays the same",
    )
    draft_model: str | None = setting(
        "decode",
        Text(may_be_empty=False),
        None,
        "Guess with this smaller model: a Hub id, a folder or a GGUF file",
        unset="none",
    )
    draft_tokens: int | None = setting(
        "decode",
        Whole(1, MOST_GUESSES),
        None,
        "Guess at most this many tokens at once",
        unset="4 of a model, 32 of a lookup",
    )

    def contradicted_by(self, values: Mapping[str, object]) -> tuple[str, ...]:
        """Return which of these settings give way to values that override them.

        Otherwise a draft model in a settings file could not be turned off, nor guesses with a limit there.
        """
        limit = () if values.get("speculate") != "off" or "draft_tokens" in values else ("draft_tokens",)
        return (*limit, *self._contradicting_draft(values))

    def _contradicting_draft(self, values: Mapping[str, object]) -> tuple[str, ...]:
        """Return which of `draft_model` and `speculate` gives way."""
        if "draft_model" in values or "speculate" in values:
            if values.get("speculate", "auto") not in WITH_DRAFT:
                return () if "draft_model" in values else ("draft_model",)
            if "speculate" not in values and self.speculate not in WITH_DRAFT:
                return ("speculate",)
        return ()
