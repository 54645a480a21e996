"""What is probably allowed next: what was allowed the last times in the same place.

Within a string the allowed tokens are mostly the same, the objects of a list ask for the same in turn, and
within thinking all tokens are allowed. So a draw can be built before its guide is asked. The guide is still
asked before the token is read; where it allows others, the token is drawn again.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

from metal_gen.sampling.allowed import Allowed

# Places that are remembered, each with the bits of two sets of tokens, which `BYTES_PER_TOKEN` counts.
MOST_PLACES = 32
# How often in turn the same has to follow before it is sure.
LEAST_SURE, MOST_SURE = 8, 128
# A step that is handed over in vain takes as long as is saved with so many that are not.
STEP_COST = 16
# The share of draws that forced tokens follow, up to which a part of the next step is handed over in advance,
# and how much the last draw counts for it.
MOST_FORCED_SHARE, SHARE_STEP = 0.15, 1 / 16


class Expected(NamedTuple):
    """What is expected after a draw.

    Attributes:
        allowed: The tokens that the next draw is made from; None for all.
        is_forced: Whether tokens come first that are not drawn.
        is_sure: Whether it is likely enough to hand over a step that would be lost.
    """

    allowed: Allowed | None
    is_forced: bool
    is_sure: bool


@dataclass
class _Place:
    """What has followed a set of allowed tokens.

    Attributes:
        tokens: Their bits, which are kept so that no other array can be taken for this one; None for all.
        after: The bits that followed last; None for all.
        is_forced: Whether forced tokens followed instead.
        repeats: How often in turn the same has followed.
        needed: How often it has to before it is sure.
        forced_share: How often forced tokens followed lately, from 0 to 1.
    """

    tokens: mx.array | None
    after: mx.array | None
    is_forced: bool
    repeats: int = 0
    needed: int = LEAST_SURE
    forced_share: float = 0.0


class Expectations:
    """Remembers what followed which draws. Bits are the same only if they are the same array."""

    def __init__(self) -> None:
        self._places: OrderedDict[int, _Place] = OrderedDict()

    def after(self, allowed: Allowed | None) -> Expected | None:
        """Return what is expected after a draw from some tokens; None if that is open."""
        place = None if _has_instead(allowed) else self._places.get(_key(_bits(allowed)))
        if place is None or not place.repeats:
            return None
        after = None if place.after is None else Allowed(place.after)
        return Expected(after, place.is_forced, place.repeats >= place.needed)

    def may_be_forced(self, allowed: Allowed | None) -> bool:
        """Return whether forced tokens follow such draws too often for a step to be begun in advance."""
        place = self._places.get(_key(_bits(allowed)))
        return place is not None and place.forced_share > MOST_FORCED_SHARE

    def note(self, allowed: Allowed | None, after: Allowed | None, *, is_forced: bool = False) -> None:
        """Remember what followed a draw.

        Args:
            allowed: The tokens it was made from; None for all.
            after: The tokens that the next draw was made from; None for all.
            is_forced: Whether forced tokens followed instead.
        """
        if _has_instead(allowed) or _has_instead(after):
            return
        tokens, following = _bits(allowed), _bits(after)
        place = self._places.pop(_key(tokens), None)
        if place is None:
            place = _Place(tokens, following, is_forced)
        elif place.is_forced == is_forced and place.after is following:
            place.repeats += 1
        else:
            _adapt(place)
            place.after, place.is_forced, place.repeats = following, is_forced, 0
        place.forced_share += SHARE_STEP * (is_forced - place.forced_share)
        self._places[_key(tokens)] = place
        if len(self._places) > MOST_PLACES:
            self._places.popitem(last=False)


def same_tokens(one: Allowed | None, other: Allowed | None) -> bool:
    """Return whether two sets are known to be the same, which takes no look at their bits."""
    if _has_instead(one) or _has_instead(other):
        return False
    return _bits(one) is _bits(other)


def _adapt(place: _Place) -> None:
    """Learn from the end of a run whether handing steps over in it has paid."""
    in_advance = place.repeats - place.needed
    if in_advance < 0 or place.is_forced:
        return
    if in_advance < STEP_COST:
        place.needed = min(2 * place.needed, MOST_SURE)
    else:
        place.needed = max(place.needed // 2, LEAST_SURE)


def _bits(allowed: Allowed | None) -> mx.array | None:
    return None if allowed is None else allowed.tokens


def _has_instead(allowed: Allowed | None) -> bool:
    return allowed is not None and allowed.instead is not None


def _key(bits: mx.array | None) -> int:
    return 0 if bits is None else id(bits)
