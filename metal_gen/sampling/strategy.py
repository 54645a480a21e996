"""What a sampling strategy is: numbers that have been checked. Nothing is computed here."""

from dataclasses import dataclass

from metal_gen.config.checks import TEMPERATURE, TOP_K, TOP_P, Check
from metal_gen.errors import UsageError

# Below it the quotient of two different float32 logits leaves no doubt, or no number.
LOWEST_TEMPERATURE = 1e-9


@dataclass(frozen=True, kw_only=True)
class SamplingStrategy:
    """How to choose a token from logits.

    Steps are applied in this order: temperature, top-k, top-p, draw.

    Args:
        temperature: Logits are divided by it; 0, and what is below 1e-9, takes the most probable
            token and makes the other steps idle.
        top_k: Keep the k most probable tokens; None, or k beyond the vocabulary, keeps all.
        top_p: Keep the smallest set of most probable tokens whose probability together reaches
            p, the token that crosses p included (nucleus sampling, arXiv 1904.09751); None or
            1 keeps all.

    Raises:
        UsageError: A value is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        _require("temperature", self.temperature, TEMPERATURE)
        _require("top_k", self.top_k, TOP_K)
        _require("top_p", self.top_p, TOP_P)

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < LOWEST_TEMPERATURE or self.top_k == 1

    def __str__(self) -> str:
        if self.is_greedy:
            return "greedy"
        parts = [f"temperature {self.temperature:g}"]
        if self.top_k is not None:
            parts.append(f"top-k {self.top_k}")
        if self.top_p is not None:
            parts.append(f"top-p {self.top_p:g}")
        return ", ".join(parts)


def Greedy() -> SamplingStrategy:
    """Always take the most probable token; of equals, the one with the lowest id."""
    return SamplingStrategy(temperature=0.0)


def Temperature(temperature: float) -> SamplingStrategy:
    """Draw from the whole vocabulary, sharper below 1 and flatter above."""
    return SamplingStrategy(temperature=temperature)


def TopK(top_k: int, *, temperature: float = 1.0) -> SamplingStrategy:
    """Draw from the k most probable tokens: 10 is focused, 50 a good middle, 100 diverse."""
    return SamplingStrategy(temperature=temperature, top_k=top_k)


def TopP(top_p: float, *, temperature: float = 1.0) -> SamplingStrategy:
    """Draw from the nucleus: 0.8 is focused, 0.9 a good middle, 0.95 diverse."""
    return SamplingStrategy(temperature=temperature, top_p=top_p)


def _require(name: str, value: object, check: Check) -> None:
    if value is None and name != "temperature":
        return
    try:
        check(value)
    except ValueError as error:
        raise UsageError(f"{name} {error}: {value}") from None
