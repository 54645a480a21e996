"""Runs both programs for real: the same model gives the same tokens."""

import time
from dataclasses import replace

import mlx.core as mx
import pytest

from metal_gen.bench.measurement import METAL_GEN, MLX_LM
from metal_gen.bench.request import BenchRequest
from metal_gen.bench.runners.engine import EngineRunner
from metal_gen.bench.runners.step_graph import count_device_operations, count_primitives
from metal_gen.bench.runners.synthetic_prompt import synthetic_prompt
from metal_gen.bench.suite import Suite
from metal_gen.config.settings import Settings
from metal_gen.device.backend import runs_on_cpu
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens
from metal_gen.generation.loading import prepare

pytest_plugins = ("fixtures_text",)

TOKENS = 24


@pytest.fixture(scope="module")
def settings(gambler):
    return Settings(model=gambler, max_seq_len=128, model_dtype="float32")


@pytest.fixture(scope="module")
def model(settings):
    return prepare(settings).load()


@pytest.fixture(scope="module")
def prompt(model):
    return synthetic_prompt(model.checkpoint.tokenizer, 40)


@pytest.fixture
def suite(settings):
    """Return a suite that prints nothing."""

    def make(on_progress=lambda *_: None, **request):
        return Suite(
            settings=settings,
            request=BenchRequest(**request),
            prepared=prepare(settings),
            settings_arguments=[],
            print_texts=lambda texts: None,
            on_progress=on_progress,
        )

    return make


def test_mlx_lm_gives_the_same_greedy_tokens(model, prompt):
    from metal_gen.bench.runners.mlx_lm import MlxLmRunner

    ours = EngineRunner(model.decoder)
    theirs = MlxLmRunner(model.checkpoint.folder, "float32", 2**28)
    expected = ours.greedy_tokens(prompt, TOKENS)
    assert len(set(expected)) > 2
    assert theirs.greedy_tokens(prompt, TOKENS) == expected
    assert len(theirs.decode(64, TOKENS).tokens) == TOKENS
    assert theirs.first_token_s(prompt) > 0
    assert theirs.primitives(8) > 20


def test_a_runner_decodes_as_many_as_asked_whatever_the_tokens_are(model):
    runner = EngineRunner(model.decoder)
    run = runner.decode(128 - TOKENS, TOKENS)
    assert len(run.tokens) == TOKENS
    assert run.last_s > run.first_s
    assert model.decoder.cache.remaining == 0


def test_the_engine_is_driven_through_its_own_loop(model, prompt, monkeypatch):
    calls = []

    def spy(*arguments, **options):
        calls.append(options)
        return generate_tokens(*arguments, **options)

    monkeypatch.setattr("metal_gen.bench.runners.engine.generate_tokens", spy)
    EngineRunner(model.decoder).decode(8, 4)
    assert calls == [{"endings": {}, "max_tokens": 4}]


def test_primitives_are_those_of_the_graph():
    x = mx.ones((4,))
    mx.eval(x)
    assert count_primitives(mx.exp(-x)) == 2


def test_views_are_no_work_of_the_device():
    x = mx.ones((4, 6))
    mx.eval(x)
    first, second = mx.split(x[:, :4].T, 2)
    seen = first.reshape(2, 2, 2)[None] + second.flatten().reshape(2, 2, 2)
    assert count_device_operations(seen) == 1
    assert count_primitives(seen) > 4
    assert count_device_operations(x @ x.T) == 1


def test_the_steps_of_a_run_take_the_time_that_the_host_has(model):
    runner = EngineRunner(model.decoder)
    kinds = runner.kinds_of_step()
    begin = time.perf_counter()
    times = kinds["plain"].host_times(8, 6)
    passed_s = time.perf_counter() - begin
    spent_s = [times.build_s, times.hand_over_s, times.wait_s]
    assert min(spent_s) > 0
    assert 6 * sum(spent_s) <= passed_s
    assert set(kinds) == ({"plain"} if runs_on_cpu() else {"plain", "compiled"})
    assert 20 < kinds["plain"].device_operations(8) < kinds["plain"].primitives(8)
    compiled = EngineRunner(Decoder(model.decoder.model, model.decoder.cache, compiles=True))
    assert set(compiled.kinds_of_step()) == {"plain", "compiled"}


def test_counting_leaves_the_runner_as_it_was(model, prompt):
    runner = EngineRunner(model.decoder)
    before = runner.greedy_tokens(prompt, TOKENS)
    assert runner.primitives(0) == runner.primitives(0) > 20
    assert runner.greedy_tokens(prompt, TOKENS) == before


def test_another_capacity_gives_the_same_tokens(model, prompt):
    wide = EngineRunner.with_capacity(model, replace(model.plan.cache, max_seq_len=512))
    assert wide.capacity == 512
    assert wide.greedy_tokens(prompt, TOKENS) == EngineRunner(model.decoder).greedy_tokens(prompt, TOKENS)


def test_synthetic_prompts_are_ordinary_and_begin_alike(model, prompt):
    tokenizer = model.checkpoint.tokenizer
    assert len(prompt) == 40
    assert set(prompt).isdisjoint(tokenizer.added_ids.values())
    assert synthetic_prompt(tokenizer, 10) == prompt[:10]


def test_a_comparison_takes_turns_and_says_whether_the_tokens_agree(suite):
    run = suite(repeats=2, sections=("decode", "graph"), compare=True, depths=(8, 16), decode_tokens=4)
    run.run()
    report = run.report
    speeds = [figure for figure in report.measurements if figure.section == "decode"]
    assert [(figure.program, figure.parameters["depth"]) for figure in speeds] == [
        (METAL_GEN, 8),
        (MLX_LM, 8),
        (METAL_GEN, 16),
        (MLX_LM, 16),
    ]
    assert all(len(figure.values) == 2 and figure.ceiling for figure in speeds)
    assert report.ratio(speeds[0]).n == 2
    assert any("the same first 4 of 4 greedy tokens" in note for note in report.notes)
    assert report.complete
    assert report.measurements[0].section == "ceiling"


def test_a_suite_that_is_stopped_keeps_what_it_has(suite):
    def stop(section, done, total):
        if (section, done) == ("prefill", 3):
            raise KeyboardInterrupt

    run = suite(stop, repeats=100, warmup=1, sections=("memory", "prefill"), prompt_tokens=(8,))
    with pytest.raises(KeyboardInterrupt):
        run.run()
    figures = {figure.name: figure for figure in run.report.measurements}
    assert len(figures["ttft_s"].values) == 2
    assert figures["peak_memory_bytes"].values
    assert not run.report.complete


def test_peak_memory_is_next_to_the_plan(suite):
    run = suite(sections=("memory",))
    run.run()
    values = {figure.name: figure.values for figure in run.report.measurements}
    plan = run.prepared.plan
    assert values["planned_bytes"] == [plan.total_bytes]
    (peak,) = values["peak_memory_bytes"]
    assert plan.weights_bytes + plan.cache.nbytes < peak < 4 * plan.total_bytes


def test_parts_and_the_cost_without_a_cache_are_measured(suite):
    run = suite(repeats=1, warmup=0, sections=("parts", "uncached", "load"), decode_tokens=4)
    run.run()
    values = {figure.name: figure.values[0] for figure in run.report.measurements}
    for part in ("cache_write", "sampler", "detokenizer", "printing"):
        assert values[f"{part}_us"] > 0
        assert values[f"{part}_share"] > 0
    assert values["speedup_ratio"] == values["uncached_ms"] / values["cached_ms"]
    assert values["load_s"] > 0
