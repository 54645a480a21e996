"""Log-probabilities do not depend on chunks, neighbors or sharing, and logits of all tokens never exist."""

import mlx.core as mx
import numpy as np
import pytest
from peak_memory import begin_peak, highest_peak, peak_since, rounding_of_operations
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.device.backend import runs_on_cpu
from metal_gen.engine.scoring import head
from metal_gen.engine.scoring.head import cross_entropy, target_logprobs
from metal_gen.engine.scoring.scorer import Scorer, ScoreRequest
from metal_gen.engine.scoring.sequences import OneSequence, SlotSequences, in_common
from metal_gen.generation.loading import prepare
from metal_gen.generation.memory.planning import cache_config
from metal_gen.models.attention import Step
from metal_gen.models.rows.independence import with_independent_rows

pytestmark = pytest.mark.metal

TEXT = [(7 * place * place + 3 * place) % 64 for place in range(100)]
# Where the text is parted from what comes before it.
SEAMS = (0, 40, 40, 40, 32, 99)
STRIDE = 16


@pytest.fixture
def sequences(tiny_model, make_cache):
    """Makes sequences by their number."""

    def make(count):
        cache = make_cache(tiny_model, max_seq_len=len(TEXT), batch_size=count)
        if count == 1:
            return OneSequence(tiny_model, cache, 30)
        return SlotSequences(with_independent_rows(tiny_model), cache, STRIDE)

    return make


def requests():
    """The text after beginnings of several lengths, and three tokens that could follow one."""
    texts = [ScoreRequest(TEXT[:seam], TEXT[seam:99], TEXT[seam + 1 :]) for seam in SEAMS if seam < 99]
    return [*texts, ScoreRequest(TEXT[:20], TEXT[20:41], [TEXT[41], 5, 6], skipped=20)]


def run(scorer, wanted):
    waiting = list(wanted)
    while waiting or scorer.in_use:
        while waiting and scorer.has_free_slot:
            scorer.begin(waiting.pop(0))
        scorer.step()
    return [request.logprobs for request in wanted]


