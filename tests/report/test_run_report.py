"""The report of a run: what it says, that names in it are inert, and that it stays small."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from PIL import Image
from refusals import absent, refused

from foveate.data.layouts import load_dataset
from foveate.errors import ArtefactError, UsageError
from foveate.metrics import expected_calibration_error, reliability, summarise
from foveate.progress import Silent
from foveate.report import texts
from foveate.report.answer import percent
from foveate.report.calibration import calibrate
from foveate.report.page import is_as_written
from foveate.report.plots import drawable, plot_confusion
from foveate.report.run import REPORT, write_report
from foveate.report.texts import LANGUAGES, TEXTS, fields_of
from foveate.runs import Run
from foveate.training import leave_report

SOURCES = Path(texts.__file__).parent
ATTACKS = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "=cmd()|'/c calc'!A1",
    "\x1b[31mred",
    "\u202egnp.exe",
    "חולצה {n} {0}",
    "x" * 200,
)


def written(
    run: Path, out: Path, images: Path | None = None, lang: str = "en", full: bool = False
) -> str:
    """The page of a run."""
    dataset = None if images is None else load_dataset(images)
    write_report(run, dataset, lang, full, out, 1, Silent())
    return out.read_text(encoding="utf-8")


def made(folder: Path, classes: tuple[str, ...], n: int, wrong: float = 0.3) -> Path:
    """A run's files, of a classifier that errs in so many."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = rng.integers(len(classes), size=n)
    answers = np.where(rng.random(n) < wrong, rng.integers(len(classes), size=n), labels)
    sure = rng.uniform(0.5, 1, n)
    p = np.tile(((1 - sure) / max(1, len(classes) - 1))[:, None], len(classes))
    p[np.arange(n), answers] = sure
    figures = summarise(p, labels, classes)
    files = [f"test/{classes[c]}/{i}.jpg" for i, c in enumerate(labels)]
    metrics = {"model": "resnet18", "recipe": "probe", "engine": "torch", "seed": 0}
    metrics |= {"seconds": {"total": 1.0}, "bad": {f"{ATTACKS[0]}.jpg": "damaged"}}
    metrics |= {"notes": list(ATTACKS), "penalty": 1e-4, "temperature": 1.0, "test": figures}
    counts = {"test": {name: int((labels == c).sum()) for c, name in enumerate(classes)}}
    data = {"classes": list(classes), "counts": counts, "bad": metrics["bad"], "ignored": []}
    pair = {"files": files[:2], "labels": [classes[0], classes[1]], "kind": "bytes"}
    suspect = {"files": files[:1], "label": classes[0], "suggested": classes[1], "ratio": 9.0}
    review = {"suspects": [suspect], "contradictions": [pair]}
    group = {"kind": "copies", "reason": "", "files": files[:3]}
    rows = [
        {
            "split": "test",
            "file": files[i],
            "label": classes[labels[i]],
            "predicted": classes[answers[i]],
            "sha256": "0" * 16,
            "probability": round(float(sure[i]), 6),
            "probability_of_label": round(float(p[i, labels[i]]), 6),
        }
        for i in range(n)
    ]
    for name, value in (
        ("metrics.json", metrics),
        ("data.json", data | {"groups": [group]}),
        ("review.json", review),
        ("config.json", {"data": ATTACKS[0], "fingerprint": "0"}),
        ("env.json", {"cpu": ATTACKS[1], "packages": {}}),
    ):
        (folder / name).write_text(json.dumps(value))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "history.jsonl").write_text('{"penalty": 0.01, "log_loss": 1.5}\n')
    (folder / "log.txt").write_text(f"foveate train {ATTACKS[0]}\n")
    return folder


# sentences


def test_every_sentence_is_there_in_both_languages() -> None:
    for key, sentences in TEXTS.items():
        assert len(sentences) == len(LANGUAGES) and all(sentences), key
        assert len({frozenset(fields_of(text)) for text in sentences}) == 1, key
    same = {key for key, (english, chinese) in TEXTS.items() if english == chinese}
    assert same == {"f1"}


