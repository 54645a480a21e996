"""Every file in configs/ loads, and says what is true."""

import re
from pathlib import Path

import pytest

from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.sources import read_toml, resolve_settings
from metal_gen.kv_cache import KVCacheConfig

CONFIGS = Path(__file__).parent.parent / "configs"
QWEN_PRESETS = sorted(CONFIGS.glob("qwen*.toml"))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_it_loads(path):
    settings = resolve_settings(config_file=path)
    assert set(settings.sources.values()) == {str(path)}


def test_the_defaults_are_the_defaults():
    values = read_toml(CONFIGS / "default.toml")
    defaults = Settings()
    assert values == {name: getattr(defaults, name) for name in values}
    assert set(values) == {name for name in SETTINGS if getattr(defaults, name) is not None}


def test_every_setting_is_mentioned_under_its_section():
    mentioned, section = set(), ""
    for line in (CONFIGS / "default.toml").read_text().splitlines():
        if heading := re.match(r"\[(\w+)\]", line):
            section = heading[1]
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            mentioned.add((section, key[1]))
    assert mentioned == {(info.section, info.key) for info in SETTINGS.values()}


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
