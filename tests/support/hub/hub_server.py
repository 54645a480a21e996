"""A stand-in for the Hub on 127.0.0.1: model info, file tree, downloads with ranges, and its refusals."""

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<kind>revision|tree)/(?P<revision>[^/]+))?/?")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


@dataclass
class Repo:
    files: dict[str, bytes]
    commit: str = "c0ffee" + "0" * 34
    names: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False
    sizes_claimed: dict[str, int] = field(default_factory=dict)

    def size(self, name: str) -> int:
        return self.sizes_claimed.get(name, len(self.files[name]))


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None

    @property
    def file(self) -> str | None:
        """File that this request fetches, if any."""
        match = FILE.fullmatch(self.path)
        return match["name"] if match and self.method == "GET" else None


@dataclass
class Trouble:
    """A fault of one file: after how many bytes, how often, and what it is.

    What follows the first bytes trickles for a while; then the connection is closed, or reset.
    """

    after_bytes: int
    times: int = 1
    reset: bool = False
    trickle_s: float = 0.0


@dataclass(frozen=True)
class Answer:
    """An answer of a server that is not a Hub.

    A body that is no bytes is sent piece by piece, without a length, and the connection closed at its end.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.trouble: dict[str, Trouble] = {}
        self.status: int | None = None
        self.error_message = ""
        # Asked first; None leaves the answer to the Hub.
        self.instead: Callable[[Request], Answer | None] = lambda request: None
        # Headers added to those of files; None removes one.
        self.file_headers: dict[str, str | None] = {}
        self.log: list[Request] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str]:
        """Files fetched since the log was last cleared."""
        return [request.file for request in self.log if request.file is not None]

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that disconnect, which is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/agent-harnesses"):  # the library's own statistics
            return self.refuse(404)
        self.server.log.append(Request(self.command, path, self.headers.get("Range")))
        instead = self.server.instead(self.server.log[-1])
        if instead is not None:
            return self.answer_instead(instead)
        if self.server.status is not None:
            return self.refuse(self.server.status)
        raw_path = urlsplit(self.path).path
        match = API.fullmatch(raw_path) or FILE.fullmatch(raw_path)
        parts = {key: unquote(value) for key, value in match.groupdict().items() if value} if match else {}
        repo = self.server.repos.get(parts.get("repo", ""))
        if repo is None:
            return self.refuse(404, "RepoNotFound")
        if repo.private:
            return self.refuse(401)
        if parts.get("revision", "main") not in (*repo.names, repo.commit):
            return self.refuse(404, "RevisionNotFound")
        if "name" not in parts:
            return self.answer_api(parts["repo"], repo, parts.get("kind"))
        if repo.gated:
            return self.refuse(403, "GatedRepo")
        if parts["name"] not in repo.files:
            return self.refuse(404, "EntryNotFound")
        return self.answer_file(repo, parts["name"])

    def answer_api(self, repo_id: str, repo: Repo, kind: str | None) -> None:
        entries = [(name, repo.size(name), sha1(data).hexdigest()) for name, data in repo.files.items()]
        if kind == "tree":
            body = [{"type": "file", "path": name, "size": size, "oid": oid} for name, size, oid in entries]
        else:
            siblings = [{"rfilename": name, "size": size, "blobId": oid} for name, size, oid in entries]
            body = {"id": repo_id, "sha": repo.commit, "siblings": siblings}
        self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def answer_file(self, repo: Repo, name: str) -> None:
        data = repo.files[name]
        headers = {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": repo.commit}
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers |= self.server.file_headers
        headers = {name: value for name, value in headers.items() if value is not None}
        trouble = self.server.trouble.get(name)
        if trouble and trouble.times and self.command == "GET":
            trouble.times -= 1
            return self.answer_in_part(data[start:], headers, trouble)
        return self.answer(206 if wanted else 200, data[start:], headers)

    def answer_instead(self, answer: Answer) -> None:
        if isinstance(answer.body, bytes):
            return self.answer(answer.status, answer.body, answer.headers)
        self.send_response(answer.status)
        for key, value in {**answer.headers, "Connection": "close"}.items():
            self.send_header(key, value)
        self.end_headers()
        for piece in answer.body:
            self.wfile.write(piece)
        self.close_connection = True
        return None

    def answer_in_part(self, data: bytes, headers: dict[str, str], trouble: Trouble) -> None:
        self.answer(200, data[: trouble.after_bytes], headers, len(data))
        deadline = time.monotonic() + trouble.trickle_s
        for start in range(trouble.after_bytes, len(data), 100):
            if time.monotonic() > deadline:
                break
            self.wfile.write(data[start : start + 100])
            time.sleep(0.05)
        if trouble.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def refuse(self, status: int, code: str | None = None) -> None:
        headers = {"X-Error-Code": code or "", "X-Error-Message": self.server.error_message}
        self.answer(status, b"", {key: value for key, value in headers.items() if value})

    def answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args) -> None:
        """Keep the test's stderr clean."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve on a free port until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
