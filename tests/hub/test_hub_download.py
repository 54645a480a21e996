"""Tests downloads: which files are fetched, counted and resumed."""

import signal
import time
from functools import partial
from pathlib import Path

import pytest
from hub_process import (
    INDEX,
    MODEL,
    SHARDS,
    clutter,
    index_of,
    put_in_cache,
    run_locate,
    sharded_repo,
    single_file_repo,
    small_files,
    start_locate,
)
from hub_server import Repo, Trouble, running_hub


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def locate(hub, tmp_path):
    return partial(run_locate, hub, tmp_path)


def repo_with_mtp():
    repo = single_file_repo()
    repo.files["mtp.safetensors"] = b"layers for multi-token prediction"
    return repo


@pytest.mark.quick
@pytest.mark.parametrize("make_repo", [single_file_repo, sharded_repo, repo_with_mtp])
def test_a_download_fetches_what_is_needed_once_and_nothing_else(hub, locate, make_repo):
    repo = hub.repos[MODEL] = make_repo()
    needed = sorted(set(repo.files) - set(clutter()))

    answer = locate(MODEL)

    folder = Path(answer["folder"])
    assert sorted(hub.fetched()) == needed
    assert sorted(path.name for path in folder.iterdir()) == needed
    assert all((folder / name).read_bytes() == repo.files[name] for name in needed)
    hub.log.clear()
    assert locate(MODEL)["folder"] == answer["folder"]
    assert hub.log == []


def test_progress_rises_from_nothing_to_everything(hub, locate):
    repo = hub.repos[MODEL] = single_file_repo()
    needed = set(repo.files) - set(clutter())
    total_bytes = sum(len(repo.files[name]) for name in needed)

    progress = locate(MODEL)["progress"]

    assert progress[0] == [0, total_bytes, 0, len(needed)]
    assert progress[-1] == [total_bytes, total_bytes, len(needed), len(needed)]
    assert [step[0] for step in progress] == sorted(step[0] for step in progress)
    assert [step[2] for step in progress] == sorted(step[2] for step in progress)


def test_a_single_file_is_taken_when_the_index_is_stale(hub, locate):
    repo = hub.repos[MODEL] = single_file_repo()
    repo.files[INDEX] = index_of(*SHARDS)
    repo.files[SHARDS[0]] = b"half a model"
    locate(MODEL)
    assert "model.safetensors" in hub.fetched()
    assert SHARDS[0] not in hub.fetched()


def test_the_shards_are_taken_when_the_index_holds_and_a_single_file_is_there_too(hub, locate):
    repo = hub.repos[MODEL] = sharded_repo()
    repo.files["model.safetensors"] = b"w" * 1000
    locate(MODEL)
    assert set(SHARDS) <= set(hub.fetched())
    assert "model.safetensors" not in hub.fetched()


def test_an_incomplete_snapshot_is_completed(hub, locate, tmp_path):
    repo = hub.repos[MODEL] = sharded_repo()
    present = [*small_files(), INDEX, SHARDS[0]]
    snapshot = put_in_cache(tmp_path, repo, present)

    answer = locate(MODEL)

    assert Path(answer["folder"]) == snapshot
    assert hub.fetched() == [SHARDS[1]]
    total_bytes = sum(len(repo.files[name]) for name in [*present, SHARDS[1]])
    assert answer["progress"][0] == [total_bytes - 200_000, total_bytes, len(present), len(present) + 1]
    assert answer["progress"][-1] == [total_bytes, total_bytes, len(present) + 1, len(present) + 1]


@pytest.mark.parametrize("revision", ["refs/pr/3", "commit"])
def test_a_revision_is_downloaded_and_found_again(hub, locate, revision):
    repo = hub.repos[MODEL] = single_file_repo()
    repo.names = ("main", "refs/pr/3")
    model = f"{MODEL}@{repo.commit if revision == 'commit' else revision}"
    folder = locate(model)["folder"]
    assert Path(folder).name == repo.commit
    hub.log.clear()
    assert locate(model)["folder"] == folder
    assert hub.log == []


def test_a_repository_without_safetensors_is_refused_before_anything_is_fetched(hub, locate):
    hub.repos[MODEL] = Repo(small_files() | {"pytorch_model.bin": b"pickle"})
    answer = locate(MODEL)
    assert answer["exit_code"] == 5
    assert answer["message"].endswith(f"{MODEL} lacks model*.safetensors")
    assert hub.fetched() == []


def test_a_model_larger_than_the_free_disk_is_refused_before_anything_is_fetched(hub, locate):
    repo = hub.repos[MODEL] = single_file_repo()
    repo.sizes_claimed = {"model.safetensors": 2**60}
    answer = locate(MODEL)
    assert answer["exit_code"] == 6
    assert f"no room to download {MODEL}: {2**20:,.2f} TiB needed" in answer["message"]
    assert hub.fetched() == []


@pytest.mark.quick
def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub, locate):
    repo = hub.repos[MODEL] = single_file_repo()
    repo.files["model.safetensors"] = b"w" * 12 * 2**20
    hub.trouble["model.safetensors"] = Trouble(after_bytes=11 * 2**20)  # the library writes 10 MiB at a time
    folder = Path(locate(MODEL)["folder"])
    assert (folder / "model.safetensors").read_bytes() == repo.files["model.safetensors"]
    ranges = [request.range for request in hub.log if request.file == "model.safetensors"]
    assert ranges == [None, f"bytes={10 * 2**20}-"]


def test_after_a_broken_download_a_second_run_fetches_only_the_rest(hub, locate):
    repo = hub.repos[MODEL] = sharded_repo()
    hub.trouble[SHARDS[1]] = Trouble(after_bytes=100_000, reset=True)
    answer = locate(MODEL)
    assert answer["exit_code"] == 4
    assert answer["message"] == f"the connection to the Hub broke during the download: {MODEL}"
    assert "run the same command again" in answer["hint"]

    hub.log.clear()
    answer = locate(MODEL)
    assert hub.fetched() == [SHARDS[1]]
    assert (Path(answer["folder"]) / SHARDS[1]).read_bytes() == repo.files[SHARDS[1]]


def test_the_weights_come_last_so_that_a_snapshot_with_them_has_the_rest(hub, locate):
    hub.repos[MODEL] = single_file_repo()
    hub.trouble["chat_template.jinja"] = Trouble(after_bytes=0, reset=True)
    assert locate(MODEL)["exit_code"] == 4
    assert "model.safetensors" not in hub.fetched()
    assert (Path(locate(MODEL)["folder"]) / "chat_template.jinja").is_file()


def test_ctrl_c_ends_a_download_at_once_and_keeps_the_files_that_are_whole(hub, tmp_path, locate):
    hub.repos[MODEL] = sharded_repo()
    hub.trouble[SHARDS[1]] = Trouble(after_bytes=100_000, trickle_s=20.0)
    process = start_locate(hub, tmp_path, MODEL)
    deadline = time.monotonic() + 10
    while not set(SHARDS) <= set(hub.fetched()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    interrupted = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - interrupted < 4
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors

    hub.log.clear()
    locate(MODEL)
    assert hub.fetched() == [SHARDS[1]]
