"""Downloads a checkpoint from the Hub into its cache, and only the files that are needed.

Checks the free disk space and fixes the order: weights come last, so that a snapshot with weights has the
other files too. huggingface_hub downloads each file, and resumes it when a connection breaks. Files that a
run has completed are kept for the next one; a file that it has only begun starts anew. Importing the library
takes 200 ms, so import this module only to download. Prints nothing.
"""

from collections.abc import Collection
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.utils.tqdm import tqdm

from metal_gen.byte_sizes import format_bytes
from metal_gen.device.limits import room_advice
from metal_gen.errors import CheckpointError, DoesNotFitError, ModelNotFoundError
from metal_gen.files.weight_files import WEIGHTS_INDEX, read_index
from metal_gen.files.whole_file import write_whole
from metal_gen.hub.cache import cache_folder, free_bytes, reference_file, snapshot_folder
from metal_gen.hub.download_plan import DownloadPlan, plan_download
from metal_gen.hub.download_progress import ProgressCallback, ProgressMeter
from metal_gen.hub.errors import MAKE_ROOM, hub_errors_explained
from metal_gen.hub.reference import HubModel
from metal_gen.hub.session import HubSession, hub_session
from metal_gen.hub.watch import for_each, run_watched

_MOST_THREADS = 8
_LISTED_NAMES = 6
# The listing and the index are far smaller.
_MOST_BYTES_TO_PLAN = 256 << 20
# After broken connections a file may be received several times; this limit stops an endless answer.
_MOST_TIMES, _SPARE_BYTES = 3, 1 << 30


def download_checkpoint(model: HubModel, on_progress: ProgressCallback | None) -> Path:
    """Download the files of a model that the cache lacks; return the snapshot's folder.

    Args:
        model: The repository and the revision.
        on_progress: As for `locate_checkpoint`, which also documents the exceptions.
    """
    with hub_errors_explained(model), hub_session() as session:
        plan = run_watched(
            lambda: plan_download(model, _cached_index),
            lambda: session.received_bytes,
            session.stop,
            most_bytes=_MOST_BYTES_TO_PLAN,
        )
        _check_free_disk(model, plan)
        return _Download(model, plan, on_progress).run(session)


def _cached_index(model: HubModel, commit: str) -> dict[str, str]:
    """Return the weight index, downloading it into the cache first."""

    def fetch(*, again: bool) -> dict[str, str]:
        uncounted = _counting_bar(ProgressMeter(None, total_bytes=0, files_total=0), WEIGHTS_INDEX)
        path = hf_hub_download(
            model.repo_id, WEIGHTS_INDEX, revision=commit, force_download=again, tqdm_class=uncounted
        )
        return read_index(Path(path))

    try:
        return fetch(again=False)
    except CheckpointError:  # the cached file may be damaged
        return fetch(again=True)


def _check_free_disk(model: HubModel, plan: DownloadPlan) -> None:
    absent = _absent(plan.files, snapshot_folder(model, plan.commit))
    needed_bytes = sum(plan.files[name] or 0 for name in absent)
    left_bytes = free_bytes()
    if needed_bytes > left_bytes:
        raise DoesNotFitError(
            f"no room to download {model}: {format_bytes(needed_bytes)} needed, "
            f"{format_bytes(left_bytes)} free in {cache_folder()}",
            room_advice(MAKE_ROOM),
        )


class _Download:
    """The download of one commit of a model."""

    def __init__(self, model: HubModel, plan: DownloadPlan, on_progress: ProgressCallback | None) -> None:
        self._model = model
        self._plan = plan
        self._folder = snapshot_folder(model, plan.commit)
        total_bytes = sum(size or 0 for size in plan.files.values())
        self._meter = ProgressMeter(on_progress, total_bytes, len(plan.files))

    def run(self, session: HubSession) -> Path:
        """Download all files and return the folder."""

        def stop() -> None:
            self._meter.cancel()
            session.stop()

        sizes = self._plan.files.values()
        run_watched(
            self._fetch_all,
            lambda: max(session.received_bytes, self._meter.counted_bytes),
            stop,
            most_bytes=None
            if None in sizes
            else _SPARE_BYTES + _MOST_TIMES * sum(size or 0 for size in sizes),
        )
        if absent := _absent(self._plan.files, self._folder):
            listed = ", ".join(absent[:_LISTED_NAMES])
            raise ModelNotFoundError(
                f"download is incomplete: {self._model} lacks {listed}",
                "run the same command again: complete files are kept",
            )
        return self._folder

    def _fetch_all(self) -> None:
        # The library would keep an existing file of the wrong size, so fetch those again.
        absent = _absent(self._plan.files, self._folder)
        self._fetch([name for name in absent if (self._folder / name).is_file()], again=True)
        self._fetch(self._plan.small_files)
        self._note_commit()
        self._fetch(self._plan.weights)

    def _fetch(self, names: Collection[str], *, again: bool = False) -> None:
        absent = _absent(self._plan.files, self._folder)
        present = self._plan.files.keys() - absent
        self._meter.begin_stage(sum(self._plan.files[name] or 0 for name in present), len(present))

        def fetch_one(name: str) -> None:
            hf_hub_download(
                self._model.repo_id,
                name,
                revision=self._plan.commit,
                force_download=again,
                tqdm_class=_counting_bar(self._meter, name),
            )
            self._meter.add_files(1)

        for_each([name for name in absent if name in names], fetch_one, _MOST_THREADS)

    def _note_commit(self) -> None:
        """Record the commit of the revision's name, as the library does."""
        note = reference_file(self._model)
        if self._model.revision != self._plan.commit:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_whole(note, self._plan.commit.encode())


def _absent(sizes: dict[str, int | None], folder: Path) -> list[str]:
    """Return the files that a folder lacks or has with a different size."""

    def is_whole(name: str) -> bool:
        path = folder / name
        return path.is_file() and sizes[name] in (None, path.stat().st_size)

    return [name for name in sizes if not is_whole(name)]


def _counting_bar(meter: ProgressMeter, name: str) -> type[tqdm]:
    class CountingBar(tqdm):
        """Replaces the library's progress bars: draws nothing, counts for the meter."""

        monitor_interval = 0  # no monitor thread for bars that are never drawn

        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # tqdm has no types
            meter.add_bytes(name, id(self), int(kwargs.get("initial") or 0))  # type: ignore[call-overload]

        def update(self, n: float | None = 1) -> None:
            meter.add_bytes(name, id(self), int(n or 0))

    return CountingBar
