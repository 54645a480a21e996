"""Keys of several rows are those of each row."""

import mlx.core as mx
import numpy as np
import pytest

from metal_gen.sampling.random_keys import RandomKeys, fold, uniform, words, words_of

pytestmark = pytest.mark.metal

LARGE = [0, 1, 7, 2**32 + 1, 2**63]


def test_keys_of_rows_are_those_of_each_row():
    texts = [RandomKeys(seed) for seed in range(len(LARGE))]
    bases = mx.stack([keys.base for keys in texts])
    each = [keys.key(index) for keys, index in zip(texts, LARGE, strict=True)]
    assert np.array_equal(fold(bases, words_of(LARGE)), mx.stack(each))
    assert np.array_equal(uniform(mx.stack(each)), mx.concatenate([uniform(key) for key in each]))


def test_one_key_serves_all_rows_and_one_word_too():
    keys = RandomKeys(3)
    assert np.array_equal(fold(keys.base, words_of(LARGE)), mx.stack([keys.key(index) for index in LARGE]))
    bases = mx.stack([RandomKeys(seed).base for seed in range(3)])
    expected = mx.stack([RandomKeys(seed).key(9) for seed in range(3)])
    assert np.array_equal(fold(bases, words(9)), expected)
    assert len(np.unique(np.array(expected), axis=0)) == 3
