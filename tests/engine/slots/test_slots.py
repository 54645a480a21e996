"""Tests many texts at once in slots: each is the same as if it were alone."""

import random
from dataclasses import replace

import mlx.core as mx
import pytest
from adapter_files import load_adapted_and_quantized
from doubtful_sampler import doubtful_sampler, two_texts
from on_device import cpu_only
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.engine.stopping import FinishDetail
from metal_gen.models.layers import GatedMLP, Linear
from metal_gen.models.matrices.adapted import AdaptedMatrix, parts_of
from metal_gen.models.matrices.matrix import DenseMatrix
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix
from metal_gen.models.rows import independence
from metal_gen.models.rows.independence import with_independent_rows
from metal_gen.models.rows.rules import outcomes_of
from metal_gen.sampling.logits_error import LogitsError
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import SamplingStrategy

pytestmark = pytest.mark.metal

CAPACITY = 320
STRATEGIES = [
    SamplingStrategy(temperature=0.0),
    SamplingStrategy(temperature=0.8, top_p=0.9),
    SamplingStrategy(temperature=1.3, top_k=5),
    SamplingStrategy(temperature=0.9, repetition_penalty=1.3, frequency_penalty=0.2),
    SamplingStrategy(temperature=1.0, min_tokens=4, logit_bias=((5, 2.0),)),
]
ENDINGS = {1: FinishDetail.EOS, 2: FinishDetail.STOP_TOKEN}
SYSTEM = [7, 8, 9, 10] * 9


