"""The page, in Chromium: upload, paste, folder, errors, a slow network, dark, small, by keyboard;
axe finds no fault."""

import base64
import csv
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serving import Running
from sklearn.datasets import load_sample_images

pytestmark = pytest.mark.slow


@pytest.fixture
def requests() -> list[str]:
    """The addresses that the page of this test has asked for."""
    return []


@pytest.fixture
def visit(browser: Any, requests: list[str]) -> Iterator[Callable[..., Any]]:
    """A server, and options of the browser -> its page, which is ready."""
    contexts, faults = [], list[str]()

    def opened(server: Running, fragment: str = "", ready: bool = True, **options: Any) -> Any:
        context = browser.new_context(**({"locale": "en-US"} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if is_fault(line) else None)
        page.goto(f"http://127.0.0.1:{server.port}/{fragment}")
        if ready:
            page.wait_for_selector("#about:not(:empty)")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def is_fault(line: Any) -> bool:
    """What the console says of a status is the server's answer, and no fault of the page."""
    return line.type == "error" and "status of" not in line.text and "net::ERR" not in line.text


def check_axe(page: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


def give(page: Any, *files: Path) -> None:
    page.set_input_files("#files", [str(path) for path in files])


def test_an_image_is_answered_and_explained(
    server: Running, visit, requests, photos: list[Path]
) -> None:
    page = visit(server)
    check_axe(page)
    give(page, photos[0])
    page.wait_for_selector("#one:not([hidden])")
    row = server.image(photos[0].read_bytes()).json["predictions"][0]
    lines = page.locator("#bars tr")
    assert lines.count() == 3 and row["top"][0]["label"] in lines.first.inner_text()
    assert f"{100 * row['top'][0]['probability']:.1f}%" in lines.first.inner_text()
    answer = page.locator("#answer")
    assert row["label"].lower() in answer.inner_text().lower()
    assert page.evaluate("document.activeElement.id") == "answer"  # a screen reader goes on there
    page.click("#explain")
    page.wait_for_selector("#explained:not([hidden])")
    assert row["top"][0]["label"] in page.get_attribute("#map", "alt")
    assert "checks" in page.locator("#trust").inner_text()
    check_axe(page)
    assert {url.split("/")[2] for url in requests if not url.startswith("blob:")} == {
        f"127.0.0.1:{server.port}"
    }


def test_what_is_refused_is_none_of_these(server: Running, visit, tmp_path: Path) -> None:
    stranger = tmp_path / "china.jpg"
    Image.fromarray(load_sample_images().images[0]).save(stranger)
    row = server.image(stranger.read_bytes()).json["predictions"][0]
    assert row["rejected"] is not None
    page = visit(server)
    give(page, stranger)
    page.wait_for_selector("#one:not([hidden])")
    assert page.locator("#answer").inner_text() == "None of these"
    assert "learnt" in page.locator("#reason").inner_text() or "taught" in (
        page.locator("#reason").inner_text()
    )


def test_an_image_is_pasted(server: Running, visit, photos: list[Path]) -> None:
    page = visit(server)
    page.evaluate(
        """async ([text, name]) => {
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
        }""",
        [base64.b64encode(photos[0].read_bytes()).decode(), "pasted.jpg"],
    )
    page.wait_for_selector("#one:not([hidden])")
    assert page.locator("#name").inner_text() == "pasted.jpg"


def test_what_cannot_be_read_is_said(server: Running, visit, tmp_path: Path) -> None:
    page = visit(server)
    bad = tmp_path / "x.jpg"
    bad.write_bytes(b"no image")
    give(page, bad)
    page.wait_for_selector("#error:not([hidden])")
    assert "known format" in page.locator("#error").inner_text()
    assert page.locator("#one").is_hidden()
    check_axe(page)


def test_a_folder_becomes_a_table(
    server: Running, visit, images: Path, tmp_path: Path, photos: list[Path]
) -> None:
    folder = tmp_path / "folder"
    for i, photo in enumerate(photos):
        place = folder / ("sub" if i % 2 else "") / photo.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"=cmd() {i}.jpg").write_bytes(photo.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    page = visit(server, accept_downloads=True)
    page.set_input_files("#folder", str(folder))
    page.wait_for_selector(f'#status:has-text("Done: {len(photos) + 1} images")')
    assert page.locator("#rows tr").count() == len(photos) + 1
    assert "notes.txt" in page.locator("#skipped").inner_text()
    assert "1 unreadable" in page.locator("#summary").inner_text()
    check_axe(page)
    with page.expect_download() as download:
        page.click("#save")
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == len(photos) + 1 and set(rows[0]) >= {"file", "label", "probability", "blob"}
    by_name = {Path(row["file"]).name: row for row in rows}
    for i, photo in enumerate(photos):
        expected = server.image(photo.read_bytes()).json["predictions"][0]
        row = by_name[f"=cmd() {i}.jpg"]
        assert row["label"] == expected["label"]
        assert float(row["probability"]) == pytest.approx(expected["probability"], abs=1e-6)
    assert "known format" in by_name["broken.png"]["error"]


def test_a_slow_network_can_be_stopped(server: Running, visit, photos: list[Path]) -> None:
    page = visit(server)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 500}
    session.send("Network.emulateNetworkConditions", slow)
    give(page, photos[0])
    page.wait_for_selector('#status:has-text("Sending")')
    page.click("#stop")
    page.wait_for_selector('#status:has-text("Stopped")')
    session.send("Network.emulateNetworkConditions", slow | {"offline": True})
    give(page, photos[0])
    page.wait_for_selector("#error:not([hidden])")
    assert "reached" in page.locator("#error").inner_text()
    session.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    page.click("#again")
    page.wait_for_selector("#one:not([hidden])")


def test_a_busy_server_is_asked_again(serve, visit, photos: list[Path], monkeypatch) -> None:
    server = serve(waiting=16)
    page = visit(server)
    gate = threading.Event()
    outcomes = server.app.classifier.outcomes

    def gated(images: Any) -> Any:
        assert gate.wait(60)
        return outcomes(images)

    monkeypatch.setattr(server.app.classifier, "outcomes", gated)
    give(page, *(photos * 5)[:40])
    page.wait_for_selector('#status:has-text("busy")')
    gate.set()
    page.wait_for_selector('#status:has-text("Done: 40 images")')
    assert page.locator("#rows tr").count() == 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_and_dark(server: Running, visit, photos: list[Path], scheme: str) -> None:
    page = visit(server, viewport={"width": 360, "height": 640}, color_scheme=scheme)
    for files in (photos[:1], photos[:6]):
        give(page, *files)
        page.wait_for_selector('#status:has-text("Done")')
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        check_axe(page)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_chinese_is_spoken_and_kept(server: Running, visit, photos: list[Path]) -> None:
    page = visit(server, locale="zh-CN")
    assert page.get_attribute("html", "lang") == "zh-Hans"
    give(page, photos[0])
    page.wait_for_selector("#one:not([hidden])")
    assert "校准" in page.locator("#bars-title").inner_text()
    page.click("[data-lang=en]")
    assert "Calibrated" in page.locator("#bars-title").inner_text()
    page.reload()
    assert page.get_attribute("html", "lang") == "en"


def test_all_of_it_by_keyboard(server: Running, visit, photos: list[Path]) -> None:
    page = visit(server)
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.dataset.lang")
        )
    assert reached[:5] == ["en", "zh", "files", "camera", "folder"]
    page.focus("#files")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(str(photos[0]))
    page.wait_for_selector("#one:not([hidden])")
    page.keyboard.press("Tab")  # from the answer, which has the focus
    assert page.evaluate("document.activeElement.id") == "explain"
    page.keyboard.press("Enter")
    page.wait_for_selector("#explained:not([hidden])")


