"""What `foveate serve` costs beside the engine alone, and beside two servers written by hand.

    python benchmarks/serving.py RUN PHOTOS --peers PYTHON

JPEGs of PHOTOS in, JSON out, over 1, 8 and 64 connections on loopback that each send the next image
as soon as they have an answer. Of each server, in a process of its own and in turns with the
others: CPU seconds an image (of the process and its children; the client's are not counted), images
a second, and the 50th and 99th percentile of the seconds of an answer. `loop` decodes and infers
the same images in one process without HTTP, all of them at once; `loop, one by one` is given the
next image when it has answered the last, as a server with one client is.

    foveate         `foveate serve`
    fastapi         FastAPI, Pillow and torchvision, the network eager in torch, an image a call
    litserve        LitServe with Foveate's decoder and engine, its batches of up to 64; bodies are
                    forms, since it takes no others

PYTHON is an interpreter that has fastapi, litserve and what Foveate needs; without it the two are
left out. `--memory` instead counts the bytes that `foveate serve` holds after 1,000 and after
20,000 requests.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import RESULTS, described, save

CLIENTS = (1, 8, 64)
IMAGES = 300  # photos that are sent, over and over
MINIMUM = 4.0  # seconds of a measurement, about
WARM = 64  # requests before it
REPEATS = 3
HERE = Path(__file__).parent
KINDS = ("foveate", "fastapi", "litserve")


class Client:
    """Connections that send images and wait for their answers.

    Args:
        port: of the server, on this machine.
        kind: which of KINDS it is.
        photos: the bytes of JPEGs.
    """

    def __init__(self, port: int, kind: str, photos: list[bytes]):
        self.port, self.sent, self.seconds = port, 0, list[float]()
        path = "/v1/predict" if kind == "foveate" else "/predict"
        type_, before, after = "image/jpeg", b"", b""
        if kind == "litserve":  # whose bodies are JSON or forms
            type_ = "multipart/form-data; boundary=edge"
            before = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n'
            before, after = before + b"Content-Type: image/jpeg\r\n\r\n", b"\r\n--edge--\r\n"
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {type_}\r\n"
        bodies = [before + data + after for data in photos]
        self.requests = [
            f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies
        ]

    def run(self, connections: int, requests: int) -> float:
        """Seconds until so many requests are answered."""
        self.sent, self.seconds = 0, []
        begin = time.perf_counter()
        asyncio.run(self.all(connections, requests))
        return time.perf_counter() - begin

    async def all(self, connections: int, requests: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(self.one(requests))

    async def one(self, requests: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while self.sent < requests:
            self.sent += 1
            begin = time.perf_counter()
            writer.write(self.requests[self.sent % len(self.requests)])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            self.seconds.append(time.perf_counter() - begin)
        writer.close()


class Served:
    """A server in a process of its own.

    Args:
        kind: which of KINDS.
        run: the classifier's.
        python: the interpreter.
        port: for those that are written here.
    """

    def __init__(self, kind: str, run: Path, python: str, port: int):
        words = [python, str(HERE / f"serving_{kind}.py"), str(run), str(port)]
        if kind == "foveate":
            words = [sys.executable, "-m", "foveate", "serve", str(run), "--port", str(port)]
        self.port, self.kind = port, kind
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        self.process = psutil.Popen(words, stdout=subprocess.DEVNULL, env=environment)
        for _ in range(600):
            try:
                asyncio.run(connected(port))
                return
            except OSError:
                assert self.process.poll() is None, f"{kind} did not start"
                time.sleep(0.1)
        raise AssertionError(f"{kind} does not listen")

    def processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        times = [one.cpu_times() for one in self.processes()]
        return sum(t.user + t.system for t in times)

    def memory(self) -> int:
        return sum(one.memory_info().rss for one in self.processes())

    def stop(self) -> None:
        children = self.processes()[1:]
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        for child in children:  # some servers leave theirs
            if child.is_running():
                child.kill()


async def connected(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


def measure(served: Served, photos: list[bytes], connections: int) -> dict[str, float]:
    client = Client(served.port, served.kind, photos)
    rate = WARM / client.run(connections, WARM)
    requests = round(min(max(rate * MINIMUM, WARM), 2000))
    before = served.cpu()
    seconds = client.run(connections, requests)
    taken = np.percentile(client.seconds, [50, 99])
    return {
        "cpu seconds an image": (served.cpu() - before) / requests,
        "images a second": requests / seconds,
        "p50": float(taken[0]),
        "p99": float(taken[1]),
    }


def loop(run: Path, photos: list[bytes]) -> dict[str, dict[str, float]]:
    """Decode and infer, in this process."""
    from foveate.classifier import Classifier

    classifier = Classifier.load(run)
    list(classifier.predict_each(photos[:WARM]))
    many = [photos[i % len(photos)] for i in range(1000)]
    found = {}
    for name, given in (("loop", [many]), ("loop, one by one", [[photo] for photo in many])):
        begin, cpu = time.perf_counter(), time.process_time()
        assert all(not row.error for images in given for row in classifier.predict_each(images))
        found[name] = {
            "cpu seconds an image": (time.process_time() - cpu) / len(many),
            "images a second": len(many) / (time.perf_counter() - begin),
        }
    return found


def apart(run: Path, folder: Path) -> dict[str, dict[str, float]]:
    """`loop` in a process of its own."""
    words = [sys.executable, __file__, str(run), str(folder), "--loop"]
    found: dict[str, dict[str, float]] = json.loads(subprocess.check_output(words, text=True))
    return found


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(f"{np.median([row[key] for row in rows]):.4g}") for key in rows[0]}


Rows = dict[str, list[dict[str, float]]]


def side_by_side(run: Path, folder: Path, peers: str, rows: Rows) -> None:
    """Measure everything once, and add it to the rows."""
    photos = read(folder)
    for name, row in apart(run, folder).items():
        rows.setdefault(name, []).append(row)
    for number, kind in enumerate(KINDS if peers else KINDS[:1]):
        served = Served(kind, run, peers, 8471 + number)
        try:
            for connections in CLIENTS:
                row = measure(served, photos, connections)
                rows.setdefault(f"{kind}, {connections} clients", []).append(row)
                print(kind, connections, row, flush=True)
        finally:
            served.stop()


def summary(rows: Rows) -> dict[str, dict[str, float]]:
    """Medians, and CPU seconds as multiples of the loop's."""
    found = {name: medians(each) for name, each in rows.items()}
    alone = found["loop"]["cpu seconds an image"]
    for row in found.values():
        row["cpu, of the loop's"] = round(row["cpu seconds an image"] / alone, 3)
    return found


