"""Locates and checks the model of a command, and reports its download."""

import platform
import time
from functools import cached_property
from typing import TYPE_CHECKING, Self

from metal_gen.byte_sizes import format_bytes
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress import ProgressBar
from metal_gen.config.settings import Settings

if TYPE_CHECKING:
    from metal_gen.generation.loading import PreparedModel
    from metal_gen.hub.download_progress import DownloadProgress

# Must equal the values in `generation.memory.capacity`, which cannot be imported before MLX.
USUAL_TOKENS, CHAT_TOKENS = 2048, 16_384
EXAMPLE_MODEL = "Qwen/Qwen3-0.6B"


def require_mlx_for(settings: Settings, *, tokens: int = USUAL_TOKENS, slots: int = 1) -> None:
    """Import MLX, on a Mac with settings that suit the model.

    Args:
        settings: Settings in force.
        tokens: Capacity of the cache if the settings have none.
        slots: Number of concurrent texts if the settings have none.

    Raises:
        MetalGenError: As for `require_mlx`.
    """
    from metal_gen.device.backend import require_mlx

    if platform.system() == "Darwin":
        from metal_gen.checkpoint.step_surplus import step_surplus
        from metal_gen.device.command_buffers import size_command_buffers

        size_command_buffers(step_surplus(settings, tokens=tokens, slots=slots))
    require_mlx(settings.blas)


def prepare_model(
    settings: Settings,
    console: Console,
    *,
    most_slots: int = 1,
    scores: bool = False,
    in_slots: bool = False,
) -> "PreparedModel":
    """Prepare a model without loading weights; arguments and exceptions as of `loading.prepare`."""
    from metal_gen.generation.loading import prepare

    with DownloadReporter(settings.model or "the model", console) as reporter:
        return prepare(
            settings,
            most_slots=most_slots,
            scores=scores,
            in_slots=in_slots,
            on_download=reporter.update,
        )


def note_bundled_model(settings: Settings, console: Console) -> None:
    """Note that the bundled model runs if no model is named."""
    if settings.model is None:
        console.note(
            "no --model given: this is the small bundled story model; "
            f"for a real one, give --model {EXAMPLE_MODEL} or set METAL_GEN_MODEL"
        )


class Preparation:
    """The model of a command, prepared on first access.

    Args:
        settings: Settings, with the name of the model.
        console: As for `prepare_model`.
    """

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console

    @cached_property
    def prepared(self) -> "PreparedModel":
        """The prepared model; the first access raises as `prepare_model` does."""
        require_mlx_for(self._settings)
        return prepare_model(self._settings, self._console)

    def most_prompt_bytes(self) -> int:
        """Return the maximum bytes of a prompt that fits the largest possible cache."""
        prepared = self.prepared
        return prepared.checkpoint.tokenizer.most_bytes(prepared.plan.most_tokens)


class DownloadReporter:
    """Reports a download, if there is one: a bar on a terminal, lines in a log.

    Attributes:
        fetched_bytes: Bytes received from the Hub.
    """

    def __init__(self, model: str, console: Console) -> None:
        self.fetched_bytes = 0
        self._model = model
        self._console = console
        # The Hub may answer slowly, and reading a folder of many files takes time.
        self._bar = ProgressBar(console, f"opening {model}")
        self._begin_s = 0.0
        self._present_bytes: int | None = None

    def update(self, progress: "DownloadProgress") -> None:
        """Show the progress."""
        if self._present_bytes is None:
            self._present_bytes = progress.done_bytes
            self._begin_s = time.perf_counter()
            self._bar.close()
            self._bar = ProgressBar(self._console, f"downloading {self._model}", is_bytes=True)
            missing_bytes = progress.total_bytes - progress.done_bytes
            if missing_bytes and not self._console.draws_bars:
                self._console.note(
                    f"downloading {self._model}: {missing_bytes:,} of {progress.total_bytes:,} bytes"
                )
        self.fetched_bytes = progress.done_bytes - self._present_bytes
        self._bar.update(progress.done_bytes, progress.total_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._bar.close()
        if kind is None and self.fetched_bytes:
            seconds = time.perf_counter() - self._begin_s
            self._console.note(
                f"downloaded {self._model}: {format_bytes(self.fetched_bytes)} in {seconds:.1f} s"
            )
