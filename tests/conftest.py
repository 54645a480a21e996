"""Defines fixtures that several test files share, and the device for tests."""

import gc
import os
import signal
from pathlib import Path

# MLX reads it on import. Without it, some GPUs multiply float32 numbers with a shorter mantissa.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

import hypothesis
import mlx.core as mx
import pytest
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.generation.memory.planning import cache_config

TESTS = Path(__file__).parent

# METAL_GEN_TEST_DEVICE=cpu runs all tests on the CPU of a machine with a GPU.
if os.environ.get("METAL_GEN_TEST_DEVICE") == "cpu":
    mx.set_default_device(mx.cpu)


# Background processes of a shell without job control ignore Ctrl-C, and so would the processes of tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same holds for SIGHUP under nohup.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# No test is timed: a busy machine may take long for any example. Examples are the same in every run, so that
# a change passes or fails for its own sake; `scripts/check --hypothesis-profile=search` looks for new ones.
UNTIMED = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("same", UNTIMED, derandomize=True)
hypothesis.settings.register_profile("search", UNTIMED, max_examples=2_000)
hypothesis.settings.load_profile("same")


# Files of slow tests: of what seldom changes, or more of a kind. `scripts/check --all` runs them, and
# `scripts/check` only the tests among them that are marked `quick`.
RELEASE = (
    *("bench/test_bench_families", "cli/batch/test_batch_progress", "cli/commands/test_cli_batch.py"),
    *("cli/commands/test_cli_bench", "cli/commands/test_cli_constraints", "cli/commands/test_cli_prefixes"),
    *("cli/terminal/test_cli_streams", "cli/terminal/test_in_tmux"),
    *("checkpoint/gguf/test_gguf.py", "checkpoint/gguf/test_gguf_hybrids", "checkpoint/test_hybrid_layouts"),
    *("checkpoint/packed/test_published_quantization", "conversion/test_convert", "device_checks/"),
    *("engine/compiled/test_compiled_step", "engine/slots/test_hybrid_slots", "engine/test_peak_memory"),
    *("generation/test_hybrid_conversation", "hub/test_hub_download", "hub/test_hub_errors"),
    *("models/test_attention_kernel", "models/test_hybrid_goldens", "models/test_long_goldens"),
    *("prefix_cache/test_prefix_conversation", "prefix_cache/test_prefix_reuse"),
    *("prefix_cache/test_prefix_trouble", "sampling/test_sampling_distribution"),
    *("scripts/test_check_constraints", "scripts/test_plot_bench", "scripts/test_story_grammar"),
    *("speculation/test_guess_memory", "speculation/test_guessing_models", "speculation/test_mtp_acceptance"),
    *("speculation/test_texts.py", "test_llm_plugin"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        is_listed = item.path.relative_to(TESTS).as_posix().startswith(RELEASE)
        if is_listed and item.get_closest_marker("quick") is None:
            item.add_marker(pytest.mark.release)


def pytest_collection_finish():
    """Keep what pytest has collected out of garbage collections, of which tests of memory make many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A Qwen3 model with two layers in float32."""
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"), tiny_config("qwen3"))
    return Checkpoint(folder).weights.load("float32")


@pytest.fixture
def make_cache():
    """Make caches for a model."""

    def make(model, max_seq_len=64, batch_size=1, dtype="float32"):
        settings = Settings(max_seq_len=max_seq_len, batch_size=batch_size)
        return new_cache(cache_config(settings, model.config, dtype))

    return make


@pytest.fixture
def tokens():
    """Twenty token ids of the tiny model's vocabulary, (1, 20)."""
    return mx.array([[7, 1, 55, 13, 22, 9, 41, 3, 60, 2, 18, 33, 5, 47, 28, 11, 62, 0, 36, 50]])


@pytest.fixture
def without_fusing():
    """Do without fusion, for which MLX on a CPU calls a C++ compiler; the results are the same."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture(scope="session")
def programs(tmp_path_factory, worker_id):
    """The folder of kernels compiled as C++: one for all workers, so that each is compiled once."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder if worker_id == "master" else folder.parent) / "programs"
    folder.mkdir(exist_ok=True)
    return folder
