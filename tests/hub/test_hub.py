"""Tests locating models without the network: folders, cached snapshots, and misses offline."""

import os
from functools import partial
from pathlib import Path

import pytest
from hub_process import INDEX, MODEL, SHARDS, put_in_cache, run_locate, sharded_repo, single_file_repo
from hub_server import running_hub


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def locate(hub, tmp_path):
    return partial(run_locate, hub, tmp_path)


def test_a_local_folder_imports_nothing_and_needs_no_network(hub, locate, tmp_path):
    (tmp_path / "org" / "name").mkdir(parents=True)
    for model in ("org/name", "./org/name", str(tmp_path / "org")):
        answer = locate(model)
        assert (tmp_path / answer["folder"]).is_dir()
        assert answer["imported"] == []
    assert hub.log == []


def test_a_path_that_is_not_there_never_reaches_the_network(hub, locate):
    answer = locate("./org/name")
    assert answer["exit_code"] == 4
    assert answer["message"] == "no such folder: ./org/name"
    assert hub.log == []


@pytest.mark.parametrize("weights", ["single", "sharded", "one stray shard", "stale index"])
def test_a_complete_snapshot_needs_no_network_and_no_downloader(hub, locate, tmp_path, weights):
    repo = sharded_repo()
    repo.files["model.safetensors"] = b"w"
    names = ["config.json", "tokenizer.json"] + {
        "single": ["model.safetensors"],
        "sharded": [INDEX, *SHARDS],
        "one stray shard": [SHARDS[0]],
        "stale index": [INDEX, "model.safetensors"],
    }[weights]
    snapshot = put_in_cache(tmp_path, repo, names)
    for model in (MODEL, f"{MODEL}@main", f"{MODEL}@{repo.commit}"):
        answer = locate(model)
        assert Path(answer["folder"]) == snapshot
        assert answer["progress"] == []
        assert answer["imported"] == ["huggingface_hub", "huggingface_hub.constants"]
    assert hub.log == []


def test_an_incomplete_snapshot_offline_says_what_is_missing(hub, locate, tmp_path):
    put_in_cache(tmp_path, sharded_repo(), ["config.json", INDEX, SHARDS[0]])
    answer = locate(MODEL, HF_HUB_OFFLINE="1")
    assert answer["exit_code"] == 4
    assert answer["message"].endswith(f"{MODEL} lacks tokenizer.json, {SHARDS[1]}")
    assert "HF_HUB_OFFLINE" in answer["hint"]
    assert hub.log == []


def test_a_gguf_file_in_the_cache_is_named(hub, locate, tmp_path):
    snapshot = put_in_cache(tmp_path, single_file_repo(), ["config.json"])
    for name in ("model-Q8_0.gguf", "a-mmproj-F16.gguf"):
        (snapshot / name).touch()
    answer = locate(MODEL, HF_HUB_OFFLINE="1")
    assert answer["exit_code"] == 4
    assert answer["message"].endswith(f"{MODEL} lacks tokenizer.json, model*.safetensors")
    assert answer["hint"].endswith(f"{snapshot}/model-Q8_0.gguf")


def test_a_cached_file_whose_blob_is_gone_is_missing(locate, tmp_path):
    snapshot = put_in_cache(tmp_path, single_file_repo(), ["config.json", "model.safetensors"])
    (snapshot / "tokenizer.json").symlink_to("../../blobs/gone")
    assert locate(MODEL, HF_HUB_OFFLINE="1")["message"].endswith("lacks tokenizer.json")


def test_offline_a_miss_names_near_matches_in_the_cache(hub, locate, tmp_path):
    put_in_cache(tmp_path, single_file_repo(), ["config.json"])
    for typo in ("org/Qwen3-tniy", "other/qwen3-tiny"):
        answer = locate(typo, HF_HUB_OFFLINE="1")
        assert answer["exit_code"] == 4
        assert answer["hint"].startswith(f"in the cache: {MODEL}; ")
    assert "in the cache" not in locate("org/Llama-70B", HF_HUB_OFFLINE="1")["hint"]
    assert hub.log == []


def test_a_bare_name_is_completed_from_the_cache(hub, locate, tmp_path):
    put_in_cache(tmp_path, single_file_repo(), ["config.json"])
    answer = locate("Qwen3-tiny")
    assert answer["message"] == "no such folder, and not a Hub id: Qwen3-tiny"
    assert answer["hint"].startswith(f"in the cache: {MODEL}; ")
    assert hub.log == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everywhere")
@pytest.mark.parametrize(("mode", "said"), [(0o500, "written to"), (0o000, "read")])
def test_a_cache_without_permission(hub, locate, tmp_path, mode, said):
    hub.repos[MODEL] = single_file_repo()
    (tmp_path / "hf").mkdir(mode=mode)
    answer = locate(MODEL)
    assert answer["exit_code"] == 3
    assert answer["message"].startswith(f"the cache cannot be {said}: ")
    assert "HF_HOME" in answer["hint"]
