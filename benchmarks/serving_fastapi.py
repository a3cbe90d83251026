"""The servers that `serving.py` compares with, as their documentation would have them written.

python benchmarks/serving_peers.py fastapi-torch RUN PORT
python benchmarks/serving_peers.py litserve RUN PORT
"""

import io
import sys
from pathlib import Path
from typing import Any

from foveate.classifier import Classifier


def fastapi_torch(run: Path, port: int) -> None:
    """The network eager in torch, an image a call, in FastAPI's thread pool."""
    import torch
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from PIL import Image
    from torchvision.transforms import v2

    classifier = Classifier.load(run)
    network, preprocess = classifier.network(), classifier.preprocess
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize((preprocess.resize, preprocess.resize), antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    app = FastAPI()

    def classify(data: bytes) -> dict[str, Any]:
        x = transform(Image.open(io.BytesIO(data)).convert("RGB"))[None]
        with torch.inference_mode():
            p = network(x).softmax(dim=1)[0]
        best = p.topk(3)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return {"top": [{"label": classifier.classes[i], "probability": q} for i, q in pairs]}

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(classify, await request.body())

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    fastapi_torch(Path(sys.argv[1]), int(sys.argv[2]))
