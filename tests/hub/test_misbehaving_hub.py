"""Tests a server that is not a Hub: its answers cannot escape the cache, hang, or cause a traceback."""

import itertools
import json
import time
from pathlib import Path

import pytest
from hub_process import INDEX, MODEL, SHARDS, sharded_repo
from hub_server import Answer, running_hub
from huggingface_hub import constants

from metal_gen.errors import MetalGenError
from metal_gen.hub import watch
from metal_gen.hub.answers import read_listing
from metal_gen.hub.locate import borrowed_headers, pull_checkpoint
from metal_gen.hub.reference import HubModel
from metal_gen.hub.session import check_headers

COMMIT = sharded_repo().commit
OUTSIDE_NAMES = [
    "/home/you/.bashrc",
    "../../../x",
    "sub/model.safetensors",
    "a\\b",
    "a\0b",
    "..",
    "",
    "x" * 300,
]


@pytest.fixture(scope="module")
def server():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """Start the server for this process; the cache is nested deep in the test's folder."""
    url = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "a" / "b" / "c" / "d" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    point_to(server.endpoint, url, monkeypatch)
    server.repos = {MODEL: sharded_repo()}
    server.instead, server.file_headers, server.log = lambda request: None, {}, []
    return server


def point_to(endpoint, url, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + url)


def pull():
    pull_checkpoint(MODEL)


def read_headers():
    with borrowed_headers(MODEL):
        pass


def refusal_of(ask):
    with pytest.raises(MetalGenError) as caught:
        ask()
    assert caught.value.exit_code in (3, 4, 5)
    assert caught.value.hint
    assert len(caught.value.message) < 500
    return caught.value.message


def outside_of_cache(folder):
    """Return the files outside the cache, or linked to from within it."""
    cache = Path(constants.HF_HUB_CACHE)
    found = [path for path in folder.rglob("*") if not (path.is_relative_to(cache) or path in cache.parents)]
    links = [path for path in cache.rglob("*") if path.is_symlink()]
    return found + [link for link in links if not link.resolve().is_relative_to(cache)]


def listing(**fields):
    files = [{"rfilename": name, "size": len(data)} for name, data in sharded_repo().files.items()]
    return {"sha": COMMIT, "siblings": files} | fields


def only_file(**fields):
    return listing(siblings=[{"rfilename": "config.json"} | fields])


# Names


@pytest.mark.parametrize("ask", [pull, read_headers])
@pytest.mark.parametrize("name", OUTSIDE_NAMES)
def test_an_index_that_names_a_file_elsewhere_is_refused(hub, tmp_path, ask, name):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    name = str(victim) if name.startswith("/") else name
    hub.repos[MODEL].files[name] = b"touch /tmp/owned"
    hub.repos[MODEL].files[INDEX] = json.dumps({"weight_map": {"a": name}}).encode()
    assert "names a file outside its folder" in refusal_of(ask)
    assert victim.read_text() == "mine"
    assert outside_of_cache(tmp_path) == [victim]


@pytest.mark.parametrize("sha", ["/x/evil", "../../../evil", "a" * 300, "a\0", COMMIT.upper(), "", 5, None])
@pytest.mark.parametrize("ask", [pull, read_headers])
def test_an_invalid_commit_is_refused_before_anything_is_fetched(hub, tmp_path, ask, sha):
    hub.instead = lambda request: Answer(body=json.dumps(listing(sha=sha)).encode())
    assert "names no commit" in refusal_of(ask)
    assert hub.fetched() == []
    assert outside_of_cache(tmp_path) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": "/x/evil"},
        {"ETag": '"../../../../evil"'},
        {"ETag": 'W/"../../evil"'},
        {"X-Linked-Etag": '"/x/evil"'},
        {"X-Repo-Commit": "../../../evil"},
    ],
)
def test_headers_that_would_lead_out_of_the_cache_are_refused(hub, tmp_path, headers):
    hub.file_headers = headers
    assert "cannot be used: it names a" in refusal_of(pull)
    assert outside_of_cache(tmp_path) == []
    assert not Path("/x/evil").exists()


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("HEAD", {"ETag": ""}),
        ("HEAD", {"ETag": '".."'}),
        ("HEAD", {"ETag": "a" * 300}),
        ("HEAD", {"X-Xet-Hash": "../../x"}),
        ("GET", {"X-Repo-Commit": "main"}),
        ("GET", {"Content-Range": "bytes x"}),
        ("GET", {"Content-Range": "bytes 0-1/" + "9" * 5000}),
        ("GET", {"Location": "http://[::"}),
    ],
)
def test_headers_that_make_no_sense(method, headers):
    with pytest.raises(MetalGenError, match="cannot be used"):
        check_headers(method, 200, headers)


def test_headers_of_the_hub_and_its_storage_pass():
    tag = '"5e2c-6a0f"'
    check_headers("HEAD", 302, {"ETag": tag, "X-Linked-Etag": f'"{"a" * 64}"', "X-Repo-Commit": COMMIT})
    check_headers("HEAD", 200, {"ETag": f"W/{tag}", "X-Xet-Hash": "0f" * 32, "Location": "/a?b=%20"})
    check_headers("GET", 206, {"ETag": '"d/e+f="', "Content-Range": "bytes 5-9/10"})
    check_headers("GET", 416, {"Content-Range": "bytes */10"})


