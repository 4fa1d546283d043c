"""What a client sends beside its calls, and what it makes of refusals."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nni_hyperfd.client.connection import Connection, token_of
from nni_hyperfd.platform import (
    AwayError,
    HeldError,
    QuotaError,
    RefusedError,
    ScopeError,
    StateError,
    TokenError,
    UnknownTaskError,
)
from nni_hyperfd.platform.problems import PROBLEMS


class Answering(BaseHTTPRequestHandler):
    """Gives the answers of its server, one after the other, and keeps what it was asked."""

    server: AnsweringServer

    def do_PUT(self) -> None:
        self.server.asked.append(dict(self.headers))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class AnsweringServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[dict[str, str]] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def connection(self, token: str | None = None) -> Connection:
        return Connection(self.address, lambda: token, retries=0)

    def refuse(self, word: str, status: int, **headers: str) -> None:
        told = {"type": PROBLEMS + word, "title": "Title", "status": status, "detail": "the detail"}
        self.answers.append(
            (status, {name.replace("_", "-"): v for name, v in headers.items()}, json.dumps(told).encode())
        )


@pytest.fixture
def server():
    with AnsweringServer() as running:
        threading.Thread(target=running.serve_forever, args=(0.05,)).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize(
    "word, status, kind, advice",
    [
        ("token", 401, TokenError, "put a valid token into HYPERFD_TOKEN"),
        ("scope", 403, ScopeError, "use a token of the scope 'client'"),
        ("held", 409, HeldError, "the detail"),
        ("quota", 429, QuotaError, "wait until earlier experiments have ended"),
        ("rate", 429, AwayError, "the detail"),
        ("protocol", 400, StateError, "install the nni_hyperfd that the server has"),
        ("state", 503, AwayError, "the detail"),
        ("server", 500, AwayError, "the detail"),
        ("unknown-task", 404, UnknownTaskError, "the detail"),
        ("too-large", 413, RefusedError, "the detail"),
        ("request", 422, RefusedError, "the detail (Title)"),
        ("of a newer server", 418, RefusedError, "the detail (Title)"),
    ],
)
def test_every_refusal_becomes_an_error_that_says_what_to_do(server, word, status, kind, advice):
    server.refuse(word, status)
    with pytest.raises(Exception, match="the detail") as error:
        server.connection("a-secret").tell("PUT", "tasks/1")
    assert type(error.value) is kind and advice in str(error.value) and "a-secret" not in str(error.value)


def test_a_server_that_asks_for_patience_is_given_it(server):
    server.refuse("rate", 429, Retry_After="17")
    with pytest.raises(AwayError) as error:
        server.connection().tell("PUT", "tasks/1")
    assert error.value.seconds == 17


@pytest.mark.parametrize("status, headers", [(200, {}), (302, {"Location": "https://login.example.org"}), (404, {})])
def test_a_page_of_something_else_is_no_acknowledgement(server, status, headers):
    server.answers.append((status, headers, b"<html>Welcome to our network</html>"))
    with pytest.raises(StateError, match=f"it answers {status} .* see that the address is that of a HyperFD server"):
        server.connection().tell("PUT", "tasks/1")


def test_what_every_request_says(server, tmp_path, monkeypatch):
    """The same holder each time; the token as it is now, whatever ~/.netrc has."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    tokens = ["first", "second", None]
    connection = Connection(server.address, lambda: tokens.pop(0), retries=0)
    server.answers += [(204, {}, b"")] * 3
    for _ in range(3):
        connection.tell("PUT", "tasks/1", "{}")
    assert [asked.get("Authorization") for asked in server.asked] == ["Bearer first", "Bearer second", None]
    assert {asked["HyperFD-Protocol"] for asked in server.asked} == {"1"}
    (holder,) = {asked["HyperFD-Holder"] for asked in server.asked}
    assert len(holder) == 32 and server.asked[0]["User-Agent"].startswith("nni-hyperfd/")


def test_the_token_comes_from_a_place_that_nobody_else_reads(tmp_path, monkeypatch):
    monkeypatch.delenv("HYPERFD_TOKEN", raising=False)
    assert token_of(None) is None
    file = tmp_path / "token"
    with pytest.raises(TokenError, match="it cannot be read"):
        token_of(file)
    file.write_text("of-the-file\n")
    file.chmod(0o640)
    with pytest.raises(TokenError, match="others may read it; run: chmod 600") as error:
        token_of(file)
    assert "of-the-file" not in str(error.value)
    file.chmod(0o600)
    assert token_of(file) == "of-the-file"
    monkeypatch.setenv("HYPERFD_TOKEN", "of-the-environment")
    assert token_of(file) == "of-the-environment"
    monkeypatch.setenv("HYPERFD_TOKEN", "two words")
    with pytest.raises(TokenError, match="HYPERFD_TOKEN: it holds no token") as error:
        token_of(file)
    assert "words" not in str(error.value)
