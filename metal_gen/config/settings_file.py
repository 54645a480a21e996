"""Writes a settings file that lists every setting in a comment, ready to edit."""

import json
from collections.abc import Iterator
from itertools import groupby

from metal_gen.config.checks import Biases
from metal_gen.config.rope_scaling import RopeScaling
from metal_gen.config.setting_info import SettingInfo
from metal_gen.config.settings import DEFAULT_SOURCE, SETTINGS, Settings
from metal_gen.config.switched import value_to_write
from metal_gen.config.template_args import TemplateArgs

HEADING = """\
# Settings of metal-gen. To set one, remove the # in front of its name. Each line shows the default;
# where the default is not a value, its comment says what it is, and the line shows an example.
# METAL_GEN_* variables and command-line options override this file.
"""
NOT_SET = "not set"
# Shown instead of a default that is not a value.
EXAMPLES: dict[str, object] = {
    "model": "Qwen/Qwen3-0.6B",
    "quantize": 4,
    "adapter": ("~/adapters/style", "./adapters/facts=0.5"),
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    "max_seq_len": 8192,
    "batch_size": 8,
    "num_layers": 28,
    "num_kv_heads": 8,
    "head_dim": 128,
    "memory_limit_bytes": "8G",
    "wired_memory": False,
    "chunk_size": 512,
    "draft_model": "Qwen/Qwen3-0.6B",
    "draft_tokens": 4,
    "prefix_file": "prefix.txt",
    "prefix_cache_dir": "~/.cache/metal-gen/prefixes",
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "min_p": 0.05,
    "repetition_window": 64,
    "logit_bias": {"token": 2.5, "42": -1.0},
    "ban_token": ("token", "42"),
    "seed": 0,
    "max_tokens": 512,
    "stop": ("THE END",),
    "stop_token": ("<|im_end|>",),
    "logprobs": 5,
    "system": "Answer briefly.",
    "thinking": False,
    "prefill": "Once upon a time",
    "template_arg": {"enable_thinking": False},
    "schema": "name, age int",
    "regex": "[0-9]+",
    "choice": ("yes", "no"),
    "grammar": 'start: size\nsize: "small" | "large"',
    "thinking_budget": 1024,
    "break_loops": True,
    "tools": '[{"name": "now", "description": "Tell the time."}]',
    "tool_choice": "auto",
    "schema_indent": 2,
}


def commented_settings() -> str:
    """Return a TOML file that sets nothing and shows every setting."""
    return HEADING + "".join(_lines())


def _lines() -> Iterator[str]:
    for section, infos in groupby(SETTINGS.values(), key=lambda info: info.section):
        yield f"\n[{section}]\n"
        yield from map(_setting, infos)


def example_of(info: SettingInfo) -> str:
    """Return the default as TOML, or an example if the default is not a value."""
    return toml_value(EXAMPLES.get(info.name, info.default))


def _setting(info: SettingInfo) -> str:
    example = "  # an example" if info.name in EXAMPLES else ""
    default = f" [default: {info.shown_default}]" if example else ""
    return f"# {info.help}{default}\n#{info.key} = {example_of(info)}{example}\n"


def plain_value(settings: Settings, name: str) -> object:
    """Return a setting's value as a file could contain it; None if it is not set."""
    value = getattr(settings, name)
    if settings.source(name) != DEFAULT_SOURCE:
        value = value_to_write(SETTINGS[name].check, value)
    is_table = isinstance(SETTINGS[name].check, Biases | RopeScaling | TemplateArgs) and value is not None
    return dict(value) if is_table else value


def shown_value(settings: Settings, name: str) -> str:
    """Return a setting's value as TOML."""
    value = plain_value(settings, name)
    return NOT_SET if value is None else toml_value(value)


def toml_value(value: object) -> str:
    """Return a value as TOML."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{json.dumps(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    # JSON writes texts, numbers, true and false like TOML.
    return json.dumps(value, ensure_ascii=False)
