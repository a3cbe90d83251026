"""A server that `serving.py` compares with: Foveate's decoder and engine behind LitServe.

python benchmarks/serving_litserve.py RUN PORT
"""

import sys
from pathlib import Path
from typing import Any

import litserve
from fastapi import Request

from foveate.classifier import Classifier
from foveate.classifier.given import Given

BATCH = 64


class Api(litserve.LitAPI):
    """What LitServe runs in a process of its own."""

    run: Path

    def setup(self, device: str) -> None:
        self.classifier = Classifier.load(self.run)
        _ = self.classifier.engine

    def decode_request(self, request: Request) -> bytes:
        form: Any = request  # what it gets
        data: bytes = form["file"].file.read()
        return data

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, images: list[bytes]) -> list[Any]:
        decoded = self.classifier.decoded((Given("image", data) for data in images), "none")
        return [
            self.classifier.prediction("image", outcome, 3).to_dict()
            for _, outcome in self.classifier.outcomes(decoded)
        ]

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=0.0)
    api.run = Path(sys.argv[1])
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
