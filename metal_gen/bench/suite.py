"""Runs a benchmark: the order of its sections, and which models are in memory during each."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from metal_gen.bench.measurement import METAL_GEN, MLX_LM, Trial, alternate
from metal_gen.bench.report import BenchReport
from metal_gen.bench.request import (
    CAPACITY,
    CEILING,
    COLD_START,
    CONSTRAINT,
    DECODE,
    GRAPH,
    LOAD,
    MEMORY,
    NEED_CEILING,
    NEED_NO_MODEL,
    PARTS,
    PREFILL,
    SPECULATION,
    STEP,
    UNCACHED,
    BenchRequest,
)
from metal_gen.bench.runners.engine import EngineRunner
from metal_gen.bench.runners.runner import Runner
from metal_gen.bench.runners.synthetic_prompt import synthetic_prompt
from metal_gen.bench.sections import (
    cached_uncached,
    ceiling,
    cold_start,
    decode_speed,
    load_time,
    parts,
    peak_memory,
    prefill_speed,
)
from metal_gen.bench.sections.graph import graph_measurements
from metal_gen.bench.sections.step import step_operations, step_trials
from metal_gen.bench.workload import Workload, plan_workload, require_room
from metal_gen.checkpoint.bundled import BUNDLED_NAME
from metal_gen.config.settings import Settings
from metal_gen.device.blas import blas_in_use
from metal_gen.device.buffer_cache import clear_buffer_cache, limit_buffer_cache
from metal_gen.environment import describe_environment
from metal_gen.generation.loading import PreparedModel, TextModel, prepare
from metal_gen.generation.strategy_settings import strategy_from

SectionProgress = Callable[[str, int, int], None]
AGREEMENT_TOKENS = 32
# Shown in place of a section.
CONVERTING = "converting for mlx-lm"
LIBRARY = "llguidance"


@dataclass
class Suite:
    """One run of the benchmark.

    Attributes:
        settings: Settings in force.
        request: What to measure.
        prepared: The checkpoint, checked against the settings.
        settings_arguments: Arguments that give `metal-gen generate` the same settings.
        print_texts: Prints pieces as the command line does.
        on_progress: Called with the section, the number of runs done in it, and the total.
    """

    settings: Settings
    request: BenchRequest
    prepared: PreparedModel
    settings_arguments: Sequence[str]
    print_texts: Callable[[Sequence[str]], None]
    on_progress: SectionProgress

    def __post_init__(self) -> None:
        """Choose the sizes; raises as `plan_workload` does, and if the second model does not fit."""
        self.workload: Workload = plan_workload(self.request, self.prepared.plan)
        if self.request.compare:
            plan = self.prepared.plan
            require_room(plan, plan.total_bytes, "mlx-lm's model and cache", "measure without --compare")
        self.report = BenchReport(describe_environment(), self._setup())
        self._bandwidth: float | None = None
        self._compare_with: Path | None = None
        self._default_cache_limit = limit_buffer_cache(0)
        limit_buffer_cache(self._default_cache_limit)

    def run(self) -> None:
        """Measure everything; `report` always holds the figures so far, even after an exception."""
        self._ceiling()
        with ExitStack() as stack:
            if self.request.compare:
                self._find_for_mlx_lm(stack)
            self._sections()
        self.report.complete = True

    def _find_for_mlx_lm(self, stack: ExitStack) -> None:
        from metal_gen.bench.runners.mlx_lm_folder import folder_for_mlx_lm

        def on_progress(done_bytes: int, all_bytes: int) -> None:
            self.on_progress(CONVERTING, done_bytes, all_bytes)

        folder = stack.enter_context(folder_for_mlx_lm(self.prepared.checkpoint, on_progress))
        self._compare_with = folder.path
        if folder.note:
            self.report.notes.append(folder.note)

    def _sections(self) -> None:
        compare_with, plan = self._compare_with, self.prepared.plan
        if self._wants(COLD_START):
            trials = cold_start.cold_start_trials(plan, self.settings_arguments, compare_with)
            self._alternate(COLD_START, trials)
        if self._wants(LOAD):
            trials = load_time.load_trials(lambda: prepare(self.settings), compare_with)
            self._alternate(LOAD, trials)
        if set(self.request.sections) - NEED_NO_MODEL:
            self._with_models()

    def _wants(self, section: str) -> bool:
        return section in self.request.sections

    def _ceiling(self) -> None:
        """Measure the ceiling; runs first, and with every decode section."""
        if not NEED_CEILING & set(self.request.sections):
            return
        plan = self.prepared.plan
        trials = ceiling.bandwidth_trials(plan)
        self._alternate(CEILING, trials)
        figures = [figure for trial in trials for figure in trial.measurements]
        self._bandwidth = ceiling.best_bandwidth(figures)
        if self._bandwidth is not None:
            self.report.measurements += ceiling.ceiling_measurements(
                self._bandwidth, plan, self.workload.depths
            )
        clear_buffer_cache()

    def _with_models(self) -> None:
        """Run the sections that need a model in memory."""
        capacity = self.prepared.plan.cache.max_seq_len
        tokenizer = self.prepared.checkpoint.tokenizer
        prompt = synthetic_prompt(tokenizer, capacity)
        if self._wants(MEMORY):
            self.report.measurements += peak_memory.planned_measurements(self.prepared.plan)
        model, runner = self._load_engine(prompt)
        runners: list[Runner] = [runner]
        if self.request.compare:
            runners.append(self._load_mlx_lm(prompt))
            self._note_comparison(runners, prompt)
        self._speeds(model, runners, prompt)
        if self._wants(UNCACHED):
            texts = {length: prompt[:length] for length in self.workload.lengths}
            self._alternate(
                UNCACHED,
                cached_uncached.cached_uncached_trials(runner, texts, self.workload.decode_tokens),
            )
        if self._wants(PARTS):
            strategy = strategy_from(model.settings, tokenizer, model.checkpoint.eos_ids)
            text = prompt[: max(1, (capacity - self.workload.decode_tokens) // 2)]
            count = self.workload.decode_tokens
            trial = parts.parts_trial(runner, tokenizer, strategy, text, self.print_texts, count)
            self._alternate(PARTS, [trial])
        if self._wants(STEP):
            kinds, depths = runner.kinds_of_step(), self.workload.depths
            ends = sorted({depths[0], depths[-1]})
            self.report.measurements += step_operations(kinds, ends)
            self._alternate(STEP, step_trials(kinds, ends, self.workload.decode_tokens - 1))
        if self._wants(GRAPH):
            self.report.measurements += graph_measurements(runners, self.workload.depths[0])
        if self._wants(CONSTRAINT):
            self._constraint(model, runner)
        if self._wants(SPECULATION):
            self._speculation(model)

    def _speculation(self, model: TextModel) -> None:
        """Measure what guesses bring, if the model makes any."""
        if model.speculation is None:
            self.report.notes.append(f"{SPECULATION} is not measured: no tokens are guessed")
            return
        from metal_gen.bench.sections.speculation import NEW_TOKENS, speculation_trials

        source = model.speculation.source.name
        self.report.notes.append(f"{SPECULATION} has {NEW_TOKENS} new tokens, with guesses of {source}")
        self._alternate(SPECULATION, speculation_trials(model, model.speculation))

    def _constraint(self, model: TextModel, runner: EngineRunner) -> None:
        """Measure what a constraint costs, if the library for it is installed."""
        if find_spec(LIBRARY) is None:
            self.report.notes.append(f"{CONSTRAINT} is not measured: {LIBRARY} is not installed")
            return
        from metal_gen.bench.sections.constraint import NEW_TOKENS, constraint_trials

        depth = self.workload.depths[0]
        count = self.request.decode_tokens or min(NEW_TOKENS, runner.capacity - depth)
        self.report.notes.append(f"{CONSTRAINT} has {count} new tokens")
        checkpoint = model.checkpoint
        trials = constraint_trials(runner, checkpoint.token_table, checkpoint.tokenizer, depth, count)
        self._alternate(CONSTRAINT, trials)

    def _speeds(self, model: TextModel, runners: Sequence[Runner], prompt: Sequence[int]) -> None:
        plan, workload = self.prepared.plan, self.workload
        if self._wants(PREFILL):
            prompts = {length: prompt[:length] for length in workload.prompt_tokens}
            self._alternate(PREFILL, prefill_speed.prefill_trials(runners, prompts))
        if self._wants(DECODE):
            trials = decode_speed.decode_trials(
                runners, workload.depths, workload.decode_tokens, plan, self._bandwidth
            )
            self._alternate(DECODE, trials)
        if self._wants(CAPACITY):
            caches = {
                size: EngineRunner.with_capacity(model, replace(plan.cache, max_seq_len=size))
                for size in workload.capacities
            }
            trials = decode_speed.capacity_trials(
                caches, runners[1:], workload.capacity_depth, workload.decode_tokens, plan, self._bandwidth
            )
            self._alternate(CAPACITY, trials)

    def _load_engine(self, prompt: Sequence[int]) -> tuple[TextModel, EngineRunner]:
        loaded: list[TextModel] = []

        def load() -> EngineRunner:
            loaded.append(self.prepared.load())
            return EngineRunner(loaded[0].decoder)

        runner = self._load(load, METAL_GEN, prompt)
        return loaded[0], runner

    def _load_mlx_lm(self, prompt: Sequence[int]) -> Runner:
        from metal_gen.bench.runners.mlx_lm import MlxLmRunner

        folder, dtype = self._compare_with, self.prepared.plan.dtype
        assert folder is not None
        return self._load(lambda: MlxLmRunner(folder, dtype, self._default_cache_limit), MLX_LM, prompt)

    def _load(
        self, load: Callable[[], peak_memory.AnyRunner], program: str, prompt: Sequence[int]
    ) -> peak_memory.AnyRunner:
        if not self._wants(MEMORY):
            return load()
        measurement = peak_memory.peak_measurement(program, len(prompt))
        self.report.measurements.append(measurement)
        self.on_progress(MEMORY, 0, 1)
        return peak_memory.load_measured(load, prompt, measurement)

    def _note_comparison(self, runners: Sequence[Runner], prompt: Sequence[int]) -> None:
        """Note whether both programs compute the same tokens, and whether they share a BLAS only here."""
        blas = blas_in_use()
        if blas is not None and not blas.is_reference:
            self.report.notes.append(
                f"mlx-lm uses the same {blas} here; on its own, as in {COLD_START}, it does not"
            )
        count = min(AGREEMENT_TOKENS, self.workload.decode_tokens)
        text = prompt[: max(1, (len(prompt) - count) // 2)]
        ours, theirs = (runner.greedy_tokens(text, count) for runner in runners)
        same = next((place for place in range(count) if ours[place] != theirs[place]), count)
        self.report.notes.append(
            f"metal-gen and mlx-lm generate the same first {same} of {count} greedy tokens "
            f"after {len(text)} synthetic ones"
        )

    def _alternate(self, section: str, trials: Sequence[Trial]) -> None:
        self.report.measurements += [figure for trial in trials for figure in trial.measurements]
        self.on_progress(section, 0, 1)
        alternate(
            trials,
            repeats=self.request.repeats,
            warmup=self.request.warmup,
            on_progress=lambda done, total: self.on_progress(section, done, total),
        )

    def _setup(self) -> dict[str, object]:
        plan, checkpoint = self.prepared.plan, self.prepared.checkpoint
        return {
            "model": self.settings.model or BUNDLED_NAME,
            "adapters": [adapter.record for adapter in checkpoint.weights.adapters],
            "model_type": plan.model.model_type,
            "num_parameters": checkpoint.weights.num_parameters,
            "checkpoint_dtype": checkpoint.weights.dtype,
            "quantize": self.settings.quantize,
            "dtype": plan.dtype,
            "cache_dtype": plan.cache.dtype,
            "max_seq_len": plan.cache.max_seq_len,
            "chunk_size": plan.chunk_size,
            "compiled": self.prepared.compiles,
            "sampling": str(strategy_from(self.prepared.settings, checkpoint.tokenizer, checkpoint.eos_ids)),
            "repeats": self.request.repeats,
            "warmup": self.request.warmup,
            "compare": MLX_LM if self.request.compare else None,
            **asdict(self.workload),
        }
