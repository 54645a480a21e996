"""Perplexities and rankings equal those of transformers for the same weights."""

import io
import json
import math

import pytest
from cli_process import ROOT
from scored_texts import (
    CHOICES,
    CONFIGS,
    DOCUMENTS,
    INSTRUCTION,
    PROMPT,
    QUERY,
    STRIDE,
    TEXT,
    WINDOW,
    write_reranker,
)
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.batch.scoring.rows import read_rank_rows
from metal_gen.batch.scoring.work import RankRows
from metal_gen.config.settings import Settings
from metal_gen.generation.loading import prepare
from metal_gen.scoring.ranking import RankOptions

pytestmark = pytest.mark.metal

FILE = json.loads((ROOT / "tests" / "data" / "golden_scores.json").read_text())
GOLDENS, RERANKED = FILE["models"], FILE["reranker"]
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


@pytest.mark.parametrize("slots", [1, 3])
def test_scores_of_a_reranker(tmp_path, slots):
    """Alone and in slots, where documents share the query."""
    model = write_reranker(tmp_path / "Qwen3-Reranker-tiny")
    row = {"query": QUERY, "documents": DOCUMENTS}
    if slots == 1:
        asked = metal_gen.load(model, max_seq_len=512, **SIZES)
        items = metal_gen.rank(asked, **row, instruction=INSTRUCTION).items
        found = {item.index: item.score for item in items}
    else:
        settings = Settings(model=str(model), max_seq_len=512, batch_size=slots, **SIZES)
        with RankRows(RankOptions(instruction=INSTRUCTION)).open(
            prepare(settings, scores=True).load()
        ) as executor:
            [job] = read_rank_rows(io.BytesIO(json.dumps(row).encode()), keep_fields=False)
            assert executor.begin(job, 0) is None
            while not (ended := executor.advance()):
                pass
            [(_, result)] = ended
        assert result.record["method"] == "reranker"
        found = {item["index"]: item["score"] for item in result.record["ranking"]}
    assert [found[place] for place in range(len(DOCUMENTS))] == pytest.approx(RERANKED, rel=TOLERANCE)
    order = sorted(found, key=lambda place: -RERANKED[place])
    assert list(found) == order
