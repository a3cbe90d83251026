"""What a server answers: an ASGI application."""

import asyncio
import io
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

import foveate
from foveate.arguments import whole_number
from foveate.classifier import Classifier, Prediction
from foveate.engine import choose_engine
from foveate.errors import FoveateError, ImageError, UsageError
from foveate.explanation import Explainer
from foveate.explanation.drawing import draw
from foveate.explanation.neighbours import TrainingImages
from foveate.server import documentation
from foveate.server.batching import Batcher, EngineError, check_pixels
from foveate.server.drift import FALSE_ALARMS, WINDOW, Drift
from foveate.server.metrics import TYPE, Metrics
from foveate.server.problems import Problem, overloaded
from foveate.server.security import check_request, guarded
from foveate.server.settings import Settings
from foveate.server.uploads import Held, Upload, uploads

log = logging.getLogger("foveate.server")

TOP = 3  # classes that are named unless more are asked for
NEAREST = 5  # training images
SLOW = 4  # explanations that may wait
SECONDS = 2.0  # that one takes, about
GONE = Response(status_code=400)  # to a client that is not there any more


class App:
    """A classifier's server. Threads run from the first moment until `close`.

    Args:
        classifier: from its folder.
        settings: who may ask, and how much.

    Raises:
        ArtefactError: the classifier is damaged, or has no training images to show.
    """

    def __init__(self, classifier: Classifier, settings: Settings | None = None):
        self.classifier, self.settings = classifier, settings or Settings()
        try_out(classifier)
        rejection = classifier.rejection
        self.metrics = Metrics(None if rejection is None else Drift(rejection))
        self.training = TrainingImages(classifier) if self.settings.show_training else None
        self.held = Held(self.settings.held)
        self.batcher = Batcher(classifier, self.settings, classifier.threads)
        self.slow = ThreadPoolExecutor(1, "explainer")
        self.slow_waiting = 0
        self.pages = documentation.pages(self.settings)
        routes = [
            Route("/v1/predict", self.predict, methods=["POST"]),
            Route("/v1/explain", self.explain, methods=["POST"]),
            Route("/v1/neighbours", self.neighbours, methods=["POST"]),
            Route("/v1/model", self.model),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.show_metrics),
            *(Route(path, self.page) for path in self.pages),
        ]
        self.router = Router(routes, redirect_slashes=False)
        self.paths = {route.path for route in routes}

    def close(self) -> None:
        """End the threads, after all that waits."""
        self.batcher.close()
        self.slow.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "uvicorn is configured without lifespan and websockets"
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        guarded_send, path = guarded(noting), scope["path"]
        # Starlette then leaves its errors to us
        scope["starlette.exception_handlers"] = {}, {}
        try:
            check_request(path, dict(scope["headers"]), self.settings)
            await self.router({**scope, "app": self}, receive, guarded_send)
        except Exception as error:
            if status:  # an answer has begun
                raise
            await answer_to(error)(scope, receive, guarded_send)
        self.metrics.answered(path if path in self.paths else "other", status)

    # classifying

    async def predict(self, request: Request) -> Response:
        begin = time.perf_counter()
        top = number_in(request, "top", TOP, ("top",))
        self.batcher.check_room()  # before a body is read for nothing
        async with uploads(request, self.settings, self.held) as images:
            names = [image.name for image in images]
            outcomes = await self.batcher.outcomes(images)
        predictions = []
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, ImageError):
                prediction, distance = Prediction(name, error=str(outcome)), None
            else:
                prediction = self.classifier.prediction(name, outcome, top)
                distance = outcome.distance
            self.metrics.predicted(prediction, distance)
            predictions.append(prediction)
        self.metrics.took(time.perf_counter() - begin)
        if len(predictions) == 1 and predictions[0].error:
            raise Problem(422, predictions[0].error)
        return JSONResponse({"predictions": [one.to_dict() for one in predictions]})

    # explaining

    async def explain(self, request: Request) -> Response:
        check_query(request, ("class",))
        if reason := self.unexplained:
            raise Problem(501, reason)
        label = request.query_params.get("class")

        def work(image: Upload) -> Response:
            try:
                explainer = self.explainer
            except FoveateError as error:
                raise Problem(501, "this classifier cannot be explained") from error
            found = explainer.explain(Named(image), label)
            buffer = io.BytesIO()
            draw([found]).save(buffer, "PNG")
            headers = {"Foveate-Trusted": "true" if found.trusted else "false"}
            return Response(buffer.getvalue(), headers=headers, media_type="image/png")

        return await self.slowly(request, work)

    async def neighbours(self, request: Request) -> Response:
        k = number_in(request, "k", NEAREST, ("k",))
        training = self.training
        if training is None:
            raise Problem(
                403, "this server shows no training images: foveate serve --show-training"
            )

        def work(image: Upload) -> Response:
            near = training.nearest(image.data, k)
            return JSONResponse({"neighbours": [one.to_dict() for one in near]})

        return await self.slowly(request, work)

    async def slowly(self, request: Request, work: Callable[[Upload], Response]) -> Response:
        """The answer to one image, in the thread for what takes long."""
        if self.slow_waiting >= SLOW:
            raise overloaded("as many explanations wait as may", SLOW * SECONDS)
        self.slow_waiting += 1
        try:
            async with uploads(request, self.settings, self.held) as images:
                if len(images) != 1:
                    raise Problem(422, f"one image is explained at a time, not {len(images)}")
                image = images[0]
                short_side = self.classifier.preprocess.resize

                def checked() -> Response:
                    check_pixels(image.data, image.name, short_side, self.settings.pixels)
                    return work(image)

                return await asyncio.get_running_loop().run_in_executor(self.slow, checked)
        finally:
            self.slow_waiting -= 1

    @cached_property
    def explainer(self) -> Explainer:
        """Made when it is first asked for, in the thread for what takes long."""
        return Explainer(self.classifier)

    @cached_property
    def unexplained(self) -> str:
        """Why nothing is explained here; "" where it is. What takes torch is left to the command,
        where predicting takes none."""
        card, graph = self.classifier.card, self.classifier.has_graph
        if not graph or choose_engine() != "openvino":  # it predicts in torch
            return ""
        if card["form"] != "network" and card["recipe"] == "probe":
            return ""
        return (
            "explaining this classifier takes torch, which this server does without: foveate "
            "explain does it"
        )

    # about itself

    async def model(self, request: Request) -> Response:
        check_query(request, ())
        classifier, settings = self.classifier, self.settings
        drift = None
        if self.metrics.drift is not None:
            drift = {"window": WINDOW, "false_alarm_rate": FALSE_ALARMS}
        return JSONResponse(
            {
                "model": classifier.card["model"],
                "recipe": classifier.card["recipe"],
                "task": classifier.task,
                "classes": list(classifier.classes),
                "rejects": classifier.rejection is not None,
                "explains": not self.unexplained,
                "shows_training": settings.show_training,
                "drift": drift,
                "metrics": classifier.card.get("metrics", {}),
                "limits": {
                    "bytes": settings.body,
                    "images": settings.images,
                    "pixels": settings.pixels,
                },
                "version": foveate.__version__,
            }
        )

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        if not self.batcher.alive:
            raise Problem(503, "the engine has stopped: start the server again")
        self.batcher.check_room()
        return JSONResponse({"status": "ready"})

    async def show_metrics(self, request: Request) -> Response:
        batcher = self.batcher
        text = self.metrics.text(batcher.waiting, self.held.bytes, batcher.failures)
        return Response(text + "\n", media_type=TYPE)

    async def page(self, request: Request) -> Response:
        body, kind = self.pages[request.url.path]
        return Response(body, media_type=kind)


