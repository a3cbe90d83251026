"""What a server may be asked, by whom, and how much at once."""

from dataclasses import dataclass

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Settings:
    """How a classifier is served.

    Args:
        token: that requests must bring; "" for none.
        hosts: names by which clients may call it.
        any_address: whether they may call it by any address, in place of a name.
        show_training: whether it names training images.
        body: bytes of one request, at most.
        images: of one request, at most.
        pixels: of one image, once it is decoded, at most; of a JPEG at the scale that is needed.
        waiting: images that are accepted and not yet answered, of all requests, at most.
        held: bytes of requests that are being read and answered, at most.
        connections: at once, at most.
        head_seconds: in which the head of a request must arrive.
        body_seconds: in which all of it must.
        write_seconds: in which a client must take what it is sent.
    """

    token: str = ""
    hosts: tuple[str, ...] = LOCAL_NAMES
    any_address: bool = False
    show_training: bool = False
    body: int = 32 << 20
    images: int = 64
    pixels: int = 64_000_000
    waiting: int = 256
    held: int = 256 << 20
    connections: int = 1000
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    write_seconds: float = 30.0
