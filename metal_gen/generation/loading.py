"""From settings to a model that is ready to generate, in two steps.

`prepare` finds the checkpoint and checks everything that can be checked without reading weights.
Calling `load` on its result reads the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from metal_gen.background import Background
from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.bundled import BUNDLED_FOLDER
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.device.backend import (
    compiles_steps,
    dtype_named,
    require_compiler,
    runs_on_cuda,
    wire_memory,
    wires_memory,
)
from metal_gen.device.buffer_cache import limit_buffer_cache
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.stopping import require_capacity
from metal_gen.generation.guessing import guesses_notices, load_speculation
from metal_gen.generation.memory.capacity import Capacity, capacity_for_chat, capacity_for_prompt
from metal_gen.generation.memory.plan import MemoryPlan
from metal_gen.generation.memory.planning import plan_memory, plan_run
from metal_gen.generation.model_notices import compile_notices, limit_notice, memory_notice, notices_of
from metal_gen.generation.opening import completed, open_checkpoint
from metal_gen.hub.locate import ProgressCallback, locate_checkpoint
from metal_gen.models.kernels.chosen import NO_KERNELS, ModelKernels, choose_kernels
from metal_gen.models.kernels.fitted import fitted
from metal_gen.models.linear_attention.mixing import described
from metal_gen.models.transformer import Transformer
from metal_gen.speculation.planned import PlannedSource

if TYPE_CHECKING:
    from metal_gen.prefix_cache.prefix_cache import PrefixCache
    from metal_gen.speculation.speculation import Speculation

Loaded = TypeVar("Loaded")
# On CUDA, a kernel is compiled for a second or more at each start. Smaller models are fast without it.
WORTH_COMPILING_BYTES = 1 << 28


@dataclass(frozen=True)
class TextModel:
    """A checkpoint with its weights in memory, and a cache.

    It generates one text at a time.

    Attributes:
        checkpoint: Files, tokenizer and chat template.
        decoder: Model and cache.
        settings: Settings in force, including the checkpoint's own defaults.
        plan: Memory plan of the run.
        compiles: Whether the decode step is compiled.
        notices: Notices to the user about this model and these settings.
        prefixes: Stored beginnings of prompts; None where the prefix cache is off.
        speculation: Guesses of the next tokens; None to generate without.
    """

    checkpoint: Checkpoint
    decoder: Decoder
    settings: Settings
    plan: MemoryPlan
    compiles: bool = False
    notices: tuple[str, ...] = ()
    prefixes: "PrefixCache | None" = None
    speculation: "Speculation | None" = None


@dataclass(frozen=True)
class PreparedModel:
    """A checkpoint that has been checked against its settings, before its weights are read.

    Attributes:
        checkpoint: The opened checkpoint.
        settings: Settings in force, including the checkpoint's own defaults.
        plan: Memory plan that fits, with the cache of a run that has no prompt yet.
        notices: Notices to the user about this model and these settings.
        guesses: Source of guesses; None to generate without.
        most_slots: Number of texts to generate at once, as for `prepare`.
        scores: Texts are scored, not generated.
    """

    checkpoint: Checkpoint
    settings: Settings
    plan: MemoryPlan
    notices: tuple[str, ...]
    guesses: PlannedSource | None = None
    most_slots: int = 1
    scores: bool = False

    @cached_property
    def kernels(self) -> ModelKernels:
        """Kernels of the model. The first access tries them on a GPU."""
        plan = self.plan
        if self.settings.kernels == "off":
            return NO_KERNELS
        is_small = runs_on_cuda() and plan.weights_bytes < WORTH_COMPILING_BYTES
        return choose_kernels(
            plan.model,
            plan.dtype,
            plan.cache.dtype,
            has_head_norms=plan.has_head_norms,
            packings=self.checkpoint.weights.packings,
            for_new_tokens=not (self.scores or is_small),
        )

    @property
    def linear_attention(self) -> str | None:
        """How linear attention is computed, or None without it. The first access tries kernels on a GPU."""
        plan = self.plan
        if plan.model.linear is None:
            return None
        dtypes = dtype_named(plan.dtype), dtype_named(plan.cache.float_dtype)
        return described(plan.model.linear, *dtypes, by_kernel=self.kernels.in_linear_attention)

    @property
    def compiles(self) -> bool:
        """Whether the decode step is compiled."""
        return not self.scores and compiles_steps(
            self.settings.compile, self.most_slots, has_kernel=self.kernels.attention.by_kernel
        )

    def for_prompt(self, prompt_tokens: int) -> "PreparedModel":
        """Return a copy with a cache for this prompt and its answer, unless `max_seq_len` is set.

        Raises:
            DoesNotFitError: The model or memory has no room for both.
        """
        max_tokens = self.settings.max_tokens
        prepared = self._sized(capacity_for_prompt(self.plan, prompt_tokens, max_tokens))
        require_capacity(
            prompt_tokens,
            max_tokens,
            prepared.plan.cache.max_seq_len,
            most=prepared.plan.largest_max_seq_len,
            reason=prepared.settings.source("max_seq_len"),
        )
        return prepared

    def for_chat(self) -> "PreparedModel":
        """Return a copy with a cache for a conversation, unless `max_seq_len` is set."""
        return self._sized(capacity_for_chat(self.plan))

    def _sized(self, capacity: Capacity) -> "PreparedModel":
        if self.settings.max_seq_len is not None:
            return self
        settings = self.settings.override({"max_seq_len": capacity.tokens}, capacity.reason)
        return replace(self, settings=settings, plan=self.plan.with_cache(max_seq_len=capacity.tokens))

    def in_background(self, load: Callable[[], Loaded]) -> Background[Loaded]:
        """Start `read_weights` or `load` in a thread. Until it has ended, nobody else may use MLX.

        Reports say meanwhile which kernels are used, so all are tried now.
        """
        _ = self.kernels, self.linear_attention
        return Background(load)

    def read_weights(self) -> Transformer:
        """Read the weights, which needs no cache. Errors are those of `Weights.load`."""
        limit_buffer_cache(self.plan.working_bytes)
        return self.checkpoint.weights.load(self.plan.dtype)

    def with_cache(self, model: Transformer) -> TextModel:
        """Allocate the cache. The tokenizer is read at its first use."""
        model = fitted(model, self.kernels)
        # MLX keeps freed buffers for reuse, but no more of them than the plan includes.
        limit_buffer_cache(self.plan.working_bytes)
        if wires_memory(self.settings.wired_memory):
            wire_memory(self.plan.total_bytes)
        decoder = Decoder(
            model,
            new_cache(self.plan.cache),
            chunk_size=self.plan.chunk_size,
            ahead_bytes=self.plan.ahead_bytes,
            compiles=self.compiles,
        )
        prefixes = None
        if self.settings.prefix_cache:
            from metal_gen.generation.prefixes.reuse import open_prefix_cache

            prefixes = open_prefix_cache(self.checkpoint, self.settings, self.plan)
        return TextModel(
            self.checkpoint,
            decoder,
            self.settings,
            self.plan,
            self.compiles,
            self.notices,
            prefixes,
            self._speculation(model),
        )

    def _speculation(self, model: Transformer) -> "Speculation | None":
        if self.guesses is None:
            return None
        return load_speculation(self.guesses, self.checkpoint, self.settings, self.plan, model)

    def load(self) -> TextModel:
        """Read the weights and allocate the cache."""
        return self.with_cache(self.read_weights())


def prepare(
    settings: Settings,
    *,
    most_slots: int = 1,
    scores: bool = False,
    in_slots: bool = False,
    on_download: ProgressCallback | None = None,
) -> PreparedModel:
    """Find the checkpoint, check it, and check that it fits.

    Args:
        settings: Settings; `model` names the checkpoint, and None is the bundled one.
        most_slots: Number of texts to generate at once, if the settings leave it open and memory allows it.
        scores: Texts are scored, not generated.
        in_slots: They are scored in slots even if there is only one.
        on_download: Called while files come from the Hub.

    Raises:
        ModelNotFoundError: There is no such checkpoint or adapter.
        CheckpointError: The checkpoint is damaged or not supported.
        ConfigError: A setting contradicts the checkpoint, or names a token that it does not have;
            UsageError if an argument does.
        DoesNotFitError: Memory is too small.
    """
    folder = BUNDLED_FOLDER
    if settings.model is not None:
        folder = locate_checkpoint(settings.model, on_progress=on_download)
    checkpoint = open_checkpoint(folder, settings)
    settings = completed(settings, checkpoint)
    in_turn = scores and checkpoint.config.linear is not None
    wanted_slots = settings.batch_size or 1
    if in_turn:
        most_slots, settings = 1, settings.override({"batch_size": 1}, "linear attention")
    guesses = why_off = None
    if scores:
        plan = plan_memory(settings, checkpoint, most_slots=most_slots, scores=True, in_slots=in_slots)
    else:
        if settings.compile == "on":
            require_compiler()
        plan, guesses, why_off = plan_run(
            settings, checkpoint, most_slots=most_slots, on_download=on_download
        )
    plan.require_fit()
    notices = notices_of(settings, checkpoint)
    if in_turn and wanted_slots > 1:
        notices.append("batch_size has no effect: with linear attention, texts are scored one after another")
    if not scores:
        notices += [*compile_notices(settings, plan, most_slots), *guesses_notices(settings, why_off)]
    notices += filter(None, (limit_notice(settings, plan), memory_notice(plan)))
    return PreparedModel(checkpoint, settings, plan, tuple(notices), guesses, most_slots, scores)
