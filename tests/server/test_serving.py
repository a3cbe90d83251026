"""What a server answers: the rows of `predict --json`, explanations, and what it says of itself."""

import io
import json
import re
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from PIL import Image

from foveate.classifier import Classifier
from foveate.errors import ArtefactError
from foveate.explanation.neighbours import TrainingImages
from foveate.server.app import App
from foveate.server.settings import Settings


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_rows_are_those_of_predict(server, served: Classifier, photos: list[Path]) -> None:
    rows = [served.predict(photo.read_bytes(), top=2).to_dict() for photo in photos]
    given = [(photo.name, photo.read_bytes()) for photo in photos]
    answer = server.files(*given, path="/v1/predict?top=2")
    assert answer.status == 200, answer.body
    assert answer.json["predictions"] == [
        row | {"file": photo.name} for row, photo in zip(rows, photos, strict=True)
    ]
    for kind in ("image/jpeg", "application/octet-stream"):
        alone = server.image(photos[0].read_bytes(), "/v1/predict?top=2", kind)
        assert alone.json["predictions"] == [rows[0] | {"file": "image"}]


def test_one_of_many_that_cannot_be_read_has_an_error_in_its_row(server, photos) -> None:
    good = photos[0].read_bytes()
    answer = server.files(("a.jpg", good), ("b.jpg", b"no image"), ("c.jpg", good[:900]))
    first, second, third = answer.json["predictions"]
    assert (
        answer.status == 200 and first["label"] and set(second) == set(third) == {"file", "error"}
    )
    assert "b.jpg" in second["error"] and "c.jpg" in third["error"]


def test_names_lose_their_folders(server, photos) -> None:
    names = ["../../etc/passwd", "C:\\photos\\x.jpg", "..", "", "a\x1b[31m.jpg", "照片.jpg"]
    answer = server.files(*((name, photos[0].read_bytes()) for name in names))
    found = [row["file"] for row in answer.json["predictions"]]
    assert found == ["passwd", "x.jpg", "image", "image", "a\\x1b[31m.jpg", "照片.jpg"]


def test_of_an_animation_the_first_frame_is_classified(server, served, draw_image) -> None:
    frames = [draw_image(kind, 3) for kind in ("blob", "stripes")]
    film = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    still = encoded(frames[0], "GIF")
    found = server.image(film, kind="image/gif").json["predictions"]
    assert found == server.image(still, kind="image/gif").json["predictions"]


def test_forty_images_at_once(server, photos) -> None:
    answer = server.files(*((f"{i}.jpg", photos[i % 8].read_bytes()) for i in range(40)))
    rows = answer.json["predictions"]
    assert [row["file"] for row in rows] == [f"{i}.jpg" for i in range(40)]
    assert [row["probability"] for row in rows[:8]] == [row["probability"] for row in rows[8:16]]


def test_the_model_is_described(server, served: Classifier, refusing: Path) -> None:
    found = server.ask("GET", "/v1/model").json
    assert found["classes"] == list(served.classes) and found["rejects"] and found["explains"]
    assert found["metrics"] == served.card["metrics"] and not found["shows_training"]
    assert found["limits"] == {"bytes": 32 << 20, "images": 64, "pixels": 64_000_000}
    assert str(refusing.parent) not in json.dumps(found)
    assert server.ask("GET", "/healthz").status == server.ask("GET", "/readyz").status == 200


