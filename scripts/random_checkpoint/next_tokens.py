"""Weights with which each token has a fixed next token, and guesses are right for a set share of the tokens.

All projections back to the residual stream are zero, so that a state is the embedding of the last token. The
head's row of a token is the embedding of the token before it: every text counts upwards. All other matrices
are random, so that the time is that of any weights.
"""

from collections.abc import Iterator

import mlx.core as mx

from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.mtp import MTP_JOINING
from scripts.random_checkpoint.numbers import OF_MATRICES, RandomNumbers, rows_of_a_block

EMBEDDING, HEAD, JOINING = "model.embed_tokens.weight", "lm_head.weight", f"{MTP_JOINING}.weight"
LAST_PROJECTIONS = (".o_proj.weight", ".out_proj.weight", ".down_proj.weight", ".experts.down_proj")
# What layers for multi-token prediction guess where they are to be wrong.
WRONG_GUESS = 7
# Far larger than other numbers of an embedding.
MARK = 0.5


class NextTokens(RandomNumbers):
    """Makes the tensors of a model whose next token is the last one plus 1.

    Args:
        dtype: Dtype of the tensors.
        seed: Any whole number.
        around_zero: Whether the weights of norms are stored minus 1.
        vocab_size: Number of tokens.
        ordinary: Number of ordinary tokens; 0 follows the last of them.
        right: Share of the ordinary tokens with the right next token.
        in_mtp: Whether only the layers for multi-token prediction are wrong about the others, rather than
            the model. The first number of an embedding then tells them where.
    """

    def __init__(
        self,
        dtype: mx.Dtype,
        seed: int,
        *,
        around_zero: bool,
        vocab_size: int,
        ordinary: int,
        right: float = 1.0,
        in_mtp: bool = False,
    ) -> None:
        super().__init__(dtype, seed, around_zero=around_zero)
        self._vocab_size = vocab_size
        self._ordinary = ordinary
        self._in_mtp = in_mtp
        self._is_wrong = mx.random.uniform(shape=(ordinary,), key=self.key("right", 0)) >= right

    def blocks(self, name: str, shape: Shape) -> Iterator[mx.array]:
        """Yield a tensor in blocks of rows."""
        if name == HEAD:
            return self._head(shape)
        return super().blocks(name, shape)

    def block(self, name: str, number: int, shape: Shape) -> mx.array:
        """Return a block of this shape."""
        if name.endswith(LAST_PROJECTIONS):
            return mx.zeros(shape, self.dtype)
        begin = number * rows_of_a_block(shape)
        if name == JOINING:
            return self._joining(mx.arange(begin, begin + shape[0]), shape)
        random = super().block(name, number, shape)
        if name != EMBEDDING or not self._in_mtp:
            return random
        tokens = mx.arange(begin, begin + shape[0])
        is_marked = self._is_wrong[tokens % self._ordinary] & (tokens < self._ordinary)
        return _with_first(random, MARK * is_marked)

    def _head(self, shape: Shape) -> Iterator[mx.array]:
        step = rows_of_a_block(shape)
        before = self._embedding_of(self._ordinary - 1, shape[1])
        for number, begin in enumerate(range(0, shape[0], step)):
            size = (min(step, shape[0] - begin), *shape[1:])
            embedded = self.block(EMBEDDING, number, size)
            rows = mx.concatenate([before, embedded[:-1]])
            before = embedded[-1:]
            tokens = mx.arange(begin, begin + size[0])
            if self._in_mtp:
                rows = _with_first(rows, mx.zeros(size[0]))
            else:
                is_wrong = self._is_wrong[(tokens - 1) % self._ordinary]
                rows = mx.where(is_wrong[:, None], super().block(HEAD, number, size), rows)
            # No special token is ever next.
            yield mx.where((tokens < self._ordinary)[:, None], rows, mx.array(0, self.dtype))

    def _embedding_of(self, token: int, hidden: int) -> mx.array:
        """Return the embedding of a token, (1, hidden)."""
        step = rows_of_a_block((self._vocab_size, hidden))
        number, place = divmod(token, step)
        rows = min(step, self._vocab_size - number * step)
        return self.block(EMBEDDING, number, (rows, hidden))[place : place + 1]

    def _joining(self, rows: mx.array, shape: Shape) -> mx.array:
        """Return rows that let an embedding through, without the mark, which turns it to the wrong guess."""
        passed = (rows[:, None] == mx.arange(shape[1])[None]) & (rows > 0)[:, None]
        guess = self._embedding_of(WRONG_GUESS - 1, shape[1] // 2)[0] / OF_MATRICES
        turned = mx.where(rows > 0, guess[rows], 0)
        return _with_first(passed.astype(self.dtype), turned)


def _with_first(rows: mx.array, first: mx.array) -> mx.array:
    """Return rows with other first numbers."""
    return mx.concatenate([first.astype(rows.dtype)[:, None], rows[:, 1:]], axis=1)