def requests(count, seed=0):
    """Make prompts and lengths as in real work: some long, some with a common prefix."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        own = [chance.randrange(3, 64) for _ in range(chance.choice([1, 3, 17, 40, 130]))]
        prompt = SYSTEM + own if number % 3 else own
        made.append((number, prompt, STRATEGIES[number % len(STRATEGIES)], chance.choice([1, 5, 30, 90])))
    return made


def sampler(number, prompt, strategy, logprobs=None):
    return Sampler(
        strategy,
        RandomKeys(11, number),
        prompt=prompt,
        capacity=CAPACITY,
        ending_ids=ENDINGS,
        logprobs=logprobs,
    )


def alone(model, cache, request):
    number, prompt, strategy, most = request
    cache.clear()
    decoder = Decoder(model, cache)
    logits = decoder.prefill(prompt)
    tokens = generate_tokens(
        decoder, logits, sampler(number, prompt, strategy), endings=ENDINGS, max_tokens=most
    )
    return [(token.id, token.finish) for token in tokens]


def together(decoder, wanted):
    """Return the texts of all requests, by number."""
    wanted = list(wanted)
    texts, running = {}, {}
    while True:
        while wanted and decoder.has_free_slot:
            number, prompt, strategy, most = wanted.pop(0)
            begun = decoder.begin(prompt, sampler(number, prompt, strategy), endings=ENDINGS, max_tokens=most)
            running[begun] = texts.setdefault(number, [])
        if not running:
            return texts
        for begun, token in decoder.step():
            running[begun].append((token.id, token.finish))
            if token.finish:
                del running[begun]


VARIANTS = {
    "sliding": {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    # Rope scaling stretches some of the prompts.
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 60},
}
MODELS = ["qwen3", "qwen2", *VARIANTS]


@pytest.fixture(params=MODELS)
def model(request, tmp_path):
    if request.param == "adapted":
        return load_adapted_and_quantized(tmp_path)
    family = "qwen2" if request.param in VARIANTS else request.param
    folder = write_checkpoint(tmp_path, tiny_config(family, **VARIANTS.get(request.param, {})))
    return Checkpoint(folder).weights.load("float32")


@pytest.fixture
def fuses(request):
    """Fuse operations or not: on a CPU, MLX calls a C++ compiler to fuse, for seconds."""
    if not request.param:
        mx.disable_compile()
    yield request.param
    mx.enable_compile()


def test_waiting_for_a_pass_computes_nothing_of_the_pass_after(tiny_model, make_cache, monkeypatch):
    """Else that pass would write before a kernel that MLX does not know to write, and into a copy."""
    cache = make_cache(tiny_model, max_seq_len=CAPACITY, batch_size=3)
    decoder = SlotDecoder(tiny_model, cache, chunk_size=16, stride=16)
    counts, build = [], SlotDecoder._build

    def note(self):
        built, current = build(self), self._ahead
        if current is not None:
            written = {id(array) for array in self.slots.arrays}
            assert not written.intersection(map(id, current.outputs))
            counts.append(len(current.outputs))
        return built

    monkeypatch.setattr(SlotDecoder, "_build", note)
    together(decoder, [(0, list(range(3, 63)), STRATEGIES[0], 3), *requests(8)[1:]])
    assert min(counts) == 0, "no pass had parts of prompts alone"
    assert max(counts) > 0


@pytest.mark.parametrize(
    ("model", "compiles", "fuses"),
    [
        ("qwen3", True, False),
        ("sliding", False, False),
        ("dynamic", True, False),
        ("adapted", False, False),
        *(
            pytest.param(model, False, False, marks=pytest.mark.release)
            for model in ("qwen3", "qwen2", "dynamic")
        ),
        *(pytest.param(model, True, True, marks=pytest.mark.release) for model in MODELS),
    ],
    indirect=["model", "fuses"],
)
def test_texts_equal_those_generated_one_by_one(model, make_cache, compiles, fuses):
    wanted = requests(15)
    cache = make_cache(model, max_seq_len=CAPACITY)
    expected = {request[0]: alone(model, cache, request) for request in wanted}
    slots = make_cache(model, max_seq_len=CAPACITY, batch_size=4)
    decoder = SlotDecoder(model, slots, chunk_size=48, stride=16, compiles=compiles)
    assert together(decoder, wanted) == expected
    assert decoder.in_use == 0
    assert decoder.shared_tokens > 0


@cpu_only
@pytest.mark.parametrize(
    "model",
    [
        *("qwen3", "dynamic", "qwen2_moe"),
        *(pytest.param(model, marks=pytest.mark.release) for model in ("qwen2", "sliding", "adapted")),
    ],
    indirect=True,
)
def test_texts_are_the_same_to_the_last_bit_for_any_number_of_slots_and_order(model, make_cache):
    model = with_independent_rows(model)
    found = []
    for batch_size, seed in ((1, None), (3, 1), (8, 2)):
        wanted = requests(15 if model.config.experts is None else 6)
        if seed is not None:
            random.Random(seed).shuffle(wanted)
        cache = make_cache(model, max_seq_len=CAPACITY, batch_size=batch_size)
        decoder = SlotDecoder(model, cache, chunk_size=80, stride=16)
        logits = {}
        running = {}
        while wanted or running:
            while wanted and decoder.has_free_slot:
                number, prompt, strategy, most = wanted.pop(0)
                text = decoder.begin(
                    prompt, sampler(number, prompt, strategy), endings=ENDINGS, max_tokens=most
                )
                running[text] = number
            for text, token in decoder.step():
                logits[running[text], token.draw.index] = token.draw.logits.tolist()
                if token.finish:
                    del running[text]
        found.append(logits)
    assert found[0] == found[1] == found[2]


def test_every_product_of_an_adapted_matrix_is_tried():
    thin, wide = DenseMatrix(mx.zeros((4, 32))), DenseMatrix(mx.zeros((64, 4)))
    base = DenseMatrix(mx.zeros((64, 32)))
    assert parts_of(AdaptedMatrix(base, thin, wide)) == (base, thin, wide)


def test_matrices_of_different_bits_are_tried_separately(tiny_model, monkeypatch):
    tried = []

    def note(matrix):
        tried.append(matrix)
        return outcomes_of(matrix)

    monkeypatch.setattr(independence, "outcomes_of", note)
    narrow = QuantizedMatrix.quantize(mx.ones((64, 64)), Packing(8, 32))
    wide = QuantizedMatrix.quantize(mx.ones((64, 128)), Packing(4, 64))
    layer = tiny_model.layers[0]
    mlp = GatedMLP(gate_up=Linear(narrow), down=Linear(wide))
    with_independent_rows(replace(tiny_model, layers=(replace(layer, mlp=mlp),)))
    assert any(matrix is narrow for matrix in tried)
    assert any(matrix is wide for matrix in tried)


def test_logits_that_are_not_finite_end_one_text_and_leave_the_others(tiny_model, make_cache):
    wanted = requests(4)
    banned = SamplingStrategy(logit_bias=tuple((id, float("-inf")) for id in range(64)))
    number, prompt, _, most = wanted[1]
    decoder = SlotDecoder(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY, batch_size=2))
    bad = decoder.begin(prompt, sampler(number, prompt, banned), endings=ENDINGS, max_tokens=most)
    good = decoder.begin(wanted[0][1], sampler(0, wanted[0][1], STRATEGIES[0]), endings=ENDINGS, max_tokens=3)
    given = [pair for _ in range(5) for pair in decoder.step()]
    assert [isinstance(token, LogitsError) for text, token in given if text is bad] == [True]
    assert [token.finish is not None for text, token in given if text is good][-1]
    assert decoder.in_use == 0


def test_an_uncertain_draw_is_repeated_and_its_text_continues(tiny_model, make_cache):
    strategy = SamplingStrategy(top_p=0.9, repetition_penalty=1.3, frequency_penalty=0.5)
    redrawn = []

    def texts(kind):
        decoder = SlotDecoder(tiny_model, make_cache(tiny_model, batch_size=2))
        return two_texts(decoder, strategy, kind)

    assert texts(doubtful_sampler(redrawn)) == texts(Sampler)
    assert sorted(redrawn) == sorted([0, 3, 6, 9, 12, 0, 3, 6])
