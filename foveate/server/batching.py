"""Images that wait: threads decode them, and whichever finds a stream of the engine free runs all
that are decoded."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import Any

import simplejpeg

from foveate.classifier import Classifier, Outcome
from foveate.classifier.given import Decoded, Given
from foveate.data.image import JPEG, jpeg_scale, opened
from foveate.errors import FoveateError, ImageError
from foveate.server.problems import overloaded
from foveate.server.settings import Settings
from foveate.server.uploads import Upload

BATCH = 64  # images after which a thread looks at the results
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
        threads: cores to use, as many as the engine has streams.
    """

    def __init__(self, classifier: Classifier, settings: Settings, threads: int):
        self.classifier, self.settings = classifier, settings
        self.waiting = 0  # images; only the event loop counts
        self.seconds = USUAL  # an image, of late
        self.failures = 0
        self.todo: SimpleQueue[Job | None] = SimpleQueue()
        self.ready: deque[Job] = deque()
        # as many may use the engine as it has streams, and as many decode
        self.engine, self.noting = Semaphore(threads), Lock()
        self.threads = [
            Thread(target=self.work, name=f"worker-{i}", daemon=True) for i in range(2 * threads)
        ]
        for thread in self.threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self.threads)

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
        for _ in self.threads:
            self.todo.put(None)
        for thread in self.threads:
            thread.join()

    def work(self) -> None:
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
            self.ready.append(job)
            # who holds the engine looks once more when it has let go: no image is left behind
            while self.ready and self.engine.acquire(blocking=False):
                try:
                    self.run()
                finally:
                    self.engine.release()

    def run(self) -> None:
        """Run the engine on what is decoded by the time it can take it."""
        taken: deque[Job] = deque()

        def batch() -> Iterator[tuple[Job, Decoded]]:
            for _ in range(BATCH):
                try:
                    job = self.ready.popleft()
                except IndexError:
                    return
                taken.append(job)
                yield job, job.decoded

        try:
            for job, outcome in self.classifier.outcomes(batch()):
                taken.popleft()
                self.finish(job, outcome)
        except Exception as error:
            self.failures += 1
            for job in taken:
                self.finish(job, EngineError(type(error).__name__))

    def finish(self, job: Job, outcome: Outcome | ImageError | EngineError) -> None:
        """Note an image's outcome, and tell whoever waits when it was the order's last."""
        order = job.order
        order.outcomes[job.place] = outcome
        with self.noting:
            order.left -= 1
            last = order.left == 0
        if last:
            order.loop.call_soon_threadsafe(tell, order.done)


def tell(done: "asyncio.Future[Any]") -> None:
    if not done.done():  # whoever waited may have been cancelled
        done.set_result(None)


def check_pixels(data: bytes, name: str, short_side: int, most: int) -> None:
    """ImageError if an image would have too many pixels in memory."""
    try:
        if data.startswith(JPEG):
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            pixels = height * width // jpeg_scale((width, height), short_side) ** 2
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