def samples(text: str) -> dict[str, float]:
    """Of the text format of Prometheus."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_count_what_was_asked(serve, served: Classifier, photos, draw_image) -> None:
    server = serve()
    strange = encoded(draw_image("blob", 1).convert("L").resize((300, 40)), "PNG")
    files = [("a.jpg", photos[0].read_bytes()), ("b.png", strange), ("c.jpg", b"none")]
    rows = [row for row in server.files(*files).json["predictions"] if "error" not in row]
    server.image(b"none")
    server.ask("GET", "/elsewhere")
    answer = server.ask("GET", "/metrics")
    found = samples(answer.body.decode())
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert found['foveate_requests_total{path="/v1/predict",status="200"}'] == 1
    assert found['foveate_requests_total{path="/v1/predict",status="422"}'] == 1
    assert found['foveate_requests_total{path="other",status="404"}'] == 1
    assert found['foveate_images_total{outcome="unreadable"}'] == 2
    refused = [row["rejected"] is not None for row in rows]
    assert found["foveate_refused_share"] == np.mean(refused)
    confidence = np.mean([row["top"][0]["probability"] for row in rows])
    assert found["foveate_confidence_mean"] == pytest.approx(confidence, abs=1e-6)
    assert found["foveate_request_seconds_count"] == 2
    assert found['foveate_request_seconds_bucket{le="+Inf"}'] == 2
    assert found["foveate_waiting_images"] == found["foveate_held_bytes"] == 0
    assert found["foveate_drift_false_alarm_rate"] == 0.001
    documented = re.findall(r"^# TYPE (\w+) (\w+)$", answer.body.decode(), re.MULTILINE)
    assert {"foveate_drift_alarm", "foveate_confidence_mean"} <= {name for name, _ in documented}


def test_explanations_are_images(server, served: Classifier, photos) -> None:
    answer = server.image(photos[0].read_bytes(), "/v1/explain?class=noise")
    assert answer.status == 200 and answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Foveate-Trusted"] in ("true", "false")
    with Image.open(io.BytesIO(answer.body)) as sheet, Image.open(photos[0]) as photo:
        width, height = photo.size
        assert sheet.size[0] >= 2 * width and sheet.size[1] > height
    other = server.image(photos[0].read_bytes(), "/v1/explain?class=cat")
    assert other.status == 422 and "cat" in other.json["detail"] and "blob" in other.json["detail"]
    two = server.files(("a", b"x"), ("b", b"y"), path="/v1/explain")
    assert two.status == 422 and "2" in two.json["detail"]
    assert server.image(b"none", "/v1/explain").status == 422


def test_what_takes_torch_to_explain_is_not_explained(serve, photos, monkeypatch) -> None:
    server = serve()
    card = server.app.classifier.card | {"form": "network", "recipe": "finetune"}
    monkeypatch.setattr(server.app.classifier, "card", card)
    answer = server.image(photos[0].read_bytes(), "/v1/explain")
    assert answer.status == 501 and "foveate explain" in answer.json["detail"]


def test_training_images_are_named_only_where_that_was_asked_for(
    server, serve, served: Classifier, photos, backbone_cache: Path, monkeypatch
) -> None:
    data = photos[0].read_bytes()
    assert server.image(data, "/v1/neighbours").status == 403
    monkeypatch.setenv("FOVEATE_CACHE", str(backbone_cache))
    near = TrainingImages(served).nearest(data, 2)
    answer = serve(show_training=True).image(data, "/v1/neighbours?k=2")
    assert answer.json["neighbours"] == [one.to_dict() for one in near]


def test_the_description_names_every_path_and_nothing_from_elsewhere(server) -> None:
    described = server.ask("GET", "/openapi.json").json
    own = {path for path in server.app.paths if path.startswith(("/v1", "/metrics", "/he", "/re"))}
    assert set(described["paths"]) == own
    page = server.ask("GET", "/docs").body.decode()
    assert all(path in page for path in own) and "<script" not in page and "style=" not in page
    for path in ("/", "/docs", *(f"/page/{name}" for name in ("page.js", "page.css", "texts.js"))):
        text = server.ask("GET", path).body.decode()
        elsewhere = set(re.findall(r"https?://[^\s\"'<]+", text))
        assert elsewhere <= {"http://127.0.0.1:8000/v1/predict"}


def test_sentences_of_the_page_are_there_in_both_languages(server) -> None:
    source = server.ask("GET", "/page/texts.js").body.decode()
    pairs = re.findall(
        r'^  (\w+): \[\s*"(.*?)",\s*"(.*?)",?\s*\],$', source, re.MULTILINE | re.DOTALL
    )
    keys = {key for key, _, _ in pairs}
    assert len(pairs) == len(re.findall(r"^  \w+: \[", source, re.MULTILINE)) > 40
    for key, english, chinese in pairs:
        fields = [sorted(re.findall(r"\{(\w+)\}", text)) for text in (english, chinese)]
        assert fields[0] == fields[1] and english != chinese, key
    code = "".join(server.ask("GET", p).body.decode() for p in ("/", "/page/page.js"))
    unsaid = [key for key in keys if f'"{key}"' not in code]
    assert not unsaid


def test_a_classifier_that_is_damaged_is_not_served(refusing: Path, tmp_path: Path) -> None:
    copy = Path(copytree(refusing / "classifier", tmp_path / "classifier"))
    weights = copy / "engine.bin"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
    with pytest.raises(ArtefactError, match=r"engine\.bin"):
        App(Classifier.load(copy), Settings())
