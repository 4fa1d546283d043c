"""Refused requests are answered with problem details (RFC 9457), whatever refuses them."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nni_hyperfd.platform import StateError
from nni_hyperfd.platform.problems import ERRORS, PROBLEMS, word_of

_logger = logging.getLogger(__name__)
_RETRY_SECONDS = 2
_CHALLENGE = 'Basic realm="HyperFD", charset="UTF-8", Bearer realm="HyperFD"'  # Chromium looks at the first only


class Refusal(HTTPException):
    """Raised wherever a request is handled, to refuse it with a word."""

    def __init__(self, word: str, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.word = word


def problem(word: str, status: int, detail: str, retry_after: int | None = None) -> JSONResponse:
    """An answer that says why a request was refused.

    Args:
        word: of the problem.
        status: of HTTP.
        detail: one sentence.
        retry_after: seconds until it may be tried again; of itself, where the server cannot answer now.
    """
    detail = detail.encode("utf-8", "backslashreplace").decode()  # it may name what a client has sent
    content = {"type": PROBLEMS + word, "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers = {}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(_RETRY_SECONDS)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = _CHALLENGE
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def add_handlers(app: FastAPI) -> None:
    """Let an application answer every error with problem details."""
    for kind, _ in ERRORS.values():
        app.add_exception_handler(kind, of_error)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _unforeseen)


def of_error(request: Request, error: Exception) -> JSONResponse:
    """The answer for an error of the platform, one of `ERRORS`."""
    word = word_of(error)
    if isinstance(error, StateError):  # its sentence is for the operator: it names files and addresses
        _logger.error("%s %s: %s", request.method, request.url.path, error)
        return problem(word, ERRORS[word][1], "the server cannot use its state now; its log says why; try again later")
    return problem(word, ERRORS[word][1], str(error))


def _of_validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # The input itself is left out: it may hold what must not be in a log or an answer.
    said = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()[:3]]
    return problem("request", HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(said))


def _of_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.word if isinstance(error, Refusal) else "request", error.status_code, str(error.detail))


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem("server", HTTPStatus.INTERNAL_SERVER_ERROR, "the server has failed; its log says why")
