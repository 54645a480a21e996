"""Texts that are scored in slots take the memory that is planned."""

import pytest
from peak_memory import highest_peak
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.batch.scoring.executor import open_scorer, score_all
from metal_gen.config.settings import Settings
from metal_gen.engine.scoring.scorer import ScoreRequest
from metal_gen.generation.loading import prepare

pytestmark = pytest.mark.metal

LENGTH = 128


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_texts_that_fill_the_slots_take_what_is_planned(tmp_path, dtype):
    """With a large vocabulary, logits of as many tokens are computed together as there is memory for."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 8000}
    folder = write_text_checkpoint(tmp_path, max_position_embeddings=LENGTH, **sizes)
    settings = Settings(model=str(folder), model_dtype=dtype, max_seq_len=LENGTH, batch_size=2)
    prepared = prepare(settings, scores=True)
    text = [1 + place % 200 for place in range(LENGTH)]

    def load_and_score():
        requests = [ScoreRequest([], text[:-1], text[1:]) for _ in range(3)]
        with open_scorer(prepared.load()) as scorer:
            assert len(list(score_all(scorer, iter(requests)))) == len(requests)

    planned = prepared.plan.total_bytes
    peak = highest_peak(load_and_score, enough=planned / 1.05)
    assert abs(planned - peak) < 0.05 * peak
