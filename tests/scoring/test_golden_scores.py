"""Perplexities and rankings equal those of transformers for the same weights."""

import json
import math

import pytest
from cli_process import ROOT
from scored_texts import CHOICES, CONFIGS, PROMPT, STRIDE, TEXT, WINDOW
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen

pytestmark = pytest.mark.metal

GOLDENS = json.loads((ROOT / "tests" / "data" / "golden_scores.json").read_text())["models"]
TOLERANCE = 1e-4
SIZES = {"model_dtype": "float32", "chunk_size": 50}


def perplexity(loss):
    return math.exp(loss / (len(TEXT.encode()) - 1))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.release if place % 2 else ())
        for place, name in enumerate(CONFIGS)
    ],
)
def golden(request, tmp_path_factory):
    """A model's folder, and what transformers computes for it."""
    folder = tmp_path_factory.mktemp("model")
    write_text_checkpoint(folder, chat_template=None, **CONFIGS[request.param])
    return folder, GOLDENS[request.param]


def test_perplexity_of_a_text_at_once_and_in_windows(golden):
    folder, expected = golden
    whole = metal_gen.score(metal_gen.load(folder, max_seq_len=512, **SIZES), TEXT)
    assert whole.perplexity == pytest.approx(perplexity(expected["loss"]), rel=TOLERANCE)
    assert (whole.tokens, whole.nbytes, whole.windows) == (len(TEXT.encode()) - 1, len(TEXT.encode()) - 1, 1)
    assert whole.bits_per_byte == pytest.approx(expected["loss"] / math.log(2) / whole.nbytes, rel=TOLERANCE)
    model = metal_gen.load(folder, max_seq_len=WINDOW, **SIZES)
    parts = metal_gen.score(model, TEXT, stride=STRIDE)
    assert parts.perplexity == pytest.approx(perplexity(expected["windowed_loss"]), rel=TOLERANCE)
    assert parts.tokens == whole.tokens
    assert parts.windows == 1 + math.ceil((whole.tokens + 1 - WINDOW) / STRIDE)


def test_ranking_of_choices(golden):
    folder, expected = golden
    model = metal_gen.load(folder, max_seq_len=512, **SIZES)
    ranking = metal_gen.rank(model, prompt=PROMPT, choices=CHOICES)
    sums = expected["choices"]
    assert [item.index for item in ranking.items] == sorted(range(len(sums)), key=lambda index: -sums[index])
    for item in ranking.items:
        assert item.logprob == pytest.approx(sums[item.index], rel=TOLERANCE)
    means = [total / len(choice.encode()) for total, choice in zip(sums, CHOICES, strict=True)]
    ranking = metal_gen.rank(model, prompt=PROMPT, choices=CHOICES, by="mean", top=3)
    best = sorted(range(len(means)), key=lambda index: -means[index])[:3]
    assert [item.index for item in ranking.items] == best
