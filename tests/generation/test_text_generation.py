"""Tests the library's load, generate and stream_generate on the bundled model."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.checkpoint.bundled import BUNDLED_FOLDER
from metal_gen.errors import ConfigError, DoesNotFitError, ModelNotFoundError, UsageError

pytestmark = pytest.mark.metal

# Every thread of this process has an entry here.
TASKS = Path("/proc/self/task")
PROMPT = "Tell me a story about a fox who lost a lantern."


@pytest.fixture(scope="module")
def model():
    return metal_gen.load(max_seq_len=256)


def test_pieces_join_to_the_text(model):
    pieces = list(metal_gen.stream_generate(model, PROMPT, max_tokens=60, seed=1))
    whole = metal_gen.generate(model, PROMPT, max_tokens=60, seed=1)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [piece.token_id for piece in pieces] == whole.token_ids
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert whole.finish_reason == pieces[-1].finish_reason


def test_text_equals_the_decoding_of_its_tokens(model):
    result = metal_gen.generate(model, PROMPT, max_tokens=80, strategy=metal_gen.Greedy())
    tokenizer = model.checkpoint.tokenizer
    assert result.text == b"".join(map(tokenizer.token_bytes, result.token_ids)).decode()
    assert len(result.text) > 100


def test_a_seed_repeats_and_another_differs(model):
    strategy = metal_gen.SamplingStrategy(temperature=1.0, top_k=50, top_p=0.95)
    texts = [
        metal_gen.generate(model, PROMPT, strategy=strategy, max_tokens=40, seed=seed).text
        for seed in (7, 7, 8)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_the_reported_seed_reproduces_the_text(model):
    strategy = metal_gen.Temperature(1.0)
    first = metal_gen.generate(model, PROMPT, strategy=strategy, max_tokens=30)
    again = metal_gen.generate(model, PROMPT, strategy=strategy, max_tokens=30, seed=first.statistics.seed)
    assert again.text == first.text


def test_a_callback_cancels(model):
    seen = []

    def after_five(piece):
        seen.append(piece)
        return len(seen) < 5

    result = metal_gen.generate(model, PROMPT, on_piece=after_five)
    assert result.finish_reason is metal_gen.FinishReason.CANCELLED
    assert len(result.token_ids) == 5


def test_statistics_are_correct(model):
    result = metal_gen.generate(model, PROMPT, max_tokens=9, strategy=metal_gen.Greedy())
    statistics = result.statistics
    assert statistics.completion_tokens == len(result.token_ids) == 9
    assert statistics.cache_tokens == statistics.prompt_tokens + 8
    assert statistics.ttft_s > 0
    assert statistics.decode_tps > 0
    assert result.finish is metal_gen.FinishDetail.MAX_TOKENS
    assert statistics.peak_memory_bytes >= model.plan.weights_bytes + model.plan.cache.nbytes


def test_a_full_cache_ends_the_text_and_says_so():
    small = metal_gen.load(max_seq_len=40)
    result = metal_gen.generate(small, PROMPT, strategy=metal_gen.Greedy())
    assert result.finish_reason is metal_gen.FinishReason.LENGTH
    assert result.finish is metal_gen.FinishDetail.CACHE_FULL
    assert result.statistics.cache_tokens == 40
    assert result.statistics.prompt_tokens + len(result.token_ids) - 1 == 40


def test_greedy_ends_by_itself(model):
    result = metal_gen.generate(model, PROMPT, strategy=metal_gen.Greedy())
    assert result.finish_reason is metal_gen.FinishReason.STOP
    assert result.token_ids[-1] in model.checkpoint.eos_ids


def test_a_conversation_is_a_prompt_too(model):
    told = metal_gen.generate(model, [{"role": "user", "content": PROMPT}], max_tokens=20, seed=1)
    assert told.text == metal_gen.generate(model, PROMPT, max_tokens=20, seed=1).text


def test_raw_continues_the_words():
    raw = metal_gen.load(raw=True, max_seq_len=64)
    result = metal_gen.generate(
        raw, "Once upon a time, there was a", max_tokens=5, strategy=metal_gen.Greedy()
    )
    assert result.text.startswith(" ")
    assert result.statistics.prompt_tokens < 12


def test_settings_by_name_override_a_file(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(
        "[cache]\nmax_seq_len = 100\nbatch_size = 2\ndtype = 'float16'\n[sampling]\ntemperature = 0.5"
    )
    model = metal_gen.load(config_file=path, max_seq_len=50)
    cache = model.decoder.cache.config
    assert (cache.max_seq_len, cache.batch_size, cache.dtype) == (50, 2, "float16")
    assert model.settings.temperature == 0.5
    assert metal_gen.generate(model, PROMPT, max_tokens=5, seed=1).token_ids


def test_the_checkpoints_defaults_fill_what_is_not_set(model):
    given = model.checkpoint.generation_config
    assert given["do_sample"]
    assert model.settings.temperature == given["temperature"]
    assert model.settings.source("temperature") == "generation_config.json"
    assert metal_gen.load(temperature=0.1).settings.temperature == 0.1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": "./nowhere"}, ModelNotFoundError),
        ({"max_seq_len": 0}, UsageError),
        ({"max_seqlen": 10}, UsageError),
        ({"num_layers": 99}, ConfigError),
        ({"max_seq_len": 10**12}, DoesNotFitError),
        ({"memory_limit_bytes": 1_000_000}, DoesNotFitError),
    ],
)
def test_impossible_loads_are_refused(arguments, error):
    with pytest.raises(error):
        metal_gen.load(**arguments)


@pytest.mark.parametrize("arguments", [{"max_tokens": 0}, {"seed": -2}, {"max_tokens": 300}])
def test_impossible_generations_are_refused_at_once(model, arguments):
    with pytest.raises((UsageError, DoesNotFitError)):
        metal_gen.stream_generate(model, PROMPT, **arguments)


def test_positions_are_stretched_by_a_setting(tmp_path):
    folder = str(write_text_checkpoint(tmp_path))
    setting = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    assert "context is 256 tokens" in metal_gen.load(folder, max_seq_len=1024).notices[0]
    model = metal_gen.load(folder, rope_scaling=setting, max_seq_len=1024)
    assert model.decoder.model.rope.config.factor == 4.0
    assert model.notices == ()
    with pytest.raises(UsageError, match="rope_scaling has no field factr"):
        metal_gen.load(folder, rope_scaling={"factr": 4.0})


def test_beyond_the_trained_length_there_is_a_notice():
    assert any("the model's context is" in notice for notice in metal_gen.load(max_seq_len=4096).notices)
    assert not metal_gen.load().notices


def test_a_second_text_ends_the_first_without_harm(model):
    alone = metal_gen.generate(model, PROMPT, max_tokens=12, strategy=metal_gen.Greedy()).text
    first = metal_gen.stream_generate(model, "Tell me about a whale.", strategy=metal_gen.Greedy())
    next(first)
    second = metal_gen.stream_generate(model, PROMPT, max_tokens=12, strategy=metal_gen.Greedy())
    pieces = [next(second)]
    with pytest.raises(UsageError, match="another text"):
        next(first)
    assert "".join(piece.text for piece in [*pieces, *second]) == alone


def test_a_tag_in_the_users_own_words_starts_no_thinking(model):
    result = metal_gen.generate(model, "Tell me a story about a <think> tag.", max_tokens=8, seed=1)
    assert result.text
    assert not result.thinking


@pytest.mark.parametrize(
    "prompt", [["hi"], b"hi", 5, [{"role": "user"}], [{"content": "hi"}], [{"role": "user", "content": 3}]]
)
def test_invalid_conversations_are_refused(model, prompt):
    with pytest.raises(UsageError):
        metal_gen.generate(model, prompt)


def test_none_means_not_given(model):
    result = metal_gen.generate(model, PROMPT, strategy=metal_gen.Greedy(), temperature=None, max_tokens=3)
    assert len(result.token_ids) == 3


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for a CPU through g++")
def test_compiling_for_a_wider_cache_has_no_effect_and_a_notice():
    model = metal_gen.load(max_seq_len=32, batch_size=2, compile="on")
    assert model.decoder.compiled is None
    assert any("compile = 'on' has no effect" in notice for notice in model.notices)


def test_a_failed_load_leaves_nothing_running(tmp_path):
    """An interpreter that exits while weights are still being read would abort."""
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    code = "import metal_gen\ntry: metal_gen.load('./model')\nexcept metal_gen.MetalGenError: print('caught')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"caught\n", b"")


@pytest.mark.skipif(not TASKS.is_dir(), reason="the system does not list threads of compiled code")
def test_loading_again_leaves_no_more_threads(model):
    before = len(list(TASKS.iterdir()))
    for _ in range(4):
        metal_gen.load(max_seq_len=32)
    # One that has just ended may still be listed.
    assert len(list(TASKS.iterdir())) <= before + 1