def test_the_token_is_asked_for_and_never_sent_in_an_address(
    serve, visit, requests: list[str], photos: list[Path]
) -> None:
    server = serve(token="s3cret")
    page = visit(server, ready=False)
    page.wait_for_selector("#entrance:not([hidden])")
    check_axe(page)
    page.fill("#token", "s3creT")
    page.keyboard.press("Enter")
    page.wait_for_selector("#error:not([hidden])")
    page.fill("#token", "s3cret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#about:not(:empty)")
    give(page, photos[0])
    page.wait_for_selector("#one:not([hidden])")
    other = visit(server, "#token=s3cret")
    assert "s3cret" not in other.url and not [url for url in requests if "s3cret" in url]


def test_names_are_inert(serve, visit, photos: list[Path], tmp_path: Path, monkeypatch) -> None:
    attack = "<img src=x onerror=alert(1)>"
    server = serve()
    classes = (attack, *server.app.classifier.classes[1:])
    monkeypatch.setattr(server.app.classifier, "classes", classes)
    page = visit(server)
    named = tmp_path / f"{attack}.jpg".replace("/", "")
    named.write_bytes(photos[0].read_bytes())
    give(page, named)
    page.wait_for_selector("#one:not([hidden])")
    assert attack in page.locator("#bars").inner_text()
    assert attack in page.locator("#name").inner_text()
    assert page.locator("main img").count() == 2


def test_documentation_is_accessible(server: Running, visit, requests: list[str]) -> None:
    page = visit(server)
    page.goto(f"http://127.0.0.1:{server.port}/docs")
    check_axe(page)
    assert {url.split("/")[2] for url in requests} == {f"127.0.0.1:{server.port}"}
