"""Settings for drawing a token from the model's logits."""

from dataclasses import dataclass

from metal_gen.config.checks import Texts
from metal_gen.config.ranges import (
    LOGIT_BIAS,
    MIN_P,
    PENALTY,
    REPETITION_PENALTY,
    REPETITION_WINDOW,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
)
from metal_gen.config.setting_info import setting

# Default of a filter that the checkpoint's generation_config.json may set.
OWN_OR_OFF = "the model's, or else off"


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Part of `Settings`."""

    temperature: float | None = setting(
        "sampling",
        TEMPERATURE,
        None,
        "Set the temperature; 0 always takes the most probable token, 1 leaves probabilities as they are",
        unset="the model's, or else 0",
    )
    top_k: int | None = setting(
        "sampling", TOP_K, None, "Draw from the k most probable tokens; 0 turns this off", unset=OWN_OR_OFF
    )
    top_p: float | None = setting(
        "sampling",
        TOP_P,
        None,
        "Draw from the fewest tokens whose probability reaches p; 1 turns this off",
        unset=OWN_OR_OFF,
    )
    min_p: float | None = setting(
        "sampling",
        MIN_P,
        None,
        "Draw from tokens at least p times as probable as the most probable one; 0 turns this off",
        unset=OWN_OR_OFF,
    )
    repetition_penalty: float = setting(
        "sampling",
        REPETITION_PENALTY,
        1.0,
        "Divide the logits of tokens that have occurred; 1 turns this off",
        unset="the model's, or else 1.0",
    )
    repetition_window: int | None = setting(
        "sampling",
        REPETITION_WINDOW,
        None,
        "Apply the repetition penalty to this many recent tokens; -1 is all",
        unset="all",
    )
    presence_penalty: float = setting(
        "sampling", PENALTY, 0.0, "Subtract this from the logit of each token generated before"
    )
    frequency_penalty: float = setting(
        "sampling", PENALTY, 0.0, "Subtract this from a token's logit for each time it was generated"
    )
    logit_bias: tuple[tuple[str, float], ...] = setting(
        "sampling", LOGIT_BIAS, (), "Add a bias to the logit of a token, named by its text or id"
    )
    ban_token: tuple[str, ...] = setting(
        "sampling", Texts(), (), "Never draw this token, named by its text or id"
    )
    seed: int | None = setting(
        "sampling", SEED, None, "Set the random seed; -1 chooses one", unset="a new one for each run"
    )
