"""The vocabulary in the library's form: the bytes of each token, in a tree that is built once per model."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.library import llguidance, new_matcher
from metal_gen.constraints.usable import lacks_bytes, require_text, require_writable
from metal_gen.errors import CheckpointError
from metal_gen.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from metal_gen.constraints.masks import Masks

# Measured with Qwen3's vocabulary of 151,936 rows: 87 to 104 MiB with the lexer's caches. `Masks` keeps
# 8 bytes a token more, and so do `Expectations` at most.
BYTES_PER_TOKEN = 736
MATCHER_BYTES = 4 << 20
# Tokens without quotes, backslashes and control characters, of up to so many characters. Where a string may
# go on with any of one length, the library takes them all at once, and looks only at the others one by one.
# Building this takes 0.16 s; without it, the mask of a token in a string takes one to two milliseconds. Each
# more length takes 0.02 to 0.04 s, and saves little.
SLICES = [rf'[^"\\\x00-\x1F\x7F]{length}' for length in ("{1,8}", "{1,16}", "+")]
MOST_KEPT = 64
# The library's id of a token that there is not.
NO_TOKEN = 0xFFFFFFFF


def table_bytes(vocabulary: int) -> int:
    """Return an estimate of the memory that a table takes."""
    return BYTES_PER_TOKEN * vocabulary


class TokenTable:
    """The tokens of a model, for any number of matchers.

    Args:
        tokenizer: Tokenizer of the model.
        eos_ids: Tokens that end a text.

    Attributes:
        vocab_size: Rows of the model's logits.
    """

    def __init__(self, tokenizer: Tokenizer, eos_ids: Collection[int]) -> None:
        self.vocab_size = tokenizer.vocab_size
        self._tokenizer = tokenizer
        self._eos_ids = sorted(eos_ids)
        self._kept: OrderedDict[Constraint, Any] = OrderedDict()
        self._usable: set[Constraint] = set()

    @cached_property
    def masks(self) -> "Masks":
        """Bits of allowed tokens, for all matchers."""
        # It needs MLX, which the first checks of a constraint do not.
        from metal_gen.constraints.masks import Masks

        return Masks(self.vocab_size)

    @cached_property
    def _library_table(self) -> Any:
        """The library's tokenizer. Building it holds Python's lock for about half a second.

        Raises:
            CheckpointError: The library cannot use the vocabulary.
        """
        library = llguidance()
        try:
            return library.LLTokenizer(
                _Vocabulary(self._tokenizer, self._eos_ids),
                n_vocab=self.vocab_size,
                eos_token=self._eos_ids[0] if len(self._eos_ids) == 1 else self._eos_ids or None,
                slices=SLICES,
            )
        except Exception as error:  # The library raises nothing narrower.
            raise CheckpointError(f"the vocabulary cannot be used for constraints: {error}") from error

    def build(self) -> None:
        """Build the table now, while other threads may compute."""
        _ = self._library_table

    def require_usable(self, constraint: Constraint) -> None:
        """Check that texts can be written within a constraint.

        Builds the table only for a tokenizer without a token for some byte.

        Raises:
            UsageError: The grammar cannot be used, allows nothing, or needs bytes that no token has.
        """
        if constraint in self._usable:
            return
        require_text(constraint, self._tokenizer.added_ids)
        if lacks_bytes(self._tokenizer):
            require_writable(constraint, self.new_matcher(constraint), self._tokenizer)
        if len(self._usable) == MOST_KEPT:
            self._usable.clear()
        self._usable.add(constraint)

    def new_matcher(self, constraint: Constraint) -> Any:
        """Return a matcher of the library at the beginning of a text.

        Raises:
            UsageError: The constraint cannot be used with this vocabulary.
        """
        if constraint not in self._kept:
            matcher = new_matcher(self._library_table, constraint.library_grammar)
            if matcher.is_error():
                raise constraint.refusal(matcher.get_error())
            self._kept[constraint] = matcher
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return self._kept[constraint].deep_copy()


class _Vocabulary:
    """The vocabulary in the form that `LLTokenizer` reads."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, eos_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = eos_ids[0] if eos_ids else NO_TOKEN
        self.tokens = tokenizer.all_token_bytes()
        # All added tokens; otherwise <tool_call> and <think> could appear within a string.
        self.special_token_ids = sorted(tokenizer.added_ids.values())

    def __call__(self, text: bytes | str) -> list[int]:
        """Encode a part of a text, up to a byte that has no token."""
        written = text.encode() if isinstance(text, str) else text
        try:
            ids = self._tokenizer.encode_part(written.decode())
        except UnicodeDecodeError:
            ids = []
        # A tokenizer composes characters (NFC), and drops bytes that it has no token for.
        is_same = b"".join(self.tokens[token] for token in ids) == written
        return ids if is_same else self._longest_tokens(written)

    def _longest_tokens(self, written: bytes) -> list[int]:
        ids, start = [], 0
        while start < len(written):
            lengths = range(min(self._longest, len(written) - start), 0, -1)
            parts = (written[start : start + length] for length in lengths)
            part = next((part for part in parts if part in self._by_bytes), None)
            if part is None:
                break
            ids.append(self._by_bytes[part])
            start += len(part)
        return ids

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        special = set(self.special_token_ids)
        return {text: token for token, text in enumerate(self.tokens) if token not in special}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._by_bytes))
