"""Connections that wait for no client for ever, and a server that ends when what it has accepted is
answered."""

import asyncio
import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from foveate.errors import FoveateError, UsageError
from foveate.server.problems import TYPE, Problem, overloaded
from foveate.server.security import HEADERS
from foveate.server.settings import Settings

LINGER = 5.0  # seconds in which the rest of a body that was refused is thrown away
HEAD = 16 << 10  # bytes of a request's head, at most
IDLE = 5  # seconds that a connection may wait for its next request
ARRIVING = 0.05  # seconds in which what has reached this machine is read, before it stops
BACKLOG = 2048  # connections that the system accepts before the server does
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Connection(H11Protocol):
    """uvicorn's, with a time limit for whatever the client has to do."""

    def __init__(self, config: uvicorn.Config, *others: Any, **named: Any):
        super().__init__(config, *others, **named)
        app: Any = config.app  # an App; uvicorn takes names of modules, too
        self.settings: Settings = app.settings
        self.head_timer: asyncio.TimerHandle | None = None
        self.write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # an asyncio.Transport
        super().connection_made(transport)
        if len(self.connections) > self.settings.connections:
            problem = overloaded("the server has as many connections as it may", 1)
            self.refuse(problem)
            return
        self.head_timer = self.limit(self.settings.head_seconds)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_refusing:
            return  # the rest of a body, which nobody reads
        if self.conn.their_state is not h11.IDLE:
            self.stop_head()
        elif self.head_timer is None:
            self.head_timer = self.limit(self.settings.head_seconds)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():  # once the client has taken what it was sent
            self.start_write()
        elif self.is_refusing:
            self.stop_head()
            self.head_timer = self.limit(LINGER)

    @property
    def is_refusing(self) -> bool:
        """Whether the request was answered before all of it was here."""
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def pause_writing(self) -> None:
        super().pause_writing()
        self.start_write()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stop_write()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.start_write()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_head()
        self.stop_write()
        super().connection_lost(exc)

    def limit(self, seconds: float) -> asyncio.TimerHandle:
        """End the connection after so many seconds."""
        return self.loop.call_later(seconds, self.transport.abort)

    def stop_head(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def start_write(self) -> None:
        self.stop_write()
        self.write_timer = self.limit(self.settings.write_seconds)

    def stop_write(self) -> None:
        if self.write_timer is not None:
            self.write_timer.cancel()
            self.write_timer = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self.refuse(Problem(400, "this is no request of HTTP/1.1"))

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem, and close."""
        body = problem.body()
        headers = [
            (b"content-type", TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
            *HEADERS,
        ]
        parts = (
            h11.Response(status_code=problem.status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        try:
            for part in parts:
                self.transport.write(self.conn.send(part) or b"")
        except h11.LocalProtocolError:  # an answer had begun
            self.transport.abort()
        self.transport.close()
        self.start_write()


class GracefulServer(uvicorn.Server):
    """uvicorn's, which on SIGTERM or Ctrl-C answers what it has accepted, and returns; on a second
    signal at once.

    Attributes:
        forced: the second signal; 0 if there was none.
    """

    forced = 0

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():  # whose signals are not ours
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit, self.forced = True, sig
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.sleep(ARRIVING)
        await super().shutdown(sockets)


def http_server(app: Any) -> GracefulServer:
    """A server of an App.

    Args:
        app: that has `settings`.
    """
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE,
        h11_max_incomplete_event_size=HEAD,
    )
    return GracefulServer(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any that is free.

    Raises:
        UsageError: no such host.
        FoveateError: the port is in use, or not ours.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"this machine has no address {host!r}: {error}") from error
    family, _, _, _, address = found[0]
    # with the protocol named, asyncio sends what is written at once (TCP_NODELAY); else the body of
    # an answer waits 40 ms for the head to be acknowledged
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address[:2])
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise FoveateError(
            f"port {port} of {host} cannot be had ({error.strerror}); choose another --port, or 0 "
            "for any that is free"
        ) from error
    return listener


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback
