"""Looks checkpoints up on the stand-in for the Hub, each in a separate process.

huggingface_hub reads its environment when it is imported, and part of what is tested is what gets imported.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from hub_server import Hub, Repo

MODEL = "org/Qwen3-tiny"
INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
LOCATE = """
import json, sys
from metal_gen.hub.locate import locate_checkpoint
from metal_gen.errors import MetalGenError
answer = {"progress": []}
def on_progress(p):
    answer["progress"].append([p.done_bytes, p.total_bytes, p.files_done, p.files_total])
try:
    answer["folder"] = str(locate_checkpoint(sys.argv[1], on_progress=on_progress))
except MetalGenError as error:
    answer.update(message=error.message, hint=error.hint, exit_code=int(error.exit_code))
answer["imported"] = [name for name in sys.modules if name.startswith("huggingface_hub")]
print(json.dumps(answer))
"""


def json_file(**fields):
    return json.dumps(fields).encode()


def index_of(*names):
    return json_file(weight_map={f"layer.{i}": name for i, name in enumerate(names)})


def small_files():
    return {
        "config.json": json_file(model_type="qwen3"),
        "generation_config.json": json_file(top_k=20),
        "tokenizer.json": b'{"model": {}}' + b" " * 5000,
        "tokenizer_config.json": json_file(chat_template="x"),
        "chat_template.jinja": b"{{ messages }}",
    }


def clutter():
    return {
        "README.md": b"# model",
        ".gitattributes": b"x",
        "vocab.json": b"{}",
        "merges.txt": b"a b",
        "pytorch_model.bin": b"pickle",
        "model-q4.gguf": b"gguf",
        "onnx/model.onnx": b"onnx",
        "original/model.safetensors": b"other",
        "adapter.safetensors": b"lora",
        "picture.png": b"png",
    }


def single_file_repo():
    return Repo({**small_files(), **clutter(), "model.safetensors": b"w" * 300_000})


def sharded_repo():
    shards = {name: bytes([65 + i]) * 200_000 for i, name in enumerate(SHARDS)}
    return Repo({**small_files(), **clutter(), INDEX: index_of(*SHARDS), **shards})


def put_in_cache(folder, repo, names):
    """Cache some of a repository's files under the revision main."""
    snapshot = repo_cache(folder) / "snapshots" / repo.commit
    snapshot.mkdir(parents=True)
    for name in names:
        (snapshot / name).write_bytes(repo.files[name])
    (repo_cache(folder) / "refs").mkdir()
    (repo_cache(folder) / "refs" / "main").write_text(repo.commit)
    return snapshot


def repo_cache(folder):
    return folder / "hf" / "hub" / "models--org--Qwen3-tiny"


def hub_environment(hub: Hub, folder: Path, **environment: str) -> dict[str, str]:
    """Return variables that make a process use the stand-in, and a cache below a folder."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS")) and not key.lower().endswith("_proxy")
    }
    return {
        **inherited,
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "TQDM_POSITION": "-1",  # the library's own bars come even without a terminal, if they come at all
        "PYTHONPATH": str(Path(__file__).parents[3]),
        **environment,
    }


def start_locate(hub: Hub, folder: Path, model: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", LOCATE, model],
        env=hub_environment(hub, folder, **environment),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_locate(hub: Hub, folder: Path, model: str, **environment: str) -> dict:
    output, errors = start_locate(hub, folder, model, **environment).communicate(timeout=30)
    assert errors == ""
    return json.loads(output)
