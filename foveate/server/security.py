"""Who may ask: the host that is called, the page that asks, the token; and what every answer
forbids a browser."""

import hmac
import ipaddress
from collections.abc import Mapping

from starlette.types import Message, Send

from foveate.server.problems import Problem
from foveate.server.settings import Settings

# nothing from elsewhere, nothing inline, in nobody's frame
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)
# without a token: the page, which asks for it, and what watches the process
OPEN = frozenset(("/", "/docs", "/openapi.json", "/healthz", "/readyz"))
OPEN_FOLDER = "/page/"


def check_request(path: str, headers: Mapping[bytes, bytes], settings: Settings) -> None:
    """Turn away whoever may not ask.

    Raises:
        Problem: 421 it calls another host; 403 a page from elsewhere asks; 401 it has no token, or
            another one.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_ours(host, settings):
        raise Problem(
            421, "the request calls another host; foveate serve --allow-host NAME lets it in"
        )
    origin = headers.get(b"origin", b"").decode("latin-1")
    elsewhere = headers.get(b"sec-fetch-site") == b"cross-site" and path not in OPEN
    if elsewhere or (origin and origin.partition("://")[2].lower() != host.lower()):
        raise Problem(403, "a page from elsewhere may not ask this server")
    if not settings.token or path in OPEN or path.startswith(OPEN_FOLDER):
        return
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    given = token.strip() if scheme.lower() == b"bearer" else b""
    if not hmac.compare_digest(given, settings.token.encode()):
        raise Problem(
            401,
            "send the token of this server as Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )


def is_ours(host: str, settings: Settings) -> bool:
    """Whether a Host header names this server: else a name that elsewhere belongs to a stranger's
    page could be made to lead here.

    >>> is_ours("localhost:8000", Settings()), is_ours("evil.example", Settings())
    (True, False)
    >>> is_ours("[::1]:80", Settings()), is_ours("10.0.0.1", Settings(any_address=True))
    (True, True)
    """
    name, bracket, rest = host.rpartition("]")
    if bracket:
        name, port = name.removeprefix("["), rest.removeprefix(":")
    else:
        name, _, port = host.partition(":")
    if port and not port.isdecimal():
        return False
    name = name.lower().removesuffix(".")
    return name in settings.hosts or (settings.any_address and is_address(name))


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def guarded(send: Send) -> Send:
    """A `send` whose answers have the headers."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return send_with_headers
