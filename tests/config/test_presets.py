"""Tests that every file in configs/ loads and is correct."""

import re
from pathlib import Path

import pytest

from metal_gen.cache.config import KVCacheConfig
from metal_gen.config.settings import SETTINGS
from metal_gen.config.settings_file import EXAMPLES, commented_settings
from metal_gen.config.sources import read_toml, resolve_settings

CONFIGS = Path(__file__).parents[2] / "configs"
QWEN_PRESETS = sorted(CONFIGS.glob("qwen*.toml"))


PRESETS = sorted(path for path in CONFIGS.glob("*.toml") if path.stem != "default")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_it_loads(path):
    settings = resolve_settings(config_file=path)
    assert set(settings.sources.values()) == {str(path)}


def test_the_file_of_all_settings_is_up_to_date():
    made = commented_settings()
    assert (CONFIGS / "default.toml").read_text() == made, "run: metal-gen config init configs/default.toml"


def test_the_formula_names_its_only_placeholder():
    lines = (CONFIGS / "metal-gen.rb").read_text().splitlines()
    comment = [line for line in lines if line.startswith("#")]
    code = [line for line in lines if not line.startswith("#")]
    in_capitals = set(re.findall(r"\b[A-Z]{3,}\b", "\n".join(code))) - {"MLX"}
    assert in_capitals == {"OWNER"}
    assert "place of OWNER" in "\n".join(comment)
    assert [line.split()[0] for line in code if "OWNER" in line] == ["homepage", "head"]


def test_the_file_of_all_settings_sets_none():
    assert read_toml(CONFIGS / "default.toml") == {}


def test_what_it_shows_can_be_set_and_is_the_default_or_an_example(tmp_path):
    lines = commented_settings().splitlines()
    uncommented = [re.sub(r"^#(?=\w)", "", line) for line in lines]
    (tmp_path / "all.toml").write_text("\n".join(uncommented))
    values = read_toml(tmp_path / "all.toml")
    assert set(values) == set(SETTINGS)
    examples = {name for name, info in SETTINGS.items() if values[name] != info.default}
    assert examples == set(EXAMPLES)
    marked = [line for line in lines if line.endswith("# an example")]
    assert len(marked) == len(EXAMPLES)
    assert {name for name, info in SETTINGS.items() if info.default is None} <= examples


@pytest.mark.parametrize("path", QWEN_PRESETS, ids=lambda path: path.stem)
def test_the_cache_sizes_in_the_comments_are_right(path):
    settings = resolve_settings(config_file=path)
    cache = KVCacheConfig(
        num_layers=settings.num_layers,
        num_kv_heads=settings.num_kv_heads,
        head_dim=settings.head_dim,
        max_seq_len=settings.max_seq_len,
        dtype=settings.cache_dtype,
    )
    comment = path.read_text().splitlines()[0]
    assert f"{cache.bytes_per_token // 1024} KiB a token: {cache.nbytes // 2**20} MiB" in comment
