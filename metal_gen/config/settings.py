"""Every setting: its TOML section and key, its range, its default and its help text.

Each setting has one name in three places: `max_seq_len` in TOML, `--max-seq-len` on the command line,
`METAL_GEN_MAX_SEQ_LEN` in the environment.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from metal_gen.config.adapters import Adapters
from metal_gen.config.checks import Choice, Flag, Text, Texts, Whole
from metal_gen.config.constraints.checks import CONSTRAINTS
from metal_gen.config.constraints.settings import ConstraintSettings
from metal_gen.config.parts.prompt import PromptSettings
from metal_gen.config.parts.sampling import SamplingSettings
from metal_gen.config.parts.speculation import SpeculationSettings
from metal_gen.config.quantize import Quantize
from metal_gen.config.ranges import MAX_TOKENS, MIN_TOKENS, SAMPLES, TOP_LOGPROBS
from metal_gen.config.rope_scaling import RopeScaling
from metal_gen.config.setting_info import TERMINAL, SettingInfo, info_of, setting
from metal_gen.config.sizes import Size
from metal_gen.config.switched import value_in_force

DTYPE = Choice(("auto", "float32", "bfloat16", "float16"))
DEFAULT_SOURCE = "default"
ARGUMENT_SOURCE = "argument"
# TOML tables, in the order in which they are shown.
SECTIONS = (
    *("model", "cache", "memory", "cpu", "prefill", "decode", "prefix_cache"),
    *("sampling", "generation", TERMINAL),
)


@dataclass(frozen=True, kw_only=True)
class Settings(ConstraintSettings, PromptSettings, SpeculationSettings, SamplingSettings):
    """The settings in force.

    Attributes:
        sources: Source of each value that is not a default, by setting name.
    """

    model: str | None = setting(
        "model",
        Text(may_be_empty=False),
        None,
        "Load this model: a Hub id, a folder or a GGUF file",
        key="name",
        unset="the bundled story model",
    )
    model_dtype: str = setting(
        "model",
        DTYPE,
        "auto",
        "Compute in this dtype; auto is the checkpoint's own, or on a CPU the fastest",
        key="dtype",
    )
    quantize: str | None = setting(
        "model",
        Quantize(),
        None,
        "Quantize weights while they load: bits such as 4, bits and groups such as 4g32, or mxfp4",
        unset="as stored",
    )
    adapter: tuple[str, ...] = setting(
        "model",
        Adapters(),
        (),
        "Add a LoRA adapter, saved by PEFT or mlx-lm; FOLDER=SCALE sets its weight",
    )
    rope_scaling: tuple[tuple[str, object], ...] | None = setting(
        "model",
        RopeScaling(),
        None,
        "Scale RoPE, in the format of rope_parameters in config.json",
        unset="the checkpoint's",
    )
    max_seq_len: int | None = setting(
        "cache",
        Whole(1),
        None,
        "Set the cache size in tokens, for prompt and answer together",
        unset="enough for the run; 2048 in a batch",
    )
    batch_size: int | None = setting(
        "cache",
        Whole(1),
        None,
        "Generate this many texts at once",
        unset="1; in a batch up to 8, as memory allows",
    )
    cache_dtype: str = setting(
        "cache",
        Choice((*DTYPE.words, "q8")),
        "auto",
        "Store keys and values in this dtype; auto is the one that the model computes in, q8 takes 8 bits",
        key="dtype",
    )
    num_layers: int | None = setting(
        "cache", Whole(1), None, "Require this number of layers in the checkpoint", unset="any"
    )
    num_kv_heads: int | None = setting(
        "cache", Whole(1), None, "Require this number of key/value heads in the checkpoint", unset="any"
    )
    head_dim: int | None = setting(
        "cache", Whole(1), None, "Require this head size in the checkpoint", unset="any"
    )
    memory_limit_bytes: int | None = setting(
        "memory",
        Size(),
        None,
        "Limit weights, cache and working memory together: 12G is 12 x 2^30 bytes, 12GB is 12 x 10^9",
        key="limit_bytes",
        unset="all that is free",
    )
    wired_memory: bool | None = setting(
        "memory",
        Flag(),
        None,
        "Keep macOS from compressing or swapping out weights and cache, with Metal only",
        key="wired",
        unset="on from macOS 15 on",
    )
    blas: str = setting(
        "cpu",
        Text(may_be_empty=False),
        "auto",
        "Multiply matrices on a CPU with this library; auto is OpenBLAS if installed, off is MLX's own",
    )
    chunk_size: int | None = setting(
        "prefill",
        Whole(1),
        None,
        "Compute this many prompt tokens at once",
        unset="512 on a CPU, 2048 on a GPU; less if memory is short",
    )
    compile: str = setting(
        "decode",
        Choice(("auto", "on", "off")),
        "auto",
        "Compile the decode step; auto does so where it is faster",
    )
    kernels: str = setting(
        "decode",
        Choice(("auto", "off")),
        "auto",
        "Compute with GPU kernels of metal-gen's own; auto uses those that pass a trial on this device",
    )
    prefix_cache: bool = setting(
        "prefix_cache",
        Flag(),
        False,
        "Store prompt prefixes on disk, so that later runs need not compute them again",
        key="enabled",
    )
    prefix_file: str | None = setting(
        "prefix_cache",
        Text(may_be_empty=False),
        None,
        "Begin every prompt with the text or the JSON messages of this file",
        key="file",
    )
    prefix_cache_dir: str | None = setting(
        "prefix_cache",
        Text(may_be_empty=False),
        None,
        "Store prompt prefixes in this folder",
        key="dir",
        unset="your cache folder",
    )
    prefix_cache_max_bytes: int = setting(
        "prefix_cache", Size(), 10 * 2**30, "Limit the disk space of stored prefixes", key="max_bytes"
    )
    prefix_cache_min_tokens: int = setting(
        "prefix_cache", Whole(1), 256, "Store only prefixes of at least this many tokens", key="min_tokens"
    )
    max_tokens: int | None = setting(
        "generation",
        MAX_TOKENS,
        None,
        "Generate at most this many tokens; -1 sets no limit",
        unset="until the cache is full",
    )
    min_tokens: int = setting("generation", MIN_TOKENS, 0, "Generate at least this many tokens")
    ignore_eos: bool = setting("generation", Flag(), False, "Never draw an end token")
    stop: tuple[str, ...] = setting(
        "generation", Texts(), (), "Stop when the answer contains this text, and cut the text off"
    )
    stop_token: tuple[str, ...] = setting(
        "generation", Texts(), (), "Stop at this token, named by its text or id"
    )
    samples: int = setting("generation", SAMPLES, 1, "Draw this many answers to each prompt")
    logprobs: int | None = setting(
        "generation",
        TOP_LOGPROBS,
        None,
        "Report each token's log-probability, and those of the k most probable tokens",
    )

    markdown: bool = setting(
        TERMINAL, Flag(), False, "Render Markdown on a terminal; a pipe gets the text as it is"
    )
    hide_thinking: bool = setting(TERMINAL, Flag(), False, "Hide the model's thinking")

    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def source(self, name: str) -> str:
        """Return the source of the value in force."""
        return self.sources.get(name, DEFAULT_SOURCE)

    def override(self, values: Mapping[str, object], source: str | Mapping[str, str]) -> "Settings":
        """Return these settings overridden by checked values; a value that means "off" becomes None.

        A constraint replaces one of any other kind; a choice of guesses replaces one that contradicts it.
        """
        constraints = CONSTRAINTS if any(values.get(name) for name in CONSTRAINTS) else ()
        defaults = {name: SETTINGS[name].default for name in (*constraints, *self.contradicted_by(values))}
        named = {name: source if isinstance(source, str) else source[name] for name in values}
        in_force = {name: value_in_force(SETTINGS[name].check, value) for name, value in values.items()}
        before = {name: place for name, place in self.sources.items() if name not in defaults}
        changes: dict[str, Any] = {**defaults, **in_force, "sources": {**before, **named}}
        return replace(self, **changes)

    def fill(self, values: Mapping[str, object], source: str) -> "Settings":
        """Return these settings with values for those that are not set."""
        return self.override({k: v for k, v in values.items() if k not in self.sources}, source)


def _in_order() -> list[SettingInfo]:
    """Return all settings by section, with inherited ones at the end of theirs."""
    own = [info_of(each) for each in fields(Settings) if each.metadata]
    inherited = {each.name for base in Settings.__bases__ for each in fields(base)}
    return sorted(own, key=lambda info: (SECTIONS.index(info.section), info.name in inherited))


SETTINGS: dict[str, SettingInfo] = {info.name: info for info in _in_order()}
