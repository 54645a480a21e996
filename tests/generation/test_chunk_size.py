"""Fewer prompt tokens are computed at once where memory would not hold what more of them take."""

import re
from dataclasses import replace

import mlx.core as mx
import pytest
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.config.settings import Settings
from metal_gen.device import backend
from metal_gen.errors import DoesNotFitError
from metal_gen.generation import model_notices
from metal_gen.generation.loading import prepare
from metal_gen.generation.memory import planning, working
from metal_gen.generation.memory.capacity import USUAL_TOKENS
from metal_gen.generation.memory.plan import FEWEST_CHUNK

MOST = 2048


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose prompts take much more than its weights."""
    config = tiny_config(
        "qwen3", head_dim=64, intermediate_size=512, num_hidden_layers=1, max_position_embeddings=8192
    )
    return str(write_checkpoint(tmp_path_factory.mktemp("model"), config))


@pytest.fixture(autouse=True)
def _on_a_gpu(monkeypatch):
    """Stands in for a Mac."""
    monkeypatch.setattr(planning, "preferred_chunk_size", lambda: MOST)
    monkeypatch.setattr(working, "runs_on_cpu", lambda: False)


def planned(folder, most_slots=1, **settings):
    return prepare(Settings(model=folder, **settings), most_slots=most_slots).plan


def taken_with(folder, chunk_size, **settings):
    return planned(folder, chunk_size=chunk_size, max_seq_len=USUAL_TOKENS, **settings).total_bytes


def test_where_there_is_room_nothing_is_saved(folder):
    plan = planned(folder)
    assert (plan.chunk_size, plan.chunk_reason) == (MOST, None)


@pytest.mark.parametrize("chunk_size", [1024, 512, 256])
def test_what_fits_with_fewer_tokens_at_once_is_not_refused(folder, chunk_size):
    limit = taken_with(folder, chunk_size)
    for settings in ({}, {"max_seq_len": USUAL_TOKENS}):
        plan = planned(folder, memory_limit_bytes=limit, **settings)
        assert plan.chunk_size == chunk_size
        assert plan.cache.max_seq_len == USUAL_TOKENS
        assert plan.total_bytes <= limit
        assert "2,048 would take" in plan.chunk_reason
    batch = planned(folder, most_slots=8, memory_limit_bytes=limit)
    assert batch.fits
    assert batch.chunk_size <= chunk_size


def test_there_are_fewest(folder):
    limit = taken_with(folder, FEWEST_CHUNK) - 1
    with pytest.raises(DoesNotFitError) as caught:
        planned(folder, memory_limit_bytes=limit, max_seq_len=USUAL_TOKENS)
    longest = int(re.search(r"--max-seq-len (\d+)\)", caught.value.hint)[1])
    plan = planned(folder, memory_limit_bytes=limit, max_seq_len=longest)
    assert plan.chunk_size == FEWEST_CHUNK


def test_what_somebody_has_set_stays(folder):
    limit = taken_with(folder, 512)
    with pytest.raises(DoesNotFitError):
        planned(folder, memory_limit_bytes=limit, max_seq_len=USUAL_TOKENS, chunk_size=MOST)
    assert planned(folder, memory_limit_bytes=limit, max_seq_len=64, chunk_size=100).chunk_size == 100


def test_room_that_is_only_wanted_does_not_slow_prompts_down(folder):
    whole = planned(folder, chunk_size=MOST, max_seq_len=8000).total_bytes
    prepared = prepare(Settings(model=folder, memory_limit_bytes=whole - 1))
    chat = prepared.for_chat().plan
    assert chat.chunk_size == MOST
    assert USUAL_TOKENS <= chat.cache.max_seq_len < 8192
    assert prepared.for_prompt(8000).plan.chunk_size < MOST


def test_what_other_programs_have_is_said(folder, monkeypatch):
    monkeypatch.setattr(model_notices, "counts_other_programs", lambda: False)
    monkeypatch.setattr(model_notices, "runs_on_cpu", lambda: False)
    monkeypatch.setattr(model_notices, "LARGE_BYTES", 0)
    total = planned(folder).total_bytes
    for unused, is_said in ((total - 1, True), (total, False), (None, False)):
        monkeypatch.setattr(model_notices, "unused_memory_bytes", lambda unused=unused: unused)
        notices = prepare(Settings(model=folder)).notices
        assert any("other programs leave" in notice for notice in notices) is is_said


def test_an_array_larger_than_the_device_allows_is_refused_with_numbers(folder, monkeypatch):
    whole = planned(folder, max_seq_len=4000)
    keys = whole.cache.nbytes // 2
    monkeypatch.setattr(planning, "most_array_bytes", lambda: keys)
    assert planned(folder, max_seq_len=4000).chunk_size == MOST
    monkeypatch.setattr(planning, "most_array_bytes", lambda: keys - 1)
    with pytest.raises(DoesNotFitError, match=r"one array takes .*, and this device allows") as caught:
        planned(folder, max_seq_len=4000)
    longest = int(caught.value.hint.split("--max-seq-len ")[1].rstrip(")"))
    assert longest == 3999
    assert planned(folder, max_seq_len=longest).fits


def test_attention_scores_larger_than_the_device_allows_shrink_chunks(tmp_path, monkeypatch):
    """A head size for which a GPU has no fused kernel."""
    config = tiny_config("qwen3", head_dim=32, max_position_embeddings=8192)
    folder = str(write_checkpoint(tmp_path, config))
    scores = 4 * MOST * USUAL_TOKENS * 4
    for allowed, chunk_size in ((scores, MOST), (scores - 1, MOST // 2), (scores // 4, MOST // 4)):
        monkeypatch.setattr(planning, "most_array_bytes", lambda allowed=allowed: allowed)
        plan = planned(folder, max_seq_len=USUAL_TOKENS)
        assert plan.chunk_size == chunk_size
    assert "2,048 would take an array of" in plan.chunk_reason


def test_of_the_layers_computed_ahead_only_those_of_the_largest_kind_count_as_such(tmp_path):
    """One layer in four has attention, whose scores no kernel keeps out of memory with heads of 32."""
    sizes = {"num_hidden_layers": 8, "head_dim": 32, "max_position_embeddings": 8192}
    settings = Settings(model=str(write_checkpoint(tmp_path, tiny_config("qwen3_5_text", **sizes))))
    memory = prepare(settings).plan.with_cache(max_seq_len=4096)._working(512)
    by_kind = memory._bytes_by_kind
    assert by_kind[False] > 3 * by_kind[True]
    assert memory.layer_bytes == by_kind[False]
    assert memory.layer_bytes + memory.ahead_bytes == by_kind[False] + 4 * by_kind[True]


@pytest.mark.parametrize(("major", "scratch_mib"), [(8, 4), (9, 32), (10, 32)])
def test_with_cuda_products_take_scratch_memory(folder, monkeypatch, major, scratch_mib):
    before = planned(folder, max_seq_len=64, chunk_size=64).working_bytes
    monkeypatch.setattr(backend, "runs_on_cuda", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"compute_capability_major": major})
    assert backend.product_scratch_bytes() == scratch_mib << 20
    assert planned(folder, max_seq_len=64, chunk_size=64).working_bytes == before + (scratch_mib << 20)


def test_a_kernel_needs_less_memory_than_the_operations_in_its_place(tmp_path):
    heads = {"linear_key_head_dim": 64, "linear_value_head_dim": 64}
    settings = Settings(model=str(write_checkpoint(tmp_path, tiny_config("qwen3_5_text", **heads))))
    by_kernel, plain = (
        prepare(replace(settings, kernels=kernels)).plan._working(512)._bytes_by_kind[True]
        for kernels in ("auto", "off")
    )
    assert by_kernel < 0.8 * plain
