"""Work in threads, ahead of whoever reads the results, in order; a file that never comes ends
it."""

import time
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import count, islice
from queue import Empty, SimpleQueue
from threading import Event, Thread, current_thread
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from foveate.data.preprocess import Preprocess
from foveate.errors import FoveateError, ImageError

LIMIT = 60.0  # seconds that everybody waits for one file, before it is given up
GRACE = 5.0  # seconds that threads have to finish what is in hand, when nobody wants it any more
PATIENCE = 20  # waits that make the limit

T = TypeVar("T")
R = TypeVar("R")


class Failure(NamedTuple):
    """What came instead of a result."""

    error: BaseException


def work_ahead(
    tasks: Iterable[T],
    work: Callable[[T], R],
    name: Callable[[T], str],
    threads: int,
    ahead: int,
    limit: float = LIMIT,
    prepare: Callable[[], object] = bool,
) -> Generator[R, None, None]:
    """Work on tasks in threads, ahead of whoever reads the results, in order; the first failure in
    order ends it.

    A thread that waits for a file which never comes cannot be ended from outside. It is left
    behind, as a daemon: it keeps neither the reader nor the end of the program waiting.

    Args:
        tasks: taken one by one, as there is room for them.
        work: makes a result of a task.
        name: the file that a task reads, or is reading just now, for messages.
        threads: how many.
        ahead: how many tasks may be in hand or done and not yet read.
        limit: seconds that the reader waits for one file.
        prepare: called once in every thread.

    Raises:
        ImageError: a file cannot be read, breaks `work`, or does not come within `limit`; always
            with its name.
    """
    crew = Crew(work, name, threads, prepare)
    tasks = iter(tasks)
    arrived: dict[int, R | Failure] = {}
    try:
        crew.take(islice(tasks, ahead))
        for number in count():
            if number == crew.taken:
                return
            while number not in arrived:
                other, outcome = crew.next_outcome(limit)
                arrived[other] = outcome
            result = arrived.pop(number)
            if isinstance(result, Failure):
                raise result.error
            yield result
            crew.take(islice(tasks, 1))
    finally:
        crew.stop()


class Crew(Generic[T, R]):
    """Daemon threads, a queue of tasks to them and one of outcomes back."""

    def __init__(
        self,
        work: Callable[[T], R],
        name: Callable[[T], str],
        threads: int,
        prepare: Callable[[], object] = bool,
    ):
        self.name = name
        self.taken = 0
        self.todo: SimpleQueue[tuple[int, T] | None] = SimpleQueue()
        self.done: SimpleQueue[tuple[int, R | Failure]] = SimpleQueue()
        self.in_hand: dict[Thread, tuple[int, T]] = {}
        # for a task's file, in parts of the limit
        self.waited: Counter[tuple[int, str]] = Counter()
        self.lost: set[Thread] = set()  # they wait for what does not come
        given_up = Event()
        arguments = (self.todo, self.done, self.in_hand, given_up, work, name, prepare)
        self.threads = [
            Thread(target=toil, args=arguments, daemon=True, name=f"loader-{i}")
            for i in range(threads)
        ]
        # also at the end of the program: a thread that computes while Python is taken down would
        # crash it
        self.stop = weakref.finalize(self, end, self.threads, self.lost, self.todo, given_up)
        for thread in self.threads:
            thread.start()

    def take(self, tasks: Iterable[T]) -> None:
        for task in tasks:
            self.todo.put((self.taken, task))
            self.taken += 1

    def next_outcome(self, limit: float) -> tuple[int, R | Failure]:
        """A task's number and what became of it. Counts waits, not the time: a suspended computer
        has lost no file."""
        while True:
            try:
                return self.done.get(timeout=limit / PATIENCE)
            except Empty:
                for thread, (number, task) in list(self.in_hand.items()):
                    file = self.name(task)
                    self.waited[number, file] += 1
                    if self.waited[number, file] >= PATIENCE:
                        self.lost.add(thread)
                        raise ImageError(
                            f"image {file!r} did not come within {limit:g} seconds; see whether "
                            "its disk or network folder answers, or remove it"
                        ) from None


def toil(
    todo: "SimpleQueue[tuple[int, T] | None]",
    done: "SimpleQueue[tuple[int, R | Failure]]",
    in_hand: dict[Thread, tuple[int, T]],
    given_up: Event,
    work: Callable[[T], R],
    name: Callable[[T], str],
    prepare: Callable[[], object],
) -> None:
    """What a thread of a crew does until it is told to stop. It holds no reference to the crew, so
    that can end."""
    ready = False
    while (item := todo.get()) is not None and not given_up.is_set():
        number, task = in_hand[current_thread()] = item
        outcome: R | Failure
        try:
            if not ready:
                prepare()
            ready = True
            outcome = work(task)
        except BaseException as error:
            outcome = Failure(with_name(error, name(task)))
        del in_hand[current_thread()]
        done.put((number, outcome))


def with_name(error: BaseException, name: str) -> BaseException:
    """An error that names the image at which it happened."""
    if isinstance(error, FoveateError):  # has it in its words
        return error
    # not the image's fault
    if not isinstance(error, Exception) or isinstance(error, (AssertionError, MemoryError)):
        error.add_note(f"at image {name!r}")
        return error
    named = ImageError(f"image {name!r} cannot be used: {type(error).__name__}: {error}; remove it")
    named.__cause__ = error
    return named


def end(
    threads: list[Thread],
    lost: set[Thread],
    todo: "SimpleQueue[tuple[int, T] | None]",
    given_up: Event,
) -> None:
    """Tell the threads to stop, and wait for those that can."""
    given_up.set()
    for _ in threads:
        todo.put(None)
    deadline = time.monotonic() + GRACE
    for thread in threads:
        # the garbage collector runs in any thread
        if thread not in lost and thread is not current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


AHEAD_BYTES = 256 << 20  # decoded pixels that may wait


def decode_ahead(
    rows: Iterable[int],
    decode_row: Callable[[int], NDArray[np.uint8]],
    name: Callable[[int], str],
    preprocess: Preprocess,
    threads: int,
) -> Iterator[tuple[int, NDArray[np.uint8] | ImageError]]:
    """Decode rows in threads and give them in order; an image that cannot be decoded gives its
    error.

    Pillow releases the interpreter's lock while it decodes and resizes, so threads use the cores,
    and nothing has to be sent between processes.

    Raises:
        ImageError: a file, named by `name`, does not come in time.
    """

    def attempt(row: int) -> tuple[int, NDArray[np.uint8] | ImageError]:
        try:
            return row, decode_row(row)
        except ImageError as error:
            return row, error

    ahead = max(2 * threads, AHEAD_BYTES // (preprocess.crop**2 * preprocess.channels))
    return work_ahead(rows, attempt, name, threads, ahead, LIMIT)
