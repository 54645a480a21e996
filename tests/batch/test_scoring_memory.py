"""Texts that are scored take the memory that is planned."""

import pytest
from peak_memory import highest_peak, rounding_of_operations
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.batch.scoring.executor import open_scorer, score_all
from metal_gen.cli.scoring.run import run_rank
from metal_gen.cli.terminal.console import Console
from metal_gen.config.settings import Settings
from metal_gen.device.backend import runs_on_cpu
from metal_gen.engine.scoring.scorer import ScoreRequest
from metal_gen.engine.scoring.sequences import SlotSequences
from metal_gen.generation.loading import prepare
from metal_gen.scoring.ranking import RankOptions
from metal_gen.scoring.tasks import Choices

pytestmark = pytest.mark.metal

SMALL = {"hidden_size": 128, "intermediate_size": 256, "vocab_size": 2048, "num_hidden_layers": 4}
WIDE = {"hidden_size": 256, "intermediate_size": 2048, "vocab_size": 4096}
MANY_HEADS = {**WIDE, "intermediate_size": 512, "num_attention_heads": 16, "num_key_value_heads": 4}
HEADS_OF_64 = {**SMALL, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64}
LARGE_VOCABULARY = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 8000}


def require_as_planned(plan, run):
    """Check that the peak of a run is as planned, to 5 %."""
    planned = plan.total_bytes
    peak = highest_peak(run, enough=planned / 1.05)
    assert peak < 1.05 * planned + rounding_of_operations()
    if runs_on_cpu():  # How far ahead a GPU computes is not known: the plan has the most.
        assert planned < 1.05 * peak


def require_rows_as_planned(tmp_path, sizes, dtype, slots, length, **settings):
    """Check that rows that fill their slots take what is planned; `sizes` None is the bundled model."""
    model = None
    if sizes is not None:
        model = str(write_text_checkpoint(tmp_path, max_position_embeddings=length, **sizes))
    settings = Settings(model=model, model_dtype=dtype, max_seq_len=length, batch_size=slots, **settings)
    prepared = prepare(settings, most_slots=8, scores=True)
    text = [1 + place % 200 for place in range(length)]

    def load_and_score():
        requests = [ScoreRequest([], text[:-1], text[1:]) for _ in range(slots + 2)]
        with open_scorer(prepared.load()) as scorer:
            assert len(list(score_all(scorer, iter(requests)))) == len(requests)

    require_as_planned(prepared.plan, load_and_score)


@pytest.mark.parametrize(
    ("sizes", "dtype", "slots", "length"),
    [
        (LARGE_VOCABULARY, "float32", 2, 128),
        (LARGE_VOCABULARY, "bfloat16", 2, 128),
        (SMALL, "float32", 4, 128),
        pytest.param(SMALL, "float32", 8, 512, marks=pytest.mark.release),
        (SMALL, "bfloat16", 4, 128),
        pytest.param(SMALL, "bfloat16", 8, 512, marks=pytest.mark.release),
        pytest.param(WIDE, "float32", 8, 256, marks=pytest.mark.release),
        (MANY_HEADS, "float32", 3, 320),
        pytest.param(MANY_HEADS, "bfloat16", 3, 320, marks=pytest.mark.release),
        pytest.param(HEADS_OF_64, "float32", 2, 1024, marks=pytest.mark.release),
        ({**SMALL, "arch": "qwen2"}, "float32", 4, 128),
        pytest.param({**SMALL, "arch": "qwen3_moe"}, "float32", 8, 512, marks=pytest.mark.release),
        pytest.param(None, "float32", 8, 128, marks=pytest.mark.release),
        pytest.param(None, "float32", 8, 512, marks=pytest.mark.release),
    ],
    ids=range(14),
)
def test_texts_that_fill_the_slots_take_what_is_planned(tmp_path, sizes, dtype, slots, length):
    """With a large vocabulary, logits of as many tokens are computed together as there is memory for.

    The last two rows have the bundled model.
    """
    require_rows_as_planned(tmp_path, sizes, dtype, slots, length)


@pytest.mark.parametrize(
    ("sizes", "dtype", "length"),
    [
        (LARGE_VOCABULARY, "float32", 128),
        (SMALL, "float32", 256),
        pytest.param(MANY_HEADS, "float32", 512, marks=pytest.mark.release),
        pytest.param(SMALL, "bfloat16", 512, marks=pytest.mark.release),
        pytest.param({**SMALL, "arch": "qwen3_moe"}, "float32", 256, marks=pytest.mark.release),
        pytest.param(None, "float32", 256, marks=pytest.mark.release),
    ],
    ids=range(6),
)
def test_rows_in_a_single_slot_take_what_is_planned(tmp_path, sizes, dtype, length):
    """A slot of rows is computed in parts, unlike a text alone."""
    require_rows_as_planned(tmp_path, sizes, dtype, 1, length)


@pytest.mark.release
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_over_a_cache_in_8_bits_take_what_is_planned(tmp_path, dtype):
    """Attention unpacks the keys and values of one text at a time."""
    sizes = {**HEADS_OF_64, "num_hidden_layers": 2, "hidden_size": 64}
    require_rows_as_planned(tmp_path, sizes, dtype, 2, 1024, cache_dtype="q8")


def test_one_text_takes_what_is_planned():
    """The bundled model, and a text that fills its cache."""
    settings = {"max_seq_len": 256}
    plan = prepare(Settings(**settings), scores=True).plan

    def load_and_score():
        model = metal_gen.load(**settings)
        metal_gen.score(model, "The fox ran. " * 90)

    require_as_planned(plan, load_and_score)


def test_a_ranking_of_a_single_text_takes_what_is_planned():
    """It is computed in a slot, as several texts are."""
    settings = Settings(max_seq_len=256)
    task = Choices("Tell me a story.", ["The fox ran. " * 55])
    plan = prepare(settings, scores=True, in_slots=True).plan
    require_as_planned(plan, lambda: run_rank(settings, task, RankOptions(), Console(quiet=True)))


def test_a_hybrid_has_memory_for_one_text_however_many_are_asked_for(tmp_path):
    model = str(write_text_checkpoint(tmp_path, arch="qwen3_5", max_position_embeddings=128))
    asked = prepare(Settings(model=model, max_seq_len=128, batch_size=4), most_slots=8, scores=True)
    alone = prepare(Settings(model=model, max_seq_len=128), scores=True)
    assert asked.plan.total_bytes == alone.plan.total_bytes
    assert "one after another" in asked.notices[0]
    assert alone.notices == ()


def test_slots_of_a_batch_are_planned_for_a_token_of_each_text_too():
    plans = [prepare(Settings(batch_size=8), most_slots=8, scores=scores).plan for scores in (True, False)]
    assert plans[0].working_bytes < plans[1].working_bytes
    assert plans[0].cache == plans[1].cache


def test_no_pass_scores_more_tokens_than_its_chunk(tmp_path, monkeypatch):
    """Chunks may be smaller than the parts that prompts are usually computed in."""
    counts, run = [], SlotSequences.run

    def noted(self, parts, *others):
        counts.append(sum(len(part.tokens) for part in parts))
        return run(self, parts, *others)

    monkeypatch.setattr(SlotSequences, "run", noted)
    require_rows_as_planned(tmp_path, SMALL, "float32", 4, 128, chunk_size=24)
    assert max(counts) == 24
