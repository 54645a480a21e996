"""A guide whose rules are simple functions of the tokens so far."""

import mlx.core as mx

from metal_gen.engine.stopping import FinishDetail
from metal_gen.sampling.allowed import Allowed, word_count


def bits_of(tokens, vocabulary):
    """The bits of some tokens, as `keep_allowed` takes them."""
    words = [0] * word_count(vocabulary)
    for token in tokens:
        words[token // 32] |= 1 << token % 32
    return mx.array([words], mx.uint32)


class ScriptedGuide:
    """Guides a text over a small vocabulary.

    Args:
        allows: Gives the tokens that may follow those so far; None for any.
        forces: Gives those that must.
        ends: Tells whether the text is complete.
        vocabulary: Of the model.
    """

    def __init__(self, allows=lambda tokens: None, forces=lambda tokens: (), ends=lambda tokens: False):
        self.allows, self.forces, self.ends = allows, forces, ends
        self.tokens = []
        self.asked_at = []
        self.prepared_at = []
        self.error = None
        # The same tokens are the same array, as a matcher gives them.
        self.arrays = {}

    def accept(self, token):
        self.tokens.append(token)
        return FinishDetail.GRAMMAR if self.ends(self.tokens) else None

    def take_back(self, count):
        del self.tokens[len(self.tokens) - count :]

    def forced(self):
        return list(self.forces(self.tokens))

    def prepare(self):
        self.prepared_at.append(len(self.tokens))

    def allowed(self):
        self.asked_at.append(len(self.tokens))
        allowed = self.allows(self.tokens)
        if allowed is None:
            return None
        key = tuple(allowed)
        if key not in self.arrays:
            self.arrays[key] = bits_of(key, 64)
        return Allowed(self.arrays[key])
