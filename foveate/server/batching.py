"""Images that wait: threads decode them, and one thread runs the engine on all that are decoded."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import simplejpeg

from foveate.classifier import Classifier, Outcome
from foveate.classifier.given import Decoded, Given
from foveate.data.image import JPEG, opened, reduction
from foveate.errors import FoveateError, ImageError
from foveate.server.problems import overloaded
from foveate.server.settings import Settings
from foveate.server.uploads import Upload

BATCH = 64  # images after which the engine thread looks at its results
USUAL = 0.01  # seconds an image, until some were measured


class EngineError(Exception):
    """The engine failed."""


@dataclass(eq=False)
class Order:
    """The images of a request.

    Args:
        left: how many are not yet answered.
        outcomes: one an image, in the request's order.
        loop, done: whom to tell that all are there.
    """

    left: int
    outcomes: list[Outcome | ImageError | EngineError | None]
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[None]"


@dataclass(eq=False)
class Job:
    """An image of an order.

    Args:
        order, place: where its outcome goes.
        name: of the image.
        data: its bytes, until it is decoded.
        decoded: then its pixels, or why there are none.
    """

    order: Order
    place: int
    name: str
    data: bytes
    decoded: Decoded = field(default=())


class Batcher:
    """Classifies images of many requests together.

    Args:
        classifier: whose engine is ready.
        settings: of what may wait.
        threads: that decode.
    """

    def __init__(self, classifier: Classifier, settings: Settings, threads: int):
        self.classifier, self.settings = classifier, settings
        self.waiting = 0  # images; only the event loop counts
        self.seconds = USUAL  # an image, of late
        self.failures = 0
        self.todo: SimpleQueue[Job | None] = SimpleQueue()
        self.ready: SimpleQueue[Job | None] = SimpleQueue()
        self.decoders = [
            Thread(target=self.decode, name=f"decoder-{i}", daemon=True) for i in range(threads)
        ]
        self.runner = Thread(target=self.run, name="engine", daemon=True)
        for thread in (*self.decoders, self.runner):
            thread.start()

    @property
    def alive(self) -> bool:
        return self.runner.is_alive()

    def check_room(self, images: int = 1) -> None:
        """Problem (503) if so many images more would be too many."""
        if self.waiting + images > self.settings.waiting:
            raise overloaded(
                f"{self.waiting} images wait, and {self.settings.waiting} may; send these again",
                self.waiting * self.seconds,
            )

    async def outcomes(self, uploads: list[Upload]) -> list[Outcome | ImageError]:
        """What each image is.

        Raises:
            Problem: 503, as many images wait as may.
            EngineError: the engine failed.
        """
        n = len(uploads)
        self.check_room(n)
        loop = asyncio.get_running_loop()
        order = Order(n, [None] * n, loop, loop.create_future())
        self.waiting += n
        begin = time.perf_counter()
        try:
            for place, upload in enumerate(uploads):
                self.todo.put(Job(order, place, upload.name, upload.data))
            uploads.clear()  # the bytes go as soon as they are decoded
            await order.done
        finally:
            self.waiting -= n
        per_image = (time.perf_counter() - begin) / (self.waiting + n)
        self.seconds += 0.05 * (per_image - self.seconds)
        found: list[Outcome | ImageError] = []
        for outcome in order.outcomes:
            if outcome is None or isinstance(outcome, EngineError):
                raise outcome or EngineError("an image was lost")
            found.append(outcome)
        return found

    def close(self) -> None:
        """End the threads, after all that waits."""
        for _ in self.decoders:
            self.todo.put(None)
        for thread in self.decoders:
            thread.join()
        self.ready.put(None)
        self.runner.join()

    def decode(self) -> None:
        """The loop of a thread."""
        preprocess = self.classifier.preprocess
        while (job := self.todo.get()) is not None:
            try:
                check_pixels(job.data, job.name, preprocess.resize, self.settings.pixels)
                job.decoded = Given(job.name, job.data).squares(preprocess)
            except ImageError as error:
                job.decoded = error
            except Exception as error:  # whatever it is, it is of this image
                kind = type(error).__name__
                job.decoded = ImageError(f"image {job.name!r} cannot be used ({kind})")
            job.data = b""
            self.ready.put(job)

    def run(self) -> None:
        """The loop of the engine's thread."""
        while (first := self.ready.get()) is not None:
            taken: deque[Job] = deque()
            try:
                for job, outcome in self.classifier.outcomes(self.batch(first, taken)):
                    taken.popleft()
                    finish(job, outcome)
            except Exception as error:
                self.failures += 1
                for job in taken:
                    finish(job, EngineError(type(error).__name__))

    def batch(self, first: Job, taken: deque[Job]) -> Iterator[tuple[Job, Decoded]]:
        """The first image, and those that are decoded by the time the engine can take them."""
        job: Job | None = first
        while job is not None:
            taken.append(job)
            number = len(taken)
            yield job, job.decoded
            if number >= BATCH:
                return
            try:
                job = self.ready.get_nowait()
            except Empty:
                return
        self.ready.put(None)  # the end, which is not of this batch


def finish(job: Job, outcome: Outcome | ImageError | EngineError) -> None:
    """Note an image's outcome; called by the engine's thread alone."""
    order = job.order
    order.outcomes[job.place] = outcome
    order.left -= 1
    if order.left == 0:
        order.loop.call_soon_threadsafe(tell, order.done)


def tell(done: "asyncio.Future[Any]") -> None:
    if not done.done():  # whoever waited may have been cancelled
        done.set_result(None)


def check_pixels(data: bytes, name: str, short_side: int, most: int) -> None:
    """ImageError if an image would have too many pixels in memory."""
    try:
        if data.startswith(JPEG):
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            scale = reduction(data, short_side) or 1
            pixels = height * width // scale**2
        else:
            width, height = opened(data, name).size
            pixels = width * height
    except (FoveateError, MemoryError):
        raise
    except Exception:  # decoding says what is wrong with it
        return
    if pixels > most:
        raise ImageError(
            f"image {name!r} has {width}x{height} pixels, and this server decodes {most:,}; make "
            "it smaller"
        )
