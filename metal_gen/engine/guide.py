"""Guides: objects that decide, token by token, how a text may continue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from metal_gen.engine.generator import GeneratedToken
from metal_gen.engine.stopping import FinishDetail
from metal_gen.errors import MetalGenError
from metal_gen.sampling.allowed import Allowed


class TokenGuide(Protocol):
    """Follows the tokens of one text and says which may come next.

    The loop passes it each token, asks which tokens must follow, and if there are none, which may. It asks
    before each draw: no token is drawn before the guide has allowed it.
    """

    @property
    def error(self) -> MetalGenError | None:
        """Why the guide allows no token, if it has failed."""

    def accept(self, token: int) -> FinishDetail | None:
        """Record the next token. Return why the text ends with it; None if it does not."""

    def take_back(self, count: int) -> None:
        """Take back the last tokens."""

    def forced(self) -> Sequence[int]:
        """Return tokens that must come next, without a draw. The loop passes those it takes to `accept`."""

    def prepare(self) -> None:
        """Begin to find what `allowed` will return, while the caller hands a pass over to the device."""

    def allowed(self) -> Allowed | None:
        """Return the tokens to draw from; None for all."""


@dataclass(frozen=True)
class TextBounds:
    """The conditions that end a text.

    Attributes:
        endings: Tokens that end it, and the reason for each.
        limit: Maximum number of new tokens.
        limited_by: Reason to report when the limit is reached.
        guide: Guide of the text; None to allow any token.
    """

    endings: Mapping[int, FinishDetail]
    limit: int
    limited_by: FinishDetail
    guide: TokenGuide | None = None

    @property
    def error(self) -> MetalGenError | None:
        """Why the guide allows no token, if it has failed."""
        return None if self.guide is None else self.guide.error

    def prepare(self) -> None:
        """See `TokenGuide`."""
        if self.guide is not None:
            self.guide.prepare()

    def allowed(self) -> Allowed | None:
        """See `TokenGuide`."""
        return None if self.guide is None else self.guide.allowed()

    def finish(self, token: int, index: int) -> FinishDetail | None:
        """Record the next token, by its index. Return why the text ends with it; None if it does not."""
        finish = None if self.guide is None else self.guide.accept(token)
        return self.endings.get(token, finish or (self.limited_by if index + 1 == self.limit else None))

    def take_forced(self, index: int) -> list[GeneratedToken]:
        """Record all tokens that must come before the next draw; `index` is that of the first."""
        taken: list[GeneratedToken] = []
        while self.guide is not None and (must_come := self.guide.forced()):
            for token in must_come:
                taken.append(GeneratedToken(token, None, self.finish(token, index + len(taken))))
                if taken[-1].finish is not None:
                    return taken
        return taken
