"""Tests the values of a benchmark: rounds, medians, ratios, ceilings, sizes, and the report."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.bench.measurement import MLX_LM, Measurement, Spread, Trial, Unit, advantage, alternate
from metal_gen.bench.report import BenchReport
from metal_gen.bench.request import BenchRequest
from metal_gen.bench.runners.runner import DecodeRun
from metal_gen.bench.sections.ceiling import best_bandwidth, ceiling_tps, read_bytes_per_token
from metal_gen.bench.workload import plan_workload
from metal_gen.config.settings import Settings
from metal_gen.errors import DoesNotFitError, UsageError
from metal_gen.generation.loading import prepare


def speed(values, **changes):
    return Measurement("decode", "decode_tps", Unit.TOKENS_PER_SECOND, values=values, **changes)


def seconds(values, **changes):
    return Measurement("load", "load_s", Unit.SECONDS, values=values, **changes)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Return the plan of the tiny Qwen3."""
    return plan_of(tmp_path_factory.mktemp("plan"), tiny_config("qwen3"))


def plan_of(folder, config):
    """Return a plan with 100 cache positions in float32."""
    write_checkpoint(folder, config)
    settings = Settings(model=str(folder), max_seq_len=100, model_dtype="float32")
    return replace(prepare(settings).plan, available_bytes=0)


# Values


def test_a_spread_is_median_minimum_maximum_and_count():
    assert Spread.of([5.0, 1.0, 3.0]) == Spread(3.0, 1.0, 5.0, 3)
    assert Spread.of([4.0, 1.0, 2.0, 9.0]).median == 3.0


def test_of_speeds_ours_is_divided_by_theirs():
    assert advantage(speed([30.0, 20.0, 40.0]), speed([10.0, 10.0, 10.0])) == Spread(3.0, 2.0, 4.0, 3)


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_turns():
    """A reader who divides the columns must get the printed ratio."""
    assert advantage(speed([30.0, 10.0, 20.0]), speed([10.0, 20.0, 5.0])) == Spread(2.0, 0.5, 4.0, 3)


def test_of_times_theirs_is_divided_by_ours():
    assert advantage(seconds([2.0]), seconds([5.0])) == Spread(2.5, 2.5, 2.5, 1)


def test_a_turn_that_one_of_them_missed_does_not_count():
    assert advantage(speed([30.0, 20.0]), speed([10.0])) == Spread(3.0, 3.0, 3.0, 1)
    assert advantage(speed([30.0]), speed([])) is None


def test_decode_tps_counts_the_intervals_between_tokens():
    assert DecodeRun((7, 8, 9), first_s=10.0, last_s=14.0).decode_tps == 0.5


def test_trials_take_turns_and_warm_up_is_not_kept():
    order = []

    def trial(name):
        measurement = Measurement("decode", name, Unit.COUNT)

        def run():
            order.append(name)
            return (float(len(order)),)

        return Trial((measurement,), run)

    trials, progress = [trial("ours"), trial("theirs")], []
    alternate(trials, repeats=2, warmup=1, on_progress=lambda *done: progress.append(done))
    assert order == ["ours", "theirs"] * 3
    assert [trial.measurements[0].values for trial in trials] == [[3.0, 5.0], [4.0, 6.0]]
    assert progress == [(done, 6) for done in range(1, 7)]


def test_what_was_taken_before_an_interrupt_is_kept():
    def run():
        if len(measurement.values) == 2:
            raise KeyboardInterrupt
        return (1.0,)

    measurement = Measurement("decode", "decode_tps", Unit.TOKENS_PER_SECOND)
    with pytest.raises(KeyboardInterrupt):
        alternate([Trial((measurement,), run)], repeats=5, warmup=0)
    assert measurement.values == [1.0, 1.0]


# The ceiling


def test_a_token_reads_the_weights_but_one_row_of_an_untied_embedding_and_the_cache(plan):
    embedding, row = 64 * 32 * 4, 32 * 4
    weights = plan.weights_bytes - embedding + row
    assert read_bytes_per_token(plan, 0) == weights
    # Two layers, keys and values, two heads of 32 in float32.
    assert read_bytes_per_token(plan, 10) == weights + 10 * 2 * 2 * 2 * 32 * 4


def test_a_tied_embedding_counts_once_and_a_row(tmp_path):
    plan = plan_of(tmp_path, tiny_config(tie_word_embeddings=True))
    assert read_bytes_per_token(plan, 0) == plan.weights_bytes + 32 * 4


def test_of_experts_those_are_read_that_a_token_goes_through(tmp_path):
    plan = plan_of(tmp_path, tiny_config("qwen3_moe"))
    experts = 2 * 6 * 3 * 24 * 32 * 4  # Two layers of six, of three matrices.
    embedding, row = 64 * 32 * 4, 32 * 4
    assert read_bytes_per_token(plan, 0) == plan.weights_bytes - embedding + row - experts * 4 // 6


def test_linear_attention_reads_its_state_and_no_keys(tmp_path):
    plan = plan_of(tmp_path, tiny_config("qwen3_next"))
    at_start = read_bytes_per_token(plan, 0)
    assert at_start == plan.weights_read_bytes + plan.cache.state_nbytes
    assert read_bytes_per_token(plan, 10) == at_start + 10 * 2 * 2 * 32 * 4  # One layer of four.


