"""What is probably allowed next: what was allowed the last times in the same place.

Within a string the allowed tokens are mostly the same, the objects of a list ask for the same in turn, and
within thinking all tokens are allowed. So a draw can be built before its guide is asked. The guide is still
asked before the token is read; where it allows others, the token is drawn again.
"""

from collections import OrderedDict
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.sampling.allowed import Allowed

# Places that are remembered, each with the bits of two sets of tokens. `BYTES_PER_TOKEN` of
# `constraints/token_table.py` counts them.
MOST_PLACES = 32
# How often in turn the same has to follow before it is sure.
LEAST_SURE, MOST_SURE = 8, 128
# A step that is handed over in vain takes as long as is saved with so many that are not.
STEP_COST = 16
# The share of draws that forced tokens follow, up to which a part of the next step is handed over in advance,
# and how much the last draw counts for it.
MOST_FORCED_SHARE, SHARE_STEP = 0.15, 1 / 16


@dataclass(slots=True)
class Expected:
    """What has followed draws from a set of tokens, and is expected after the next one.

    Attributes:
        tokens: Bits of the set, kept so that no other array can be taken for this one; None for all.
        allowed: The tokens that the next draw was made from; None for all.
        is_forced: Whether tokens came first that were not drawn.
        repeats: How often in turn the same has followed.
        needed: How often it has to before it is sure.
        forced_share: How often forced tokens followed lately, from 0 to 1.
    """

    tokens: mx.array | None
    allowed: Allowed | None
    is_forced: bool
    repeats: int = 0
    needed: int = LEAST_SURE
    forced_share: float = 0.0

    @property
    def is_sure(self) -> bool:
        """Whether it is likely enough to hand over a step that would be lost."""
        return self.repeats >= self.needed


class Expectations:
    """Remembers what followed which draws. Bits are the same only if they are the same array."""

    def __init__(self) -> None:
        self._places: OrderedDict[int, Expected] = OrderedDict()

    def after(self, allowed: Allowed | None) -> Expected | None:
        """Return what is expected after a draw from some tokens; None if that is open."""
        place = None if _has_instead(allowed) else self._places.get(_key(allowed))
        return place if place is not None and place.repeats else None

    def may_be_forced(self, allowed: Allowed | None) -> bool:
        """Return whether forced tokens follow such draws too often for a step to be begun in advance."""
        place = self._places.get(_key(allowed))
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
        key = _key(allowed)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Expected(_bits(allowed), after, is_forced)
            if len(self._places) > MOST_PLACES:
                self._places.popitem(last=False)
        else:
            self._places.move_to_end(key)
            if place.is_forced == is_forced and _bits(place.allowed) is _bits(after):
                place.repeats += 1
            else:
                _adapt(place)
                place.allowed, place.is_forced, place.repeats = after, is_forced, 0
        place.forced_share += SHARE_STEP * (is_forced - place.forced_share)


def same_tokens(one: Allowed | None, other: Allowed | None) -> bool:
    """Return whether two sets are known to be the same, which takes no look at their bits."""
    if _has_instead(one) or _has_instead(other):
        return False
    return _bits(one) is _bits(other)


def _adapt(place: Expected) -> None:
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


def _key(allowed: Allowed | None) -> int:
    return 0 if allowed is None else id(allowed.tokens)