def memory(run: Path, folder: Path, port: int = 8470) -> dict[str, Any]:
    """Bytes that a server holds after some, and after many requests."""
    photos, found = read(folder), {}
    served = Served("foveate", run, "", port)
    try:
        client, done = Client(port, served.kind, photos), 0
        for requests in (1000, 5000, 10000, 20000):
            client.run(8, requests - done)
            done = requests
            found[f"after {requests}"] = served.memory()
            print(requests, served.memory(), flush=True)
    finally:
        served.stop()
    return found


def read(folder: Path) -> list[bytes]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    return [path.read_bytes() for path in files[:IMAGES]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--peers", default="", metavar="PYTHON")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--more", action="store_true", help="Add to the repeats in --out.")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--loop", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.loop:
        print(json.dumps(loop(asked.run, read(asked.photos))))
        sys.exit()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    report = described("serving", "foveate openvino starlette uvicorn python-multipart")
    report["date"] = time.strftime("%Y-%m-%d")
    name = "serving-memory.json" if asked.memory else "serving.json"
    out = asked.out or RESULTS / name
    if asked.memory:
        report["results"] = memory(asked.run, asked.photos)
    else:
        rows: Rows = json.loads(out.read_text())["rows"] if asked.more else {}
        for _ in range(asked.repeats):
            side_by_side(asked.run, asked.photos, asked.peers, rows)
        sizes = list(map(len, read(asked.photos)))
        report |= {"bytes a photo": round(float(np.mean(sizes))), "repeats": len(rows["loop"])}
        report |= {"results": summary(rows), "rows": rows}
    save(report, out)