def test_a_sliding_layer_reads_its_window(plan):
    layers = ("sliding_attention", "full_attention")
    model = replace(plan.model, layer_types=layers, sliding_window=8)
    read = read_bytes_per_token(replace(plan, model=model), 20) - read_bytes_per_token(plan, 0)
    assert read == (8 + 20) * 2 * 2 * 32 * 4


def test_the_ceiling_is_bandwidth_by_bytes(plan):
    assert ceiling_tps(1e9, plan, 10) == 1e9 / read_bytes_per_token(plan, 10)
    assert speed([25.0, 30.0, 20.0], ceiling=100.0).ceiling_share == 0.25
    assert best_bandwidth([seconds([1.0, 5.0]), seconds([4.0]), seconds([])]) == 5.0


# Sizes


def test_usual_sizes_are_those_that_fit(plan):
    workload = plan_workload(BenchRequest(), plan)
    assert workload.decode_tokens == 32
    assert workload.depths == (0, 17, 34, 68)
    assert workload.prompt_tokens == (100,)
    assert workload.capacities == (512, 2048, 8192)
    assert workload.capacity_depth == 256


def test_a_tiny_cache_still_decodes(plan):
    small = replace(plan, cache=replace(plan.cache, max_seq_len=4))
    workload = plan_workload(BenchRequest(), small)
    assert (workload.decode_tokens, workload.depths) == (2, (0, 1, 2))


@pytest.mark.parametrize(
    ("request_", "numbers"),
    [
        (BenchRequest(depths=(0, 90)), ("--depths 90", "32 new tokens", "max_seq_len is 100")),
        (BenchRequest(prompt_tokens=(101,)), ("--prompt-tokens 101", "max_seq_len is 100")),
        (BenchRequest(decode_tokens=101), ("101 new tokens", "max_seq_len is 100")),
        (BenchRequest(capacities=(16,)), ("--capacities 16", "32 new tokens")),
    ],
    ids=["depth", "prompt", "new tokens", "capacity"],
)
def test_a_refusal_names_needed_and_available_memory(plan, request_, numbers):
    with pytest.raises(UsageError) as caught:
        plan_workload(request_, plan)
    assert all(number in caught.value.message for number in numbers), caught.value.message


def test_the_last_tokens_of_the_cache_can_be_timed(plan):
    assert plan_workload(BenchRequest(depths=(68,), prompt_tokens=(100,)), plan).depths == (68,)


def test_capacities_beyond_memory_are_refused_if_asked_for_and_else_left_out(plan):
    room = replace(plan, available_bytes=plan.total_bytes + 3000 * plan.cache.bytes_per_token)
    assert plan_workload(BenchRequest(), room).capacities == (512, 2048)
    with pytest.raises(DoesNotFitError, match="caches of 512, 8192 tokens do not fit"):
        plan_workload(BenchRequest(capacities=(512, 8192)), room)


# The report


@pytest.fixture
def report():
    return BenchReport(
        {"device": "a machine", "metal_gen": "0"},
        {"model": "m"},
        [
            speed([20.0, 22.0, 21.0], parameters={"depth": 8}, ceiling=42.0),
            speed([10.0, 11.0, 10.5], parameters={"depth": 8}, program=MLX_LM),
            speed([5.0], parameters={"depth": 9}, program=MLX_LM),
            seconds([]),
        ],
        ["a note"],
    )


def test_a_report_survives_json(report):
    document = json.loads(json.dumps(report.to_dict()))
    again = BenchReport.from_dict(document)
    assert again.to_dict() == document
    assert again.complete is False
    assert [figure.values for figure in again.measurements] == [
        figure.values for figure in report.measurements if figure.values
    ]


def test_an_entry_has_the_spread_the_share_and_the_ratio(report):
    ours, theirs, _ = report.to_dict()["measurements"]
    assert (ours["median"], ours["minimum"], ours["maximum"], ours["n"]) == (21.0, 20.0, 22.0, 3)
    assert ours["ceiling_share"] == 0.5
    assert math.isclose(ours["ratio"]["median"], 2.0)
    assert theirs["program"] == MLX_LM
    assert theirs["ratio"] is None


def test_figures_that_only_the_other_program_has_are_listed(report):
    assert [(figure.program, dict(figure.parameters)) for figure in report.own] == [
        ("metal-gen", {"depth": 8}),
        (MLX_LM, {"depth": 9}),
    ]


def test_a_report_of_another_version_is_not_read(report):
    with pytest.raises(ValueError, match="schema_version is 99"):
        BenchReport.from_dict({**report.to_dict(), "schema_version": 99})


def test_the_commit_is_that_of_the_package_and_of_nothing_around_it(tmp_path):
    from metal_gen.environment import commit

    inside = Path(__file__).parents[1] / "data"
    assert commit(tmp_path) is None
    assert commit(inside) is None  # In a repository, or not; it is no package of it.


def test_git_is_not_run_where_there_is_no_checkout(tmp_path, monkeypatch):
    """On a Mac without developer tools, git would open a dialog."""
    from metal_gen import environment

    monkeypatch.setattr(environment, "_git", lambda *arguments: pytest.fail("git was run"))
    assert environment.commit(tmp_path / "site-packages" / "metal_gen") is None
