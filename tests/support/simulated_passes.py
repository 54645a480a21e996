"""Passes with a known cost whose guesses are right with a known probability."""

import random

from metal_gen.speculation.depth import FEWEST_FOUND

KIND = "lookup 8"


def cost_of(count, each):
    return 1.0 if count == 0 else 1.05 + each * count


def expected_speed(depth, share, each):
    return sum(share**place for place in range(depth + 1)) / cost_of(depth, each)


def settled(depths, kind=KIND):
    """Return the choice once a lookup has found guesses for a few tokens."""
    return [depths.choose(kind) for _ in range(FEWEST_FOUND)][-1]


def simulate(depths, share, each, rounds, kind=KIND, seed=1, noise=0.05):
    """Run passes whose guesses are right with a probability; return the seconds and the tokens."""
    chance, seconds, tokens = random.Random(seed), 0.0, 0
    used = []
    for _ in range(rounds):
        count = depths.choose(kind)
        accepted = next((place for place in range(count) if chance.random() > share), count)
        taken = cost_of(count, each) * (1 + chance.uniform(-noise, noise)) / 1000
        depths.note(kind if count else "", count, accepted, taken)
        seconds += 1000 * taken
        tokens += accepted + 1
        used.append(count)
    return seconds, tokens, used
