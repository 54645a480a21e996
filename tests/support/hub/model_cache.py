"""Builds caches in huggingface_hub's layout, for tests that read one."""

import json
from pathlib import Path

A, B = "a" * 40, "b" * 40
ESC = "\x1b[31m"


def put_model(
    hub: Path,
    repo_id: str,
    files: dict[str, bytes | None],
    *,
    commit: str = A,
    names: tuple[str, ...] = ("main",),
) -> Path:
    """Cache files of a model as links to blobs; None makes a link to a missing blob."""
    repository = hub / f"models--{repo_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        blob = f"{commit[0]}-{name}"
        if content is not None:
            (repository / "blobs" / blob).write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    for name in names:
        (repository / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    return snapshot


def model_files(weights: bytes = b"w" * 3000, **config: object) -> dict[str, bytes | None]:
    """Return the files of a complete snapshot."""
    return {
        "config.json": json.dumps({"model_type": "qwen3", "dtype": "bfloat16", **config}).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": weights,
    }


def folder_files(folder: str | Path) -> dict[str, bytes | None]:
    """Return the files of a checkpoint, to be cached."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