def test_a_path_that_redirects_nobody_is_ignored():
    """The library would take it for the address of the file."""
    answer = {"Location": "/c0ffee"}
    check_headers("HEAD", 200, answer)
    assert answer == {}
    for kept in ({"Location": "/c0ffee"}, {"Location": "https://a.example/c0ffee"}):
        check_headers("HEAD", 302, kept)
        assert kept


def test_unreasonable_waiting_times_are_ignored():
    headers = {"Retry-After": "9" * 5000, "RateLimit": f'"api";r=0;t={"9" * 5000}', "RateLimit-Policy": "q=5"}
    check_headers("GET", 429, headers)
    assert headers == {"RateLimit-Policy": "q=5"}


# Listings


@pytest.mark.parametrize(
    "body",
    [
        *["null", "[]", "5", '"x"', "{}", "", "<html>", "[" * 200_000, '{"sha": ' + "9" * 5000 + "}"],
        *[listing(siblings=files) for files in (None, "x", {}, [1], [None])],
        *[only_file(size=size) for size in ("5", -1, 1.5, 2**61, True, [], 10**30)],
        b"\xff\xfe",
    ],
    ids=lambda body: str(body)[:30],
)
def test_a_listing_that_is_none(body, monkeypatch):
    content = json.dumps(body) if isinstance(body, dict) else body
    content = content.encode() if isinstance(content, str) else content
    monkeypatch.setattr("metal_gen.hub.answers.fetch", lambda url, most_bytes: content)
    with pytest.raises(MetalGenError, match="cannot be used: it"):
        read_listing(HubModel(MODEL))


def test_files_that_could_not_be_taken_are_left_out_of_a_listing(monkeypatch):
    names = [*OUTSIDE_NAMES, 5, None, ["x"], "config.json"]
    content = json.dumps(listing(siblings=[{"rfilename": name} for name in names])).encode()
    monkeypatch.setattr("metal_gen.hub.answers.fetch", lambda url, most_bytes: content)
    assert read_listing(HubModel(MODEL)).sizes == {"config.json": None}


def test_sizes_need_not_be_said(hub):
    files = [{"rfilename": name} for name in sharded_repo().files]
    content = json.dumps(listing(siblings=files)).encode()
    hub.instead = lambda request: Answer(body=content) if request.path.startswith("/api/") else None
    with borrowed_headers(MODEL) as folder:
        sizes = {name: (folder / name).stat().st_size for name in SHARDS}
    assert sizes == {name: len(hub.repos[MODEL].files[name]) for name in SHARDS}
    progress = []
    folder = pull_checkpoint(MODEL, on_progress=progress.append)
    assert (folder / SHARDS[0]).read_bytes() == hub.repos[MODEL].files[SHARDS[0]]
    assert progress[0].done_bytes < progress[-1].done_bytes == progress[-1].total_bytes


# Answers


@pytest.mark.parametrize("ask", [pull, read_headers])
@pytest.mark.parametrize("body", [b"[]", b'{"errors": 5}', b"[" * 100_000, itertools.repeat(b"x" * 65536)])
def test_the_body_of_a_refusal_does_not_matter(hub, ask, body):
    in_files = lambda request: "/resolve/" in request.path and request.method == "GET"  # noqa: E731
    hub.instead = lambda request: Answer(410, body=body) if in_files(request) else None
    assert "refuses with HTTP 410" in refusal_of(ask)


def test_a_circle_of_redirects(hub):
    hub.instead = lambda request: Answer(302, {"Location": request.path})
    assert "redirects in a loop" in refusal_of(pull)


def test_a_listing_without_an_end(hub):
    hub.instead = lambda request: Answer(body=itertools.repeat(b" " * 65536))
    assert "more than 32.0 MiB" in refusal_of(read_headers)


@pytest.mark.parametrize(("ask", "place"), [(pull, "/api/"), (read_headers, "/api/"), (pull, "/resolve/")])
def test_a_byte_now_and_then(hub, ask, place, monkeypatch):
    def drip():
        while True:
            time.sleep(0.02)
            yield b" "

    monkeypatch.setattr(watch, "WINDOW_S", 0.5)
    monkeypatch.setattr(watch, "LOOK_S", 0.1)
    headers = {"ETag": '"a"', "X-Repo-Commit": COMMIT}
    hub.instead = lambda request: (
        Answer(200, headers, drip()) if place in request.path and request.method == "GET" else None
    )
    assert "sends too slowly" in refusal_of(ask)


@pytest.mark.parametrize("ask", [pull, read_headers])
@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:99999", "http://[::", "x", "ftp://x", "http://a..b", "http://you:secret@[::1"],
)
def test_an_address_that_is_none(hub, ask, endpoint, monkeypatch):
    point_to(endpoint, "/{repo_id}/resolve/{revision}/{filename}", monkeypatch)
    assert "secret" not in refusal_of(ask)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HF_TOKEN", "hf_ü", "the token contains invalid characters"),
        ("HF_HUB_ETAG_TIMEOUT", "x", "HF_HUB_ETAG_TIMEOUT must be a number of seconds: x"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "9" * 30, "HF_HUB_DOWNLOAD_TIMEOUT must be a number of seconds"),
        ("ALL_PROXY", "foo://x", "cannot be set up"),
        ("SSL_CERT_FILE", "/nowhere", "cannot be set up"),
    ],
)
@pytest.mark.parametrize("ask", [pull, read_headers])
def test_an_environment_that_makes_no_sense(hub, ask, name, value, said, monkeypatch):
    monkeypatch.setenv(name, value)
    message = refusal_of(ask)
    assert said in message
    assert "hf_" not in message
