"""What a client is told of an error: problem+json (RFC 9457), without a path of this machine."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818  # the RFC's word
    """Why a request is not answered.

    Args:
        status: of HTTP.
        detail: a sentence for whoever made the request: what was expected, and what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def body(self) -> bytes:
        title = HTTPStatus(self.status).phrase
        found = {"title": title, "status": self.status, "detail": self.detail}
        return json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")

    def response(self) -> Response:
        return Response(self.body(), self.status, self.headers, TYPE)


def overloaded(detail: str, seconds: float) -> Problem:
    """The problem of a server that has too much to do.

    Args:
        detail: of what.
        seconds: after which it is worth coming again.
    """
    return Problem(503, detail, {"Retry-After": str(max(1, min(60, round(seconds + 0.5))))})
