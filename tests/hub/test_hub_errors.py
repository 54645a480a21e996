"""Tests the messages for errors of the Hub, the network or the disk."""

import errno
import os
from functools import partial

import pytest
from hub_process import MODEL, put_in_cache, run_locate, single_file_repo, small_files
from hub_server import Repo, running_hub

from metal_gen.hub.download import download_checkpoint
from metal_gen.hub.errors import explain_hub_error
from metal_gen.hub.reference import HubModel


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def locate(hub, tmp_path):
    return partial(run_locate, hub, tmp_path)


def test_a_typo_names_near_matches_in_the_cache(hub, locate, tmp_path):
    put_in_cache(tmp_path, single_file_repo(), ["config.json"])
    answer = locate("org/Qwen3-tinny")
    assert answer["exit_code"] == 4
    assert answer["message"] == "no such model on the Hub, or a private one: org/Qwen3-tinny"
    assert answer["hint"].startswith(f"in the cache: {MODEL}; check the spelling")


def test_a_private_model_asks_for_a_login(hub, locate):
    hub.repos[MODEL] = Repo({}, private=True)
    answer = locate(MODEL)
    assert answer["message"] == f"no such model on the Hub, or a private one: {MODEL}"
    assert "hf auth login" in answer["hint"]


def test_a_token_that_is_not_accepted(hub, locate):
    hub.status, hub.error_message = 401, "Invalid credentials in Authorization header"
    answer = locate(MODEL, HF_TOKEN="hf_wrong")
    assert answer["exit_code"] == 4
    assert answer["message"] == f"the Hub does not accept the token: {MODEL}"
    assert "HF_TOKEN" in answer["hint"]
    assert "hf_wrong" not in str(answer)


@pytest.mark.quick
def test_a_gated_model_names_its_page(hub, locate):
    hub.repos[MODEL] = Repo(small_files() | {"model.safetensors": b"w"}, gated=True)
    answer = locate(MODEL)
    assert answer["exit_code"] == 4
    assert answer["message"] == f"access to a gated model refused: {MODEL}"
    assert f"{hub.endpoint}/{MODEL}" in answer["hint"]
    assert "hf auth login" in answer["hint"]


def test_a_revision_that_is_not_there(hub, locate):
    hub.repos[MODEL] = single_file_repo()
    answer = locate(f"{MODEL}@v9")
    assert answer["exit_code"] == 4
    assert answer["message"] == f"no such revision on the Hub: {MODEL}@v9"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "HTTP 400"),
        (401, "no such model"),
        (403, "no access"),
        (418, "HTTP 418"),
        (429, "too many requests"),
        (503, "HTTP 503"),
    ],
)
def test_refusals_of_the_hub_become_sentences(hub, locate, status, said):
    hub.status = status
    answer = locate(MODEL)
    assert answer["exit_code"] == 4
    assert said in answer["message"]
    assert answer["hint"]


@pytest.mark.quick
def test_a_hub_that_does_not_answer(locate):
    answer = locate(MODEL, HF_ENDPOINT="http://127.0.0.1:9")
    assert answer["exit_code"] == 4
    assert answer["message"] == "the Hub cannot be reached: http://127.0.0.1:9"
    assert "HF_ENDPOINT" in answer["hint"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 6, "the disk became full"),
        (RuntimeError("Task error: No space left on device (os error 28)"), 6, "the disk became full"),
        (OSError("Consistency check failed: file should be of size 2 but has size 1"), 4, "connection"),
        (RuntimeError("Task error: CAS Client Error: error sending request"), 4, "connection"),
    ],
)
def test_errors_of_disk_and_transfer_become_sentences(error, exit_code, said):
    known = explain_hub_error(error, HubModel("org/name"))
    assert known.exit_code == exit_code
    assert said in known.message
    assert known.hint


def test_the_hint_mentions_kept_files_only_if_files_are_kept():
    error, model = RuntimeError("Task error: CAS Client Error: x"), HubModel("org/name")
    assert "complete files are kept" in explain_hub_error(error, model).hint
    of_headers = explain_hub_error(error, model, keeps_files=False)
    assert "kept" not in of_headers.hint
    assert "download" not in of_headers.message


@pytest.mark.quick
@pytest.mark.parametrize("error", [RuntimeError("x"), OSError("x"), BrokenPipeError(32, "x"), KeyError("x")])
def test_what_is_not_known_is_not_explained(error):
    assert explain_hub_error(error, HubModel("org/name")) is None


@pytest.mark.quick
def test_an_unexpected_exception_keeps_its_traceback(monkeypatch):
    def fail(*_):
        raise KeyError("x")

    monkeypatch.setattr("metal_gen.hub.download.plan_download", fail)
    with pytest.raises(KeyError, match="x"):
        download_checkpoint(HubModel(MODEL), None)
