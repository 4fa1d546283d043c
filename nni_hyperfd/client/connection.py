"""One server and how it is asked: address, token, certificates; refusals as the errors that they stand for."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import requests
from pydantic import ValidationError
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from nni_hyperfd.platform import AwayError, QuotaError, RefusedError, ScopeError, StateError, TokenError, messages
from nni_hyperfd.platform.problems import ERRORS, PROBLEMS
from nni_hyperfd.platform.protocol import HOLDER_HEADER, VERSION, VERSION_HEADER

TOKEN_VARIABLE = "HYPERFD_TOKEN"

_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 300  # an answer may wait for a ranking, or for learning
_AWAY = (429, 500, 502, 503, 504)
"""Of the server, or of a proxy for a server that is away: nothing that another attempt could not mend."""
_ADVICE: dict[type[Exception], str] = {
    TokenError: f"put a valid token into {TOKEN_VARIABLE}, or into the file that token_file names; 'hyperfd tenant "
    "rotate' on the server makes a new one",
    ScopeError: "use a token of the scope 'client'",
    QuotaError: "wait until earlier experiments have ended, or ask the operator for a larger quota",
}


class AddressError(ValueError):
    """The address of a server cannot be used; the message says why."""


def checked_address(address: str) -> str:
    """An address without a slash at its end.

    Raises:
        AddressError: it is none, or a token sent there could be read on the way.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AddressError(f"{address!r} is no address such as 'https://hyperfd.example.org'")
    if parts.username is not None or parts.password is not None:
        raise AddressError(f"names and passwords do not belong into the address; the token goes into {TOKEN_VARIABLE}")
    if parts.query or parts.fragment:
        raise AddressError(f"{address!r} must end with its host, port or path")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise AddressError(f"{address!r} would send the token and the results in the clear; use https://")
    return address.rstrip("/")


def token_of(file: Path | None) -> str | None:
    """The token: of the environment variable HYPERFD_TOKEN, or else of a file; None where neither is named.

    Raises:
        TokenError: the file cannot be read, others may read it, or it holds no token.
    """
    source, text = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE)
    if not text:
        if file is None:
            return None
        source, text = f"token_file {file}", _private_text(file)
    token = text.strip()
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise TokenError(f"{source}: it holds no token; put the one line in that 'hyperfd tenant add' has printed")
    return token


class Connection:
    """A server.

    Args:
        address: such as ``https://hyperfd.example.org``.
        token: asked before every request, so that a file may be given another one; None for no token.
        ca_file: certificates that the server's is checked against, in place of the system's.
        retries: how often a request is sent again whose answer does not come, with growing pauses. Every request may
            be repeated, POST included.
    """

    def __init__(
        self, address: str, token: Callable[[], str | None], ca_file: Path | None = None, retries: int = 6
    ) -> None:
        self.address = address.rstrip("/")
        self._token = token
        self._session = requests.Session()
        again = Retry(
            retries,
            status_forcelist=(502, 503, 504),
            allowed_methods=None,
            backoff_factor=0.25,
            raise_on_status=False,
            respect_retry_after_header=False,  # it may name hours
        )
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=again))
        own = {VERSION_HEADER: str(VERSION), HOLDER_HEADER: uuid4().hex}
        self._session.headers.update(own | {"User-Agent": f"nni-hyperfd/{_version()}"})
        self._session.auth = self._authorize  # in its absence requests would take a password of ~/.netrc
        self._verify = True if ca_file is None else str(ca_file)

    def send(self, method: str, place: str, body: str | None = None) -> requests.Response:
        """Send a request.

        Args:
            method: of HTTP.
            place: below ``/v1/``.
            body: a JSON object, or None.

        Raises:
            AwayError: it cannot be reached or cannot work now.
            RefusedError: it refuses the request for good; most refusals have an error of their own (`ERRORS`).
            StateError: what answers is no such server.
        """
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            response = self._session.request(
                method,
                f"{self.address}/v1/{place}",
                data=None if body is None else body.encode(),
                headers=headers,
                timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
                allow_redirects=False,
                verify=self._verify,  # of the session it would give way to REQUESTS_CA_BUNDLE
            )
        except requests.exceptions.SSLError as error:
            raise StateError(
                f"platform {self.address}: its certificate is not trusted ({error}); name the file of the authority "
                "that signed it as ca_file"
            ) from None
        except (requests.RequestException, OSError) as error:
            raise AwayError(
                f"platform {self.address}: it cannot be reached ({error}); see that the address is right and the "
                "server runs"
            ) from None
        if not 200 <= response.status_code < 300:
            raise self._error(response)
        return response

    def tell(self, method: str, place: str, body: str | None = None) -> None:
        """Send a request that changes something and has no answer.

        Raises:
            AwayError, RefusedError, StateError: as `send`.
        """
        response = self.send(method, place, body)
        if response.status_code != requests.codes.no_content:  # such as the page of a network's entry
            raise self._no_server(response)

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        token = self._token()
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    def _error(self, response: requests.Response) -> Exception:
        """The error that a refusal stands for."""
        try:
            told = messages.Problem.model_validate_json(response.content)
        except ValidationError:
            if response.status_code in _AWAY:
                return AwayError(f"platform {self.address}: it answers {response.status_code} {response.reason}")
            return self._no_server(response)
        word = told.type.removeprefix(PROBLEMS)
        kind, _ = ERRORS.get(word, (RefusedError, 0))
        said = f"platform {self.address}: {told.detail}"
        if response.status_code in _AWAY and kind is not QuotaError:
            return AwayError(said, _seconds(response.headers.get("Retry-After")))
        if word == "protocol":
            return StateError(f"{said}; install the nni_hyperfd that the server has")
        if word not in ERRORS:
            return RefusedError(f"{said} ({told.title})")
        advice = _ADVICE.get(kind)
        return kind(told.detail if advice is None else f"{said}; {advice}")

    def _no_server(self, response: requests.Response) -> StateError:
        return StateError(
            f"platform {self.address}: it answers {response.status_code} {response.reason} and no reason; see that the "
            "address is that of a HyperFD server"
        )


def _version() -> str:
    try:
        return metadata.version("nni-hyperfd")
    except metadata.PackageNotFoundError:  # run from its source
        return "unknown"


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None


def _private_text(file: Path) -> str:
    """The text of a file that nobody else may read."""
    try:
        mode = file.stat().st_mode
        text = file.read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise TokenError(f"token_file {file}: it cannot be read ({reason})") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TokenError(f"token_file {file}: others may read it; run: chmod 600 {file}")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