def test_every_sentence_is_said_and_none_is_missing() -> None:
    code = "".join(path.read_text() for path in SOURCES.glob("*.py") if "texts" not in path.stem)
    code += (SOURCES / "report.html").read_text()
    prefixes = ("split_", "kind_", "foreign_", "fault_", "map_", "point_", "status_", "verdict_")
    unsaid = [key for key in TEXTS if not key.startswith(prefixes) and f'"{key}"' not in code]
    assert not unsaid
    asked = {*re.findall(r'\bt\(\s*"(\w+)"', code), *re.findall(r"\bt\('(\w+)'", code)}
    assert asked <= {*TEXTS}


def test_only_two_languages(tmp_path: Path, trained: Path) -> None:
    with refused(UsageError, "fr", "en", "zh"):
        written(trained, tmp_path / REPORT, lang="fr")


# what a run's report says


def test_training_leaves_a_report(trained: Path) -> None:
    page = (trained / REPORT).read_text(encoding="utf-8")
    metrics = json.loads((trained / "metrics.json").read_text())
    figure = f"{100 * metrics['test']['accuracy']:.0f}"
    assert not absent(page, f"<b>{figure}</b>", "24", "blob", "foveate verify", "train photos")
    rows = (trained / "predictions.jsonl").read_text().splitlines()
    answers = [json.loads(row) for row in rows]
    wrong = [a for a in answers if a["split"] == "test" and a["label"] != a["predicted"]]
    assert page.count("data:image/jpeg;base64,") == min(12, len(wrong)) > 0
    assert all(wrong[i]["file"] in page for i in range(len(wrong)))
    assert f"Images of the data in this file: {min(12, len(wrong))}." in page
    assert "<script" not in page and "http:" not in page and "https:" not in page
    assert "default-src 'none'" in page and is_as_written(page)
    for figure in ("confusion.png", "reliability.png"):
        with Image.open(trained / figure) as image:
            assert min(image.size) > 200


def test_the_same_in_chinese_without_images(trained: Path, tmp_path: Path) -> None:
    page = written(trained, tmp_path / REPORT, lang="zh")
    metrics = json.loads((trained / "metrics.json").read_text())
    assert not absent(page, 'lang="zh-Hans"', percent(metrics["test"]["accuracy"]), "混淆", "校准")
    assert "data:image" not in page and "图像已不在" in page and "本文件不含图像" in page


@pytest.mark.slow
def test_the_full_report_explains_mistakes(
    images: Path,
    trained: Path,
    tmp_path: Path,
    backbone_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(backbone_cache))
    page = written(trained, tmp_path / REPORT, images, full=True)
    short = (trained / REPORT).read_text(encoding="utf-8")
    cases = page.count('<figure class="case">')
    assert cases == short.count("<figure>") > 0
    # of each the image, the map and the nearest training images
    assert page.count("data:image/jpeg") >= 5 * cases
    assert not absent(page, "red speaks for the answer", "most alike")
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "empty"))
    page = written(trained, tmp_path / REPORT, images, full=True)
    assert not absent(page, "red speaks for the answer", "are not shown", "FOVEATE_CACHE")


