"""The images of a request, read within limits: of multipart/form-data, or the body as it is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header
from starlette.requests import Request

from foveate.errors import printable
from foveate.server.problems import Problem, overloaded
from foveate.server.settings import Settings

FIELD = "file"
RAW = ("application/octet-stream", "")  # and image/...
NAME = "image"  # of what has none
LONGEST = 255  # letters of a name
TAKEN = "multipart/form-data with the field 'file', or an image's bytes as image/jpeg and the like"


class Upload(NamedTuple):
    """An image as it was sent: the last part of its name, and its bytes."""

    name: str
    data: bytes


class Held:
    """The bytes of all requests that are being read and answered.

    Args:
        most: beyond them, requests are turned away.
    """

    def __init__(self, most: int):
        self.most, self.bytes = most, 0

    def take(self, n: int) -> None:
        if self.bytes + n > self.most:
            raise overloaded("the server holds as many bytes as it may; send this again later", 1)
        self.bytes += n


@asynccontextmanager
async def uploads(request: Request, settings: Settings, held: Held) -> AsyncIterator[list[Upload]]:
    """The images of a request; their bytes count as held until they are done with.

    Raises:
        Problem: 408 it came too slowly; 413 too many bytes or images; 415 it is of another type;
            422 it is malformed, or has no image; 503 too much is held already.
        ClientDisconnect: it ended early.
    """
    before = request.headers.get("content-length", "")
    if before.isdecimal() and int(before) > settings.body:
        raise too_large(settings)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "a body is taken as it is, without Content-Encoding")
    kind, options = parse_options_header(request.headers.get("content-type"))
    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > settings.body:
                raise too_large(settings)
            held.take(len(chunk))
            taken += len(chunk)
            yield chunk

    try:
        async with asyncio.timeout(settings.body_seconds):
            if kind == b"multipart/form-data":
                found = await read_parts(body(), options.get(b"boundary", b""), settings)
            elif kind.startswith(b"image/") or kind.decode("latin-1") in RAW:
                data = b"".join([chunk async for chunk in body()])
                found = [Upload(NAME, data)] if data else []
            else:
                raise Problem(415, f"a body is {TAKEN}")
        if not found:
            raise Problem(422, f"there is no image in the request: a body is {TAKEN}")
        yield found
    except TimeoutError:
        raise Problem(
            408,
            f"a request must arrive within {settings.body_seconds:g} seconds",
            {"Connection": "close"},
        ) from None
    finally:
        held.bytes -= taken


def too_large(settings: Settings) -> Problem:
    return Problem(413, f"a request may have {settings.body:,} bytes; send fewer images at once")


async def read_parts(
    body: AsyncIterator[bytes], boundary: bytes, settings: Settings
) -> list[Upload]:
    """The parts of multipart/form-data, all of which are images."""
    if not boundary:
        raise Problem(422, "multipart/form-data needs a boundary in its Content-Type")
    parts = Parts(settings.images)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_field,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_finished,
                "on_part_data": parts.part_data,
                "on_part_end": parts.end,
            },
        )
        async for chunk in body:
            parser.write(chunk)
    except FormParserError as error:
        raise Problem(422, f"the multipart/form-data is malformed: {error}") from error
    if parser.state != MultipartState.END:
        raise Problem(422, "the multipart/form-data is malformed: it ends before its last boundary")
    return parts.found


class Parts:
    """What a parser of multipart/form-data finds.

    Args:
        most: images, at most.
    """

    def __init__(self, most: int):
        self.most = most
        self.found: list[Upload] = []
        self.field, self.value = bytearray(), bytearray()  # the header that is being read
        self.name = NAME
        self.is_file = False
        self.data = bytearray()

    def begin(self) -> None:
        if len(self.found) == self.most:
            raise Problem(413, f"a request may have {self.most} images; send the rest in another")
        self.name, self.is_file, self.data = NAME, False, bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        if self.field.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self.value))
            field = options.get(b"name", b"").decode("utf-8", "replace")
            if field != FIELD:
                shown = printable(field[:LONGEST])
                raise Problem(422, f"a field is called {FIELD!r}, not {shown!r}")
            self.is_file = True
            self.name = last_part(options.get(b"filename", b"").decode("utf-8", "replace"))
        self.field, self.value = bytearray(), bytearray()

    def headers_finished(self) -> None:
        if not self.is_file:
            raise Problem(422, f"a part has no name; its field is called {FIELD!r}")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.data += data[start:end]

    def end(self) -> None:
        self.found.append(Upload(self.name, bytes(self.data)))


def last_part(name: str) -> str:
    """A file's name, without the folders that a client put before it.

    >>> last_part("../../etc/passwd"), last_part("C:\\\\photos\\\\x.jpg"), last_part("..")
    ('passwd', 'x.jpg', 'image')
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    return printable(last)[:LONGEST] if last not in ("", ".", "..") else NAME
