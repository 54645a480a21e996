"""The interface of a source of guesses: a lookup table, MTP heads, or a draft model.

A source proposes the tokens that may come next. The target model then computes all of them in one pass and
draws its own token at each place, with the key of that place. Guesses that equal these tokens are accepted.
So a source changes the speed of a text, not the text: on a CPU to the last token, on a GPU up to the rounding
of products of several rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import mlx.core as mx

from metal_gen.cache.common_prefix import common_prefix_length
from metal_gen.sampling.draw_rule import RuleDraws
from metal_gen.sampling.sampler import Sampler


@dataclass(frozen=True)
class Guesses:
    """Guesses of the tokens after the last token of a text.

    Attributes:
        tokens: Token ids in order. An array, (N,), need not be computed yet. Empty to ask for the hidden
            states of the next pass, without a guess.
        kind: What they come from. Depths are chosen for each kind, because costs and acceptance differ.
    """

    tokens: Sequence[int] | mx.array
    kind: str

    @property
    def count(self) -> int:
        """Number of guesses, N."""
        return len(self.tokens)

    @property
    def known(self) -> list[int]:
        """Their token ids. This waits for them if need be."""
        if not isinstance(self.tokens, mx.array):
            return list(self.tokens)
        ids: list[int] = self.tokens.tolist()  # type: ignore[assignment]
        return ids


@dataclass(frozen=True)
class RunningPass:
    """A pass over guesses that is being computed, and whose draws follow the sampler's rule.

    Attributes:
        guesses: Its guesses, without what fills it up.
        outcomes: Tokens that the target draws, and the `Status` of each, (2 R,), not computed yet.
        hidden: States that give them, (R, hidden).
        sampler: Sampler of the text.
        index: Index of the first of these tokens.
    """

    guesses: Guesses
    outcomes: mx.array
    hidden: mx.array
    sampler: Sampler
    index: int

    @property
    def rows(self) -> int:
        """Number of tokens that the target draws, R."""
        return self.outcomes.size // 2

    @property
    def added(self) -> list[int]:
        """The tokens up to the first that is not as guessed. This waits for the pass alone."""
        # A part of the outcomes would be there only once what was handed over with it is computed.
        numbers: list[int] = self.outcomes.tolist()  # type: ignore[assignment]
        drawn = numbers[: self.rows]
        return drawn[: common_prefix_length(drawn, self.guesses.known) + 1]


# Returns how many guesses of a kind to make now, at most; 0 for none.
Room = Callable[[str], int]
# Returns whether to make guesses of a kind after the next token, if the source has some.
Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class GuessDraw:
    """Draws guesses from a source's own logits, with strategy, bias and key of the target's draw there.

    Args:
        sampler: Sampler of the text.
        index: Index of the first guess.
    """

    sampler: Sampler
    index: int

    def __call__(self, logits: mx.array, place: int) -> mx.array:
        """Draw the guess at a place, from 0, from logits (1, V): its token id, (1,), not computed yet."""
        return self.sampler.draw(logits, self.index + place).token

    @property
    def by_rule(self) -> RuleDraws | None:
        """The draws of all guesses, without log-probabilities; None if they do not follow a rule alone."""
        draws = self.sampler.rule_draws(self.index)
        return None if draws is None else draws._replace(rule=replace(draws.rule, logprobs=None))


class GuessSource(Protocol):
    """Guesses the next tokens of one text at a time.

    Per text, the calls are: `begin`; `prefilled` once per chunk of the prompt; then `guess` and `accepted` in
    turns. `take_back` may come between any two. The text's last token is not in the target's cache yet.

    Attributes:
        name: Name for users: `lookup`, `mtp` or `draft`.
        needs_hidden: Whether it needs the target's hidden states.
        compiled_count: Number of functions that it has compiled so far.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    @property
    def needs_hidden(self) -> bool:
        """See the class."""
        ...

    @property
    def compiled_count(self) -> int:
        """See the class."""
        ...

    def begin(self, prompt: Sequence[int], kept: int) -> None:
        """Begin a text.

        Args:
            prompt: Token ids of the whole prompt.
            kept: Number of its tokens that the target's cache already holds. No hidden states come for them.
        """
        ...

    def prefilled(self, hidden: mx.array) -> None:
        """Take the hidden states of the next chunk of the prompt, if `needs_hidden`.

        Args:
            hidden: Target's hidden states after its final norm, (1, L, hidden), perhaps not computed.
        """
        ...

    def expects(self, wanted: Wanted) -> bool:
        """Return whether there will probably be guesses after the next token, and they are wanted."""
        ...

    def guess(self, room: Room, draw: GuessDraw) -> Guesses | None:
        """Guess the tokens after the last accepted one.

        Args:
            room: How many guesses of a kind to make now, at most.
            draw: Draws a guess from the source's own logits.

        Returns:
            As many guesses as there is room for, or fewer; None if there are none.
        """
        ...

    def guess_after(self, running: RunningPass, choose: Room) -> None:
        """Start to guess after a pass whose tokens are not read yet, if the source can.

        Args:
            running: The pass.
            choose: Chooses how many guesses of a kind to make after it. The next `guess` keeps to that.
        """
        ...

    def accepted(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """Add tokens to the text.

        Args:
            tokens: The guesses that were accepted, and the token that the target has drawn after them.
            hidden: Hidden states, (N, hidden), that gave each of these tokens; None if they are not known,
                or not needed.
        """
        ...

    def take_back(self, count: int) -> None:
        """Remove the last tokens of the text, which may be all after the prompt."""
        ...

    def end_text(self) -> None:
        """Drop guesses that were made ahead: the text has ended, and keeps its tokens."""
        ...