def test_a_run_of_steps_shows_its_epochs(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {"recipe": "finetune", "epochs": 2, "best_epoch": 2}
    metrics["validation"] = metrics.pop("out_of_fold")
    (run / "metrics.json").write_text(json.dumps(metrics))
    record = {"loss": 1.0, "accuracy": 0.5, "validation_loss": 0.9, "validation_accuracy": 0.6}
    lines = [json.dumps(record | {"epoch": epoch}) for epoch in range(3)]
    (run / "history.jsonl").write_text("\n".join(lines))
    part = {"name": "stages.0", "parameters": 1234, "frozen": True, "lr": 0.0}
    (run / "plan.json").write_text(json.dumps({"parts": [part]}))
    page = written(run, tmp_path / "page.html")
    assert not absent(page, "stages.0", "1,234", "frozen", "training, augmented", "finetune")


def test_several_labels_an_image(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    metrics = json.loads((run / "metrics.json").read_text())
    for split in ("test", "out_of_fold"):
        del metrics[split]["confusion"]
        metrics[split]["mean_average_precision"] = 0.5
    metrics["rejection"] = None
    (run / "metrics.json").write_text(json.dumps(metrics))
    row = {"split": "test", "file": "x.jpg", "label": "blob", "predicted": "blob|noise"}
    row |= {"sha256": "0", "probabilities": {"blob": 0.9, "noise": 0.8}}
    (run / "predictions.jsonl").write_text("\n".join(96 * [json.dumps(row)]))
    page = written(run, tmp_path / "page.html")
    assert not absent(page, "exactly the right labels", "mean average precision", "blob|noise")


# figures


def test_names_that_no_font_has_are_numbers() -> None:
    assert drawable("shirt", 3) == "shirt"
    assert drawable("\U0010fffd", 3) == "\\U0010fffd"  # for private use: a code
    assert drawable("\u0378", 3) == "class 4"  # which stands for nothing yet
    assert drawable("\x1b[31m", 3) == r"\x1b[31m" and len(drawable("x" * 200, 0)) < 30


# bad input


@pytest.mark.parametrize("lang", LANGUAGES)
def test_names_are_inert(tmp_path: Path, lang: str) -> None:
    run = made(tmp_path / "run", ATTACKS, 60)
    page = written(run, tmp_path / REPORT, lang=lang, full=True)
    bare = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(?:script|img|iframe|object|a)\b", bare)
    assert not {"\x1b", "\u202e"} & {*page}
    assert not absent(page, "&lt;img src=x onerror=alert(1)&gt;", r"\x1b[31mred", r"\u202egnp.exe")
    assert "<bdi>חולצה {n} {0}</bdi>" in page


def test_a_thousand_classes_stay_readable_and_small(tmp_path: Path) -> None:
    run = made(tmp_path / "run", tuple(f"class {i:04}" for i in range(1000)), 4000)
    page = written(run, run / REPORT, full=True)
    assert len(page) < 1_500_000
    assert not absent(page, "The 60 classes with the most mistakes", "The 100 classes")
    with Image.open(run / "confusion.png") as image:
        assert max(image.size) < 4000
    some = made(tmp_path / "hundred", tuple(f"class {i:04}" for i in range(100)), 4000)
    page = written(some, tmp_path / "hundred.html")
    matrix = page[page.index("<svg") : page.index("</svg>")]
    assert all(matrix.count(f"class {i:04}") == 2 for i in range(100))  # in rows and columns


def test_what_is_missing_or_damaged_is_said(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    for name in ("review.json", "env.json", "log.txt"):  # an older version's has none
        (run / name).unlink()
    assert "foveate train DATA --config" in written(run, tmp_path / "page.html")
    (run / "predictions.jsonl").write_text('{"split": "test"}\n')
    with refused(ArtefactError, "run"):
        written(run, tmp_path / "page.html")
    (run / "predictions.jsonl").write_text("no JSON")
    with refused(ArtefactError, "predictions.jsonl"):
        written(run, tmp_path / "page.html")
    (run / "metrics.json").unlink()
    with refused(ArtefactError, "metrics.json"):
        written(run, tmp_path / "page.html")


def test_no_file_of_others_is_replaced(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text("mine")
    with refused(UsageError, "other.html"):
        written(trained, other)
    assert other.read_text() == "mine"
    with refused(UsageError, "page.pdf", ".html"):
        written(trained, tmp_path / "page.pdf")
    written(trained, tmp_path / "page.html")
    written(trained, tmp_path / "page.html", lang="zh")
    assert not (tmp_path / "confusion.png").exists()  # they are the run's
    Image.new("RGB", (9, 9)).save(tmp_path / "confusion.png")
    with refused(UsageError, "confusion.png"):
        plot_confusion(tmp_path / "confusion.png", [[1, 0], [0, 1]], ("a", "b"))
    shutil.copy(trained / "confusion.png", tmp_path / "ours.png")
    plot_confusion(tmp_path / "ours.png", [[1, 0], [0, 1]], ("a", "b"))


def test_a_report_that_cannot_be_written_does_the_run_no_harm(
    images: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / REPORT).write_text("mine")
    leave_report(Run(run, fresh=False), load_dataset(images), "en", 1, Silent())
    assert (run / REPORT).read_text() == "mine" and REPORT in caplog.text
    assert REPORT in (run / "log.txt").read_text().splitlines()[-1]


def test_report_from_the_command_line(trained: Path, images: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = foveate("report", trained, images, "--out", page, "--lang", "zh", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["report"] == str(page) and said["images"] == page.read_text().count("data:image")
    done = foveate("report", trained, "--out", page)
    assert done.returncode == 0 and "DATA" in done.stderr and "page.html" in done.stdout
    assert "data:image" not in page.read_text()
    assert foveate("report", tmp_path).returncode == 5
    assert foveate("report", trained, "--lang", "fr").returncode == 2


def test_predictions_that_were_cut_off(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    lines = (run / "predictions.jsonl").read_text().splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join(lines[:5]))
    for verb in ("report", "advise"):
        done = foveate(verb, run)
        assert done.returncode == 5 and not absent(
            done.stderr, "predictions.jsonl", " 5 lines", "96"
        )


def test_images_that_are_not_the_runs(
    trained: Path, images: Path, draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """A report with its images is not replaced by one without them."""
    page = tmp_path / "page.html"
    assert foveate("report", trained, images, "--out", page).returncode == 0
    before = page.read_bytes()
    others = draw_folder(tmp_path / "others", 2, first=500)
    done = foveate("report", trained, others, "--out", page)
    assert done.returncode == 4 and not absent(done.stderr, "others", "96", "trained on")
    assert page.read_bytes() == before
    shutil.copytree(images, tmp_path / "some")
    next((tmp_path / "some" / "train" / "blob").iterdir()).unlink()
    done = foveate("report", trained, tmp_path / "some", "--out", page)
    assert done.returncode == 0 and not absent(done.stderr, "1 of the 96", "blob")


def test_evaluate_leaves_a_report(
    trained: Path, images: Path, tmp_path: Path, backbone_cache: Path
) -> None:
    cache = {"FOVEATE_CACHE": str(backbone_cache)}
    done = foveate("evaluate", trained, images, "--out", tmp_path / "out", "--json", **cache)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / REPORT).read_text(encoding="utf-8")
    accuracy = json.loads(done.stdout)["accuracy"]
    assert not absent(page, percent(accuracy), "photos", "holds no images")
    assert (tmp_path / "out" / "confusion.png").is_file()


# calibration


@pytest.mark.parametrize(
    ("temper", "verdict"), [(1.0, "believe"), (3.0, "too_sure"), (0.3, "too_unsure")]
)
def test_whether_percentages_can_be_believed(temper: float, verdict: str) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3000, 3)) * 2
    p = softmax(logits)
    labels = (rng.random((3000, 1)) > p.cumsum(axis=1)).sum(axis=1)
    said = softmax(logits * temper)
    found = calibrate(reliability(said.max(axis=1), said.argmax(axis=1) == labels))
    assert found is not None and found.verdict == verdict
    assert found.error == pytest.approx(expected_calibration_error(said, labels))
    assert sum(b.n for b in found.bins) == 3000


def softmax(logits: Any) -> Any:
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True)


def test_of_few_images_nothing_is_said() -> None:
    found = calibrate(reliability(np.full(5, 0.9), np.zeros(5, bool)))
    assert found is not None and found.verdict is None
    assert calibrate([]) is None


# in a browser


@pytest.mark.slow
def test_the_report_in_a_browser(
    trained: Path, images: Path, tmp_path: Path, browser: Any, draw_folder: Callable[..., Path]
) -> None:
    if "FOVEATE_BROWSER" not in os.environ:  # as in CI, which has it
        pytest.importorskip("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    odd = made(tmp_path / "odd", ATTACKS, 60)
    written(odd, tmp_path / "odd.html", full=True)
    written(trained, tmp_path / "page.html", images, lang="zh", full=True)
    for name in ("odd.html", "page.html"):
        for width, scheme in ((360, "light"), (800, "dark"), (1400, "light")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            said: list[str] = []
            asked: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("dialog", lambda dialog, said=said: said.append(dialog.message))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto((tmp_path / name).as_uri())
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) <= 0, (name, width)
            assert not said and all(url.startswith(("file:", "data:")) for url in asked)
            page.close()
        # the checker is a script, which the page's own policy refuses
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto((tmp_path / name).as_uri())
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.set_viewport_size({"width": 688, "height": 900})  # of A4 between its margins
        page.emulate_media(media="print")
        assert page.evaluate(wide) <= 0, name
        page.pdf(path=str(tmp_path / "page.pdf"), prefer_css_page_size=True)
        assert (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n") <= 12
        context.close()
