"""What a server counts, in the text format of Prometheus."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator

from foveate.classifier import Prediction
from foveate.server.drift import FALSE_ALARMS, WINDOW, Drift

EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
LATELY = 1000  # images
TYPE = "text/plain; version=0.0.4"
Sample = tuple[str, float]  # labels, value


class Metrics:
    """Counters since the start, and means of the last LATELY images.

    Args:
        drift: or None where distances are not known.
    """

    def __init__(self, drift: Drift | None):
        self.drift = drift
        self.requests: Counter[tuple[str, int]] = Counter()  # by path and status
        self.images: Counter[str] = Counter()  # by outcome
        self.seconds = [0] * (len(EDGES) + 1)  # predict's, by the edge that they are below
        self.total = 0.0
        self.lately: deque[tuple[float, bool]] = deque(maxlen=LATELY)  # confidence, refused

    def answered(self, path: str, status: int) -> None:
        self.requests[path, status] += 1

    def took(self, seconds: float) -> None:
        """Note the seconds of an answer of predict."""
        place = next((i for i, edge in enumerate(EDGES) if seconds <= edge), len(EDGES))
        self.seconds[place] += 1
        self.total += seconds

    def predicted(self, prediction: Prediction, distance: float | None) -> None:
        if prediction.error:
            self.images["unreadable"] += 1
            return
        refused = prediction.rejected is not None
        self.images["refused" if refused else "answered"] += 1
        self.lately.append((prediction.top[0][1], refused))
        if self.drift is not None and distance is not None:
            self.drift.add(distance)

    def text(self, waiting: int, held: int, failures: int) -> str:
        """All of it.

        Args:
            waiting: images that are not yet answered.
            held: bytes of requests.
            failures: of the engine.
        """
        return "\n".join(
            line for metric in self.all(waiting, held, failures) for line in written(*metric)
        )

    def all(
        self, waiting: int, held: int, failures: int
    ) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
        """Name, kind, help and samples of each metric."""
        requests = [(f'path="{p}",status="{s}"', n) for (p, s), n in sorted(self.requests.items())]
        yield "requests_total", "counter", "Requests, by path and status.", requests
        images = [(f'outcome="{o}"', n) for o, n in sorted(self.images.items())]
        yield "images_total", "counter", "Images that were classified, by outcome.", images
        yield "request_seconds", "histogram", "Seconds of an answer of predict.", self.histogram()
        yield "waiting_images", "gauge", "Images that are not yet answered.", [("", waiting)]
        yield "held_bytes", "gauge", "Bytes of requests in memory.", [("", held)]
        yield "engine_failures_total", "counter", "Batches that failed.", [("", failures)]
        n = len(self.lately)
        if n:
            confidence = sum(top for top, _ in self.lately) / n
            refused = sum(refused for _, refused in self.lately) / n
            of = f"of the last {LATELY} images"
            yield (
                "confidence_mean",
                "gauge",
                f"Mean confidence, calibrated, {of}.",
                [("", confidence)],
            )
            yield "refused_share", "gauge", f"Share answered none of these {of}.", [("", refused)]
        if self.drift is not None:
            yield from of_drift(self.drift)

    def histogram(self) -> Iterator[Sample]:
        below = 0
        for edge, count in zip((*map(str, EDGES), "+Inf"), self.seconds, strict=True):
            below += count
            yield f'_bucket{{le="{edge}"}}', below
        yield "_sum", self.total
        yield "_count", below


def of_drift(drift: Drift) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    window = f"a window of {WINDOW} images"
    if drift.windows:
        distance = f"Mean distance to the nearest class over {window}, as a normal score."
        yield "drift_distance", "gauge", distance, [("", drift.mean)]
    edge = "Drift_distance beyond this is an alarm."
    yield "drift_threshold", "gauge", edge, [("", drift.threshold)]
    yield "drift_alarm", "gauge", f"1 if the last {window[2:]} is beyond.", [("", drift.alarm)]
    yield "drift_windows_total", "counter", "Windows so far.", [("", drift.windows)]
    yield "drift_alarms_total", "counter", "Windows with an alarm.", [("", drift.alarms)]
    rate = "Share of windows with an alarm where nothing has changed."
    yield "drift_false_alarm_rate", "gauge", rate, [("", FALSE_ALARMS)]


def written(name: str, kind: str, help: str, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of a metric, whose name gets a prefix; each sample has labels, or a suffix."""
    name = f"foveate_{name}"
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        suffix = labels if labels.startswith("_") or not labels else f"{{{labels}}}"
        yield f"{name}{suffix} {float(value):.10g}"
