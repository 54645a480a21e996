"""Finds and checks the model of a command, with a bar while it comes from the Hub."""

from typing import TYPE_CHECKING

from metal_gen.cli.console import Console
from metal_gen.cli.progress import ProgressBar
from metal_gen.config.settings import Settings

if TYPE_CHECKING:
    from metal_gen.checkpoint.download_progress import DownloadProgress
    from metal_gen.loading import PreparedModel

EXAMPLE_MODEL = "Qwen/Qwen3-0.6B"


def prepare_model(settings: Settings, console: Console, *, most_slots: int = 1) -> "PreparedModel":
    """Everything that needs no weights; arguments and errors as of `loading.prepare`."""
    from metal_gen.loading import prepare

    if settings.model is None:
        console.note(
            "no --model given: this is the small story model that comes with metal-gen; "
            f"for a real one try --model {EXAMPLE_MODEL}"
        )
    with ProgressBar(console, f"downloading {settings.model}", is_bytes=True) as bar:
        announced = False

        def on_download(progress: "DownloadProgress") -> None:
            nonlocal announced
            if not announced and not console.draws_bars:
                console.note(f"downloading {settings.model}: {progress.total_bytes:,} bytes")
            announced = True
            bar.update(progress.done_bytes, progress.total_bytes)

        return prepare(settings, most_slots=most_slots, on_download=on_download)
