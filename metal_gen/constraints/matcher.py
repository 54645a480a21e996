"""Follows one text through the grammar of its constraint.

Axes: W words of 32 bits, one bit per token.
"""

from array import array
from functools import cache
from typing import Any

import mlx.core as mx

from metal_gen.constraints.constraint import TOO_MUCH, Constraint, is_limit
from metal_gen.constraints.thread_pool import Future
from metal_gen.constraints.token_table import TokenTable
from metal_gen.errors import MetalGenError, UsageError
from metal_gen.take_back import Recent

NO_TOKEN_HINT = "the constraint asks for characters that this model has no token for: choose another one"


class GrammarMatcher:
    """The state of a text within its grammar.

    Args:
        table: Tokens of the model.
        constraint: The form that the text must have.

    Attributes:
        error: Why the text cannot continue; None if it can.

    Raises:
        UsageError: The constraint cannot be used with this model, or no token can begin the text.
    """

    def __init__(self, table: TokenTable, constraint: Constraint) -> None:
        self._table = table
        self._constraint = constraint
        self._masks = table.masks
        self._own = table.new_matcher(constraint)
        # The bits that another thread was asked for, for the state as it is.
        self._future: Future[bytes] | None = None
        # What the library writes the bits to: it takes longer to return them as an object of its own.
        self._words = array("I", [0]) * table.masks.words
        self.error: MetalGenError | None = None
        self._tokens = 0
        # The tokens that the library has consumed.
        self._consumed: list[int] = []
        self._recent: Recent[tuple[int, int, MetalGenError | None]] = Recent()
        if _are_none(self.find_bits()):
            raise UsageError(f"no token of this model can begin the {constraint.kind}", NO_TOKEN_HINT)

    @property
    def _matcher(self) -> Any:
        """The library's matcher, once no other thread uses it."""
        if self._future is not None:
            self._future.wait()
        return self._own

    @property
    def is_complete(self) -> bool:
        """Whether the text so far fulfils the grammar."""
        return bool(self._matcher.is_accepting()) and not self._matcher.is_error()

    @property
    def is_over(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped())

    def accept(self, token: int) -> None:
        """Record the next token."""
        matcher = self._changing()
        self._recent.keep(self._state)
        self._tokens += 1
        if matcher.is_stopped():
            return
        if matcher.consume_token(token):
            self._consumed.append(token)
        else:
            self._fail(f"token {token} is not allowed")

    def take_back(self, count: int) -> None:
        """Take back the last tokens, and with them an error that came after them."""
        if not count:
            return
        matcher, consumed = self._changing(), len(self._consumed)
        self._tokens, kept, self.error = self._recent.take_back(count, self._state)
        del self._consumed[kept:]
        # In error, the library takes nothing back.
        if not matcher.rollback(consumed - kept) and self.error is None:
            self._own = self._table.new_matcher(self._constraint)
            self._own.consume_tokens(self._consumed)

    def _changing(self) -> Any:
        """Return the library's matcher, whose state will change; forget the tokens that were to be found."""
        matcher, self._future = self._matcher, None
        return matcher

    @property
    def _state(self) -> tuple[int, int, MetalGenError | None]:
        return self._tokens, len(self._consumed), self.error

    def forced(self) -> list[int]:
        """Return tokens that must come next, as the tokenizer writes them."""
        matcher = self._matcher
        return [] if matcher.is_stopped() else list(matcher.compute_ff_tokens())

    def prepare(self) -> None:
        """Begin to find the tokens that may come next, if `Masks` does so in another thread.

        The thread uses no MLX. `allowed` waits for it, and so does all else that needs the matcher.
        """
        if self._future is None:
            self._future = self._masks.submit(self.find_bits)

    def allowed(self) -> mx.array:
        """Return the bits of the tokens that may come next, (1, W) uint32; none after an error."""
        bits = self.find_bits() if self._future is None else self._future.result()
        self._future = None
        if self.error is None and _are_none(bits):
            self._fail("no token of this model can continue it")
        return self._masks.array(bits)

    def find_bits(self) -> bytes:
        """Find the bits of the tokens that may come next. May run in any thread while no other uses this."""
        address, words = self._words.buffer_info()
        self._own.unsafe_compute_mask_ptr(address, words * self._words.itemsize)
        bits = self._words.tobytes()
        # In error, the library asks for the end of the text.
        return _no_bits(len(bits)) if self._own.is_error() else bits

    def _fail(self, reason: str) -> None:
        hint = NO_TOKEN_HINT
        if is_limit(self._matcher.get_error() or ""):
            reason, hint = f"the {self._constraint.kind} {TOO_MUCH}", self._constraint.smaller_hint
        count = f"{self._tokens} token{'' if self._tokens == 1 else 's'}"
        place = f"the {self._constraint.kind} after {count}"
        self.error = UsageError(f"the text cannot continue within {place}: {reason}", hint)


def _are_none(bits: bytes) -> bool:
    """Return whether no bit is set."""
    return bits == _no_bits(len(bits))


@cache
def _no_bits(length: int) -> bytes:
    return bytes(length)