@pytest.fixture(scope="module")
def expected(tiny_model):
    """Log-probabilities of every token at every place, by the definition."""
    settings = Settings(max_seq_len=len(TEXT))
    cache = new_cache(cache_config(settings, tiny_model.config, "float32"))
    logits = np.array(tiny_model.logits(tiny_model(mx.array([TEXT]), cache))[0], dtype=np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("block_rows", [1, 7, 500])
@pytest.mark.parametrize("chunk_size", [STRIDE, 50, 500])
@pytest.mark.parametrize("count", [1, 3])
def test_log_probabilities_are_those_of_the_whole_text(sequences, expected, count, chunk_size, block_rows):
    scorer = Scorer(sequences(count), chunk_size=chunk_size, block_rows=block_rows)
    *texts, alternatives = run(scorer, requests())
    for seam, logprobs in zip(SEAMS, texts, strict=False):
        wanted = [expected[place, TEXT[place + 1]] for place in range(seam, 99)]
        assert np.abs(np.array(logprobs) - wanted).max() < 1e-4
    assert np.abs(np.array(alternatives) - expected[40, [TEXT[41], 5, 6]]).max() < 1e-4


@pytest.mark.parametrize("count", [1, 3])
def test_on_a_cpu_a_layer_is_computed_before_the_next_so_that_signals_are_handled(
    sequences, monkeypatch, count
):
    computed = []
    ended = Step.end_layer

    def end_layer(step, *results):
        ended(step, *results)
        computed.append(step.in_layers or step.in_stages)

    monkeypatch.setattr(Step, "end_layer", end_layer)
    run(Scorer(sequences(count), chunk_size=50, block_rows=50), requests())
    assert set(computed) == {runs_on_cpu()}


def test_results_do_not_depend_on_neighbors_or_on_what_is_shared(sequences):
    together = run(Scorer(sequences(3), chunk_size=70, block_rows=9), requests())
    for request, logprobs in zip(requests(), together, strict=True):
        [alone] = run(Scorer(sequences(2), chunk_size=STRIDE, block_rows=9), [request])
        if mx.default_device() == mx.Device(mx.cpu):
            assert alone == logprobs
        assert alone == pytest.approx(logprobs, abs=1e-4)


def test_a_common_beginning_is_computed_once(sequences):
    choices = [ScoreRequest(TEXT[:40], [TEXT[40], choice], [choice, 1]) for choice in range(5)]
    for count in (1, 2, 5):
        scorer = Scorer(sequences(count), chunk_size=500, block_rows=9)
        run(scorer, [ScoreRequest(each.shared, each.own, each.targets) for each in choices])
        assert scorer.computed_tokens == 40 + 5 * 2


def test_a_beginning_is_shared_whole_or_in_multiples_of_the_stride():
    held = list(range(40))
    assert in_common(held, list(held), STRIDE) == 40
    assert in_common(held, held[:39], STRIDE) == 32
    assert in_common(held, [*held[:20], 99], STRIDE) == 16
    assert in_common(held, [], STRIDE) == 0


def test_a_request_that_is_given_up_frees_its_sequence(sequences):
    scorer = Scorer(sequences(2), chunk_size=STRIDE, block_rows=9)
    first, second, third = requests()[:3]
    scorer.begin(first)
    scorer.begin(second)
    scorer.step()
    scorer.end(first)
    assert scorer.has_free_slot
    [_, logprobs] = run(scorer, [third, ScoreRequest(second.shared, second.own, second.targets)])
    assert logprobs == third.logprobs


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_without_the_fused_kernel_the_numbers_are_the_same(dtype, monkeypatch):
    logits = (20 * mx.random.normal((50, 300), key=mx.random.key(1))).astype(dtype)
    targets = mx.arange(50)
    fused = cross_entropy(logits, targets)

    class Older:
        """`mx.fast` of an MLX before the kernel."""

    monkeypatch.setattr(head.mx, "fast", Older)
    plain = cross_entropy(logits, targets)
    assert plain.dtype == fused.dtype == mx.float32
    assert mx.abs(plain - fused).max().item() < 1e-5


def test_logits_of_all_tokens_never_exist(tmp_path):
    folder = write_checkpoint(tmp_path, tiny_config("qwen3", vocab_size=20_000))
    model = Checkpoint(folder).weights.load("float32")
    hidden = mx.random.normal((400, 32), key=mx.random.key(0))
    mx.eval(hidden)
    before = begin_peak()
    target_logprobs(model, hidden, [1] * 400, 10)
    # Of the weights, one matrix is used for the first time.
    assert peak_since(before) < 400 * 20_000 * 4 / 5


SMALL = {"hidden_size": 128, "intermediate_size": 256, "vocab_size": 2048, "num_hidden_layers": 4}
LARGE_VOCABULARY = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 20_000}


@pytest.mark.parametrize(
    ("arch", "changes", "dtype"),
    [
        pytest.param("qwen3", SMALL, "float32", marks=pytest.mark.release),
        pytest.param("qwen3", LARGE_VOCABULARY, "float32", marks=pytest.mark.release),
        ("qwen3", LARGE_VOCABULARY, "bfloat16"),
        ("qwen3_moe", SMALL, "float32"),
    ],
)
def test_a_text_that_fills_the_cache_takes_what_is_planned(tmp_path, arch, changes, dtype):
    folder = write_checkpoint(tmp_path, tiny_config(arch, max_position_embeddings=512, **changes))
    prepared = prepare(Settings(model=str(folder), model_dtype=dtype, max_seq_len=512), scores=True)
    plan = prepared.plan
    text = [1 + place % 500 for place in range(512)]

    def load_and_score():
        decoder = prepared.load().decoder
        sequence = OneSequence(decoder.model, decoder.cache, plan.chunk_size)
        scorer = Scorer(sequence, chunk_size=plan.chunk_size, block_rows=plan.logits_rows)
        run(scorer, [ScoreRequest([], text[:-1], text[1:])])

    peak = highest_peak(load_and_score, enough=plan.total_bytes / 1.05)
    assert peak < 1.05 * plan.total_bytes + rounding_of_operations()
    if runs_on_cpu():  # How far ahead a GPU computes is not known: the plan has the most.
        assert plan.total_bytes < 1.05 * peak
