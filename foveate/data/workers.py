"""Read and decode in threads, ahead of the consumer, in order; with a time limit for each file."""

import time
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import count, islice
from queue import Empty, SimpleQueue
from threading import Event, Thread, current_thread
from typing import Generic, NamedTuple, TypeVar

from foveate.data.preprocess import Preprocess
from foveate.errors import FoveateError, ImageError

LIMIT = 60.0  # seconds to wait for one file
GRACE = 5.0  # seconds that threads have to finish their current task when they are stopped
WAITS = 20  # the limit is counted in so many waits

AHEAD_BYTES = 256 << 20  # decoded pixels that may be waiting

T = TypeVar("T")
R = TypeVar("R")


class Failure(NamedTuple):
    """An error in place of a result."""

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
    """Results of tasks, in order, computed in threads ahead of the consumer.

    The first task that fails ends it. A thread that waits for a file which never comes cannot be
    stopped from outside. It is abandoned as a daemon, and delays neither the consumer nor the end
    of the program.

    Args:
        tasks: taken one by one, as there is room for them.
        work: computes a task's result.
        name: the file that a task is reading, for messages.
        threads: how many.
        ahead: how many tasks may be under way, or done and not yet consumed.
        limit: seconds to wait for one file.
        prepare: called once in every thread.

    Raises:
        ImageError: a file cannot be read, `work` raises on it, or it does not come within `limit`;
            the message has its name.
    """
    pool = Workers(work, name, threads, prepare)
    tasks = iter(tasks)
    arrived: dict[int, R | Failure] = {}
    try:
        pool.take(islice(tasks, ahead))
        for number in count():
            if number == pool.taken:
                return
            while number not in arrived:
                other, outcome = pool.next_outcome(limit)
                arrived[other] = outcome
            result = arrived.pop(number)
            if isinstance(result, Failure):
                raise result.error
            yield result
            pool.take(islice(tasks, 1))
    finally:
        pool.stop()


class Workers(Generic[T, R]):
    """Daemon threads, a queue of tasks to them and one of outcomes back.

    Not a ThreadPoolExecutor: that waits for all its threads at the end of the program, also for one
    that waits for a file on a dead network folder.
    """

    def __init__(
        self,
        work: Callable[[T], R],
        name: Callable[[T], str],
        threads: int,
        prepare: Callable[[], object] = bool,
    ):
        assert threads >= 1, "nobody would do the tasks, and their outcomes never come"
        self.name = name
        self.taken = 0
        self.todo: SimpleQueue[tuple[int, T] | None] = SimpleQueue()
        self.done: SimpleQueue[tuple[int, R | Failure]] = SimpleQueue()
        self.current: dict[Thread, tuple[int, T]] = {}  # task of each busy thread
        self.waits: Counter[tuple[int, str]] = Counter()  # by task and file
        self.lost: set[Thread] = set()  # they wait for a file that does not come
        stopped = Event()
        arguments = (self.todo, self.done, self.current, stopped, work, name, prepare)
        self.threads = [
            Thread(target=run_worker, args=arguments, daemon=True, name=f"loader-{i}")
            for i in range(threads)
        ]
        # Also called at the end of the program: a thread that computes during Python's shutdown
        # would crash it.
        self.stop = weakref.finalize(
            self, stop_workers, self.threads, self.lost, self.todo, stopped
        )
        for thread in self.threads:
            thread.start()

    def take(self, tasks: Iterable[T]) -> None:
        for task in tasks:
            self.todo.put((self.taken, task))
            self.taken += 1

    def next_outcome(self, limit: float) -> tuple[int, R | Failure]:
        """A task's number and its result or failure.

        The limit is counted in waits, not on a clock: after a computer was suspended, the clock
        would exceed the limit at once.
        """
        while True:
            try:
                return self.done.get(timeout=limit / WAITS)
            except Empty:
                for thread, (number, task) in list(self.current.items()):
                    file = self.name(task)
                    self.waits[number, file] += 1
                    if self.waits[number, file] >= WAITS:
                        self.lost.add(thread)
                        raise ImageError(
                            f"image {file!r} did not come within {limit:g} seconds; check whether "
                            "its disk or network folder responds, or remove it"
                        ) from None


def run_worker(
    todo: "SimpleQueue[tuple[int, T] | None]",
    done: "SimpleQueue[tuple[int, R | Failure]]",
    current: dict[Thread, tuple[int, T]],
    stopped: Event,
    work: Callable[[T], R],
    name: Callable[[T], str],
    prepare: Callable[[], object],
) -> None:
    """A thread's loop. It holds no reference to its Workers, so that these can be finalised."""
    ready = False
    while (item := todo.get()) is not None and not stopped.is_set():
        number, task = current[current_thread()] = item
        outcome: R | Failure
        try:
            if not ready:
                prepare()
            ready = True
            outcome = work(task)
        except BaseException as error:
            outcome = Failure(with_name(error, name(task)))
        del current[current_thread()]
        done.put((number, outcome))


def with_name(error: BaseException, name: str) -> BaseException:
    """An error that names the image at which it happened."""
    if isinstance(error, FoveateError):  # its message names the file
        return error
    # these are not caused by the image: the type stays, the name is added
    if not isinstance(error, Exception) or isinstance(error, (AssertionError, MemoryError)):
        error.add_note(f"at image {name!r}")
        return error
    named = ImageError(f"image {name!r} cannot be used: {type(error).__name__}: {error}; remove it")
    named.__cause__ = error
    return named


def stop_workers(
    threads: list[Thread],
    lost: set[Thread],
    todo: "SimpleQueue[tuple[int, T] | None]",
    stopped: Event,
) -> None:
    """Stop the threads, and wait for those that are not lost."""
    stopped.set()
    for _ in threads:
        todo.put(None)
    deadline = time.monotonic() + GRACE
    for thread in threads:
        # the garbage collector calls this in any thread, and none can join itself
        if thread not in lost and thread is not current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


def decode_ahead(
    rows: Iterable[T],
    decode_row: Callable[[T], R],
    name: Callable[[T], str],
    preprocess: Preprocess,
    threads: int,
) -> Iterator[tuple[T, R | ImageError]]:
    """(row, pixels) in order, decoded in threads; (row, error) for an image that cannot be decoded.

    Pillow releases the interpreter's lock while it decodes and resizes, so threads use all cores,
    and nothing has to be sent between processes.

    Raises:
        ImageError: a file does not come within LIMIT.
    """

    def attempt(row: T) -> tuple[T, R | ImageError]:
        try:
            return row, decode_row(row)
        except ImageError as error:
            return row, error

    ahead = max(2 * threads, AHEAD_BYTES // preprocess.numbers)
    return work_ahead(rows, attempt, name, threads, ahead, LIMIT)
