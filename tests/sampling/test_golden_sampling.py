"""Tests penalties and filters, and their reference, against transformers' logits processors."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file
from sampling_reference import GOLDEN_CASES, adjusted, golden_cases, probabilities

from metal_gen.sampling.draw_rule import draw_once
from metal_gen.sampling.penalties import TokenHistory, penalize

pytestmark = pytest.mark.metal

GOLDENS = Path(__file__).parents[1] / "data" / "golden_sampling.safetensors"


@pytest.fixture(scope="module")
def goldens():
    return load_file(GOLDENS)["probabilities"]


def test_the_reference_agrees_with_transformers(goldens):
    assert len(goldens) == GOLDEN_CASES
    for case, golden in zip(golden_cases(), goldens, strict=True):
        values = adjusted(case.logits, case.strategy, case.prompt, case.generated)
        expected = probabilities(values, case.strategy)
        np.testing.assert_array_equal(expected > 0, golden > 0, err_msg=str(case.strategy))
        np.testing.assert_allclose(expected, golden, rtol=1e-6)


def test_kept_sets_and_probabilities_agree_with_transformers(goldens):
    for case, golden in zip(golden_cases(), goldens, strict=True):
        history = TokenHistory(case.prompt, 20)
        for token in case.generated:
            history.append(mx.array([token]))
        logits = penalize(mx.array(case.logits)[None], case.strategy, history)
        _, _, (weights, ids) = draw_once(logits, case.strategy, mx.array([[0.5]]), whole=True)
        assert ids is None
        made = np.array(weights[0], dtype=np.float64)
        np.testing.assert_array_equal(made > 0, golden > 0, err_msg=str(case.strategy))
        np.testing.assert_allclose(made / made.sum(), golden, rtol=1e-5)
