"""Heads of a trained model guess what it says: this shows mistakes that arithmetic alone does not.

No reference has these heads. A state taken before the final norm, or norms without the 1 that is stored less,
still give guesses, only worse ones.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from story_model import write_story_model

from metal_gen.cache.config import KVCacheConfig
from metal_gen.cache.hybrid import new_cache
from metal_gen.cache.kv_cache import KVCache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.mtp_weights import MtpWeights
from metal_gen.models.cache_size import cache_size

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from bundled_model.corpus import make_document

SEED, DOCUMENTS = 777, 5
DTYPE = "float32"


@dataclass(frozen=True)
class Answer:
    """An answer as the model has read it.

    Args:
        ids: Token ids, with those of the prompt.
        begin: Number of tokens of the prompt.
        before: States before the final norm.
        chosen: Tokens that the model would choose after each token.
    """

    ids: list[int]
    begin: int
    before: mx.array
    chosen: np.ndarray


class NoNorm:
    """Takes the place of the final norm."""

    def of_sum(self, rows, added):
        return rows + added, rows + added


def read_answer(model, prompt, answer):
    ids = [*prompt, *answer][:240]
    cache = new_cache(cache_size(model.config, max_seq_len=len(ids), dtype=DTYPE))
    before = replace(model, norm=NoNorm())(mx.array([ids]), cache)[0]
    chosen = mx.argmax(model.logits(model.norm(before)), axis=-1)
    return Answer(ids, len(prompt), before, np.array(chosen))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Model, heads and answers."""
    checkpoint = Checkpoint(write_story_model(tmp_path_factory.mktemp("stories")))
    model, encode = checkpoint.weights.load(DTYPE), checkpoint.tokenizer.encode
    documents = [make_document(index, SEED) for index in range(DOCUMENTS)]
    parts = [
        [encode(part, add_special_tokens=False) for part in (each.prompt, each.answer)] for each in documents
    ]
    return model, MtpWeights(checkpoint.weights).load(DTYPE), [read_answer(model, *each) for each in parts]


def accepted_share(model, heads, answers, *, depth=1, norm=None):
    """Return the share of tokens that the heads guess as the model would choose them."""
    right = total = 0
    for answer in answers:
        states = (norm or model.norm)(answer.before)
        for step in range(1, depth + 1):
            size = KVCacheConfig(
                num_layers=1, num_kv_heads=1, head_dim=32, max_seq_len=len(answer.ids), dtype=DTYPE
            )
            states = heads(model, mx.array(answer.ids[step:]), states[:-1], KVCache(size))
        guessed = np.array(mx.argmax(model.logits(states), axis=-1))
        # From tokens up to t + depth, the model and the heads choose the one after these.
        same = (guessed == answer.chosen[depth:])[max(answer.begin - depth, 0) :]
        right, total = right + same.sum(), total + same.size
    return right / total


def test_most_guesses_are_what_the_model_chooses(trained):
    assert accepted_share(*trained) > 0.85
    assert accepted_share(*trained, depth=2) > 0.8


def test_states_before_the_final_norm_give_fewer(trained):
    before = accepted_share(*trained, norm=lambda rows: rows)
    assert before < accepted_share(*trained) - 0.005


@pytest.mark.quick
@pytest.mark.parametrize("name", ["embedding_norm", "hidden_norm"])
def test_norms_without_what_is_stored_less_give_hardly_any(trained, name):
    model, heads, answers = trained
    wrong = replace(getattr(heads, name), around_zero=False)
    assert accepted_share(model, replace(heads, **{name: wrong}), answers) < 0.4
