"""Every setting: its TOML section and key, its range, its default, and what it does.

One word serves in three places: `max_seq_len` in TOML, `--max-seq-len` on the command line,
`METAL_GEN_MAX_SEQ_LEN` in the environment.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from metal_gen.config.adapters import Adapters
from metal_gen.config.checks import (
    LOGIT_BIAS,
    MAX_TOKENS,
    MIN_P,
    MIN_TOKENS,
    PENALTY,
    REPETITION_PENALTY,
    REPETITION_WINDOW,
    SAMPLES,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_LOGPROBS,
    TOP_P,
    Check,
    Choice,
    Flag,
    Text,
    Texts,
    Whole,
)
from metal_gen.config.quantize import Quantize
from metal_gen.config.rope_scaling import RopeScaling

DTYPE = Choice(("auto", "float32", "bfloat16", "float16"))
DEFAULT_SOURCE = "default"
ARGUMENT_SOURCE = "argument"
# The section of what only the command line knows: a library shows nothing.
TERMINAL = "terminal"


def _setting(section: str, check: Check, default: Any, help: str, *, key: str = "") -> Any:
    return field(default=default, metadata={"section": section, "check": check, "help": help, "key": key})


@dataclass(frozen=True)
class SettingInfo:
    """Where a setting is written and what it may be.

    Attributes:
        name: Of the field, the flag and the variable.
        section: TOML table.
        key: TOML key within it.
        check: Its range.
        default: None where it follows from the checkpoint or the machine.
        help: One sentence.
    """

    name: str
    section: str
    key: str
    check: Check
    default: object
    help: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"METAL_GEN_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """The command-line option."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings in force.

    Attributes:
        sources: Where each value came from, for those that are not defaults.
    """

    model: str | None = _setting(
        "model", Text(may_be_empty=False), None, "Folder, GGUF file or Hub id of the checkpoint.", key="name"
    )
    model_dtype: str = _setting(
        "model",
        DTYPE,
        "auto",
        "What to compute in; auto: the checkpoint's own, float32 on a CPU.",
        key="dtype",
    )
    quantize: str | None = _setting(
        "model",
        Quantize(),
        None,
        "Bits of a number in matrices, which are quantized while they are read: 4, 4g32, mxfp4.",
    )
    adapter: tuple[str, ...] = _setting(
        "model",
        Adapters(),
        (),
        "Folders of LoRA adapters, as PEFT or mlx-lm save them; FOLDER=SCALE weighs one.",
    )
    rope_scaling: tuple[tuple[str, object], ...] | None = _setting(
        "model",
        RopeScaling(),
        None,
        "How positions are stretched, as rope_parameters of config.json; as the checkpoint says.",
    )
    max_seq_len: int | None = _setting(
        "cache",
        Whole(1),
        None,
        "Tokens that the cache holds, prompt and answer together; chosen to fit them, 2048 in a batch.",
    )
    batch_size: int | None = _setting(
        "cache", Whole(1), None, "Texts generated at once; 1, and for a batch up to 8, as memory allows."
    )
    cache_dtype: str = _setting(
        "cache",
        DTYPE,
        "auto",
        "What keys and values are stored in; auto: what the model computes in.",
        key="dtype",
    )
    num_layers: int | None = _setting("cache", Whole(1), None, "Must equal the checkpoint's, if given.")
    num_kv_heads: int | None = _setting("cache", Whole(1), None, "Must equal the checkpoint's, if given.")
    head_dim: int | None = _setting("cache", Whole(1), None, "Must equal the checkpoint's, if given.")
    memory_limit_bytes: int | None = _setting(
        "memory",
        Whole(1),
        None,
        "Most that weights, cache and working memory may take; what the machine has left.",
        key="limit_bytes",
    )
    wired_memory: bool = _setting(
        "memory",
        Flag(),
        False,
        "Keep macOS from compressing weights and cache or swapping them out; with Metal only.",
        key="wired",
    )
    blas: str = _setting(
        "cpu",
        Text(may_be_empty=False),
        "auto",
        "Matrix products on a CPU; auto: OpenBLAS where it is installed; off: MLX's own; or a library.",
    )
    chunk_size: int | None = _setting(
        "prefill", Whole(1), None, "Prompt tokens that are computed at once; 512 on a CPU, 2048 on a GPU."
    )
    compile: str = _setting(
        "decode",
        Choice(("auto", "on", "off")),
        "auto",
        "Compile the step from one token to the next; auto: on Metal.",
    )
    temperature: float | None = _setting(
        "sampling", TEMPERATURE, None, "0 is greedy; 1 is the model as it is."
    )
    top_k: int | None = _setting("sampling", TOP_K, None, "Draw from the k most probable tokens.")
    top_p: float | None = _setting(
        "sampling", TOP_P, None, "Draw from the fewest tokens whose probability reaches p."
    )
    min_p: float | None = _setting(
        "sampling", MIN_P, None, "Draw from tokens at least p times as probable as the most probable."
    )
    repetition_penalty: float = _setting(
        "sampling", REPETITION_PENALTY, 1.0, "Divides the logits of tokens that occurred; 1 is none."
    )
    repetition_window: int | None = _setting(
        "sampling", REPETITION_WINDOW, None, "Last tokens that repetition_penalty looks at; the whole text."
    )
    presence_penalty: float = _setting(
        "sampling", PENALTY, 0.0, "Subtracted from the logits of tokens generated before."
    )
    frequency_penalty: float = _setting(
        "sampling", PENALTY, 0.0, "Subtracted once for each time that a token was generated."
    )
    logit_bias: tuple[tuple[str, float], ...] = _setting(
        "sampling", LOGIT_BIAS, (), "Added to the logits of tokens, by text or id."
    )
    ban_token: tuple[str, ...] = _setting("sampling", Texts(), (), "Tokens never to draw, by text or id.")
    seed: int | None = _setting("sampling", SEED, None, "Makes the draws repeatable; chosen anew each run.")
    max_tokens: int | None = _setting(
        "generation", MAX_TOKENS, None, "Most new tokens; what the cache holds."
    )
    min_tokens: int = _setting("generation", MIN_TOKENS, 0, "No end or stop token is drawn before so many.")
    ignore_eos: bool = _setting("generation", Flag(), False, "Never draw an end token.")
    stop: tuple[str, ...] = _setting("generation", Texts(), (), "Texts that end the answer and are cut off.")
    stop_token: tuple[str, ...] = _setting("generation", Texts(), (), "Tokens that end it, by text or id.")
    samples: int = _setting("generation", SAMPLES, 1, "Answers to draw for one prompt.")
    logprobs: int | None = _setting(
        "generation", TOP_LOGPROBS, None, "Give each token's log-probabilities, and the K most probable."
    )
    system: str | None = _setting("generation", Text(), None, "System message.")
    raw: bool = _setting(
        "generation", Flag(), False, "Continue the prompt as it is, without the chat template."
    )
    thinking: bool | None = _setting(
        "generation", Flag(), None, "Whether to think first; as the template does."
    )

    markdown: bool = _setting(
        TERMINAL, Flag(), False, "Render Markdown as it comes, on a terminal; a pipe gets the text itself."
    )
    hide_thinking: bool = _setting(TERMINAL, Flag(), False, "Do not show what the model thinks.")

    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def source(self, name: str) -> str:
        """Where the value in force came from."""
        return self.sources.get(name, DEFAULT_SOURCE)

    def override(self, values: Mapping[str, object], source: str | Mapping[str, str]) -> "Settings":
        """Return these settings with checked values laid over them."""
        named = {name: source if isinstance(source, str) else source[name] for name in values}
        changes: dict[str, Any] = {**values, "sources": {**self.sources, **named}}
        return replace(self, **changes)

    def fill(self, values: Mapping[str, object], source: str) -> "Settings":
        """Return these settings with values for those that nobody has set."""
        return self.override({k: v for k, v in values.items() if k not in self.sources}, source)


def _describe() -> dict[str, SettingInfo]:
    return {
        f.name: SettingInfo(
            name=f.name,
            section=f.metadata["section"],
            key=f.metadata["key"] or f.name,
            check=f.metadata["check"],
            default=f.default,
            help=f.metadata["help"],
        )
        for f in fields(Settings)
        if f.metadata
    }


SETTINGS: dict[str, SettingInfo] = _describe()
