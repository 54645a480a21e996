"""Tests of the script that measures the prefix cache."""

import re

import pytest
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.sources import resolve_settings
from metal_gen.generation.prefixes.prompt_prefix import PromptPrefix
from metal_gen.generation.prompt import encode_as_set
from scripts.bench_prefix_cache import QUESTION, lengths, numbers, restore_beside_prefill


@pytest.fixture
def model(tmp_path):
    return str(write_text_checkpoint(tmp_path / "model", max_position_embeddings=1024))


def test_a_prefix_has_as_many_stable_tokens_as_are_asked_for_and_few_more(model, tmp_path):
    prefix = PromptPrefix(numbers(model, 256))
    settings = resolve_settings().override({"prefix_cache": True}, "a test")
    prompt = encode_as_set(Checkpoint(tmp_path / "model"), QUESTION, settings, prefix=prefix)
    assert 256 <= prompt.stable_tokens < 256 + 64


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5_text"])
def test_restored_logits_are_those_that_were_computed(tmp_path, capsys, family):
    folder = write_text_checkpoint(tmp_path / "model", arch=family, max_position_embeddings=1024)
    restore_beside_prefill(str(folder), [64, 128], 2)
    lines = capsys.readouterr().out.splitlines()
    assert [re.match(r"\d+", line).group() for line in lines] == ["64", "128"]
    assert all(line.endswith("equal logits") for line in lines)


def test_lengths_are_whole_blocks():
    assert lengths("1024,100,1") == [1024, 64, 64]