def try_out(classifier: Classifier) -> None:
    """Classify a black image: what is made for the first one is then there, and what is damaged is
    known."""
    channels, views = classifier.preprocess.channels, classifier.preprocess.views
    black = tuple(np.zeros((view.crop, view.crop, channels), np.uint8) for view in views)
    list(classifier.outcomes([(None, black)]))


class Named(io.BytesIO):
    """An upload as an open file, which has its name."""

    def __init__(self, image: Upload):
        super().__init__(image.data)
        self.name = image.name


def answer_to(error: Exception) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The response to a request that failed. What was not foreseen is logged, and its words, which
    may hold paths, are not passed on."""
    if isinstance(error, Problem):
        return error.response()
    if isinstance(error, HTTPException):  # of the router: 404, 405
        detail = {404: "there is nothing here; see /docs", 405: "this takes another method"}
        headers = dict(error.headers or {})
        return Problem(error.status_code, detail.get(error.status_code, ""), headers).response()
    if isinstance(error, ClientDisconnect):
        return GONE
    if isinstance(error, (ImageError, UsageError)):
        return Problem(422, str(error)).response()
    if isinstance(error, (EngineError, FoveateError)):
        log.warning("a request failed: %s", error)
        return Problem(500, "the classifier failed: whoever runs the server sees why").response()
    log.warning("a request failed: %s: %s", type(error).__name__, error)
    return Problem(500, "the server failed: whoever runs it sees why").response()


def check_query(request: Request, names: tuple[str, ...]) -> None:
    """Problem (422) if a request has parameters that nobody reads."""
    for name in request.query_params:
        if name not in names:
            known = f"; expected {', '.join(names)}" if names else ""
            raise Problem(422, f"there is no parameter {name[:50]!r} here{known}")


def number_in(request: Request, name: str, default: int, names: tuple[str, ...]) -> int:
    """A parameter of the query that is a whole number from 1."""
    check_query(request, names)
    given: Any = request.query_params.get(name, default)
    if isinstance(given, str):
        given = int(given) if given.isdecimal() and len(given) < 10 else given
    return whole_number(name, given, 1)
