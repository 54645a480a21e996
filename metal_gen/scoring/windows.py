"""Cuts a text that is longer than the cache into windows that overlap.

Every window but the first scores its last `stride` tokens; those before them are context. This is the
procedure of "Perplexity of fixed-length models" in the documentation of Hugging Face transformers.
"""

from collections.abc import Iterable, Iterator

from metal_gen.engine.scoring.scorer import ScoreRequest


def windows(parts: Iterable[list[int]], size: int, stride: int) -> Iterator[ScoreRequest]:
    """Yield a request for each window.

    Args:
        parts: Token ids of the text, in order.
        size: Most tokens of a window, at least 2.
        stride: Tokens that a window adds to the one before, 1 to size - 1.

    Returns:
        Requests for all tokens but the first; none for a text of one token.
    """
    window: list[int] = []
    seen = 1
    for part in parts:
        place = 0
        while place < len(part):
            if len(window) == size:
                yield _request(window, seen)
                window = window[stride:]
                seen = len(window)
            taken = part[place : place + size - len(window)]
            window += taken
            place += len(taken)
    if len(window) > seen:
        yield _request(window, seen)


def _request(window: list[int], seen: int) -> ScoreRequest:
    """Ask for the tokens of a window that come after those seen before."""
    return ScoreRequest(shared=[], own=window[:-1], targets=window[seen:], skipped=seen - 1)
