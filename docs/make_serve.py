"""Draw docs/serve.jpg: the page of `foveate serve`, and beside it the same on a phone.

python docs/make_serve.py RUN PHOTO OTHER
"""

import io
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from foveate import Classifier
from foveate.server.app import App
from foveate.server.connection import http_server, listen

PHONE = {"width": 360, "height": 1060}
WHOLE = {"width": 880, "height": 1060}
GAP = 24


def screenshot(browser: Any, url: str, photo: str, explain: bool, **options: Any) -> Image.Image:
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#about:not(:empty)")
    page.set_input_files("#files", photo)
    page.wait_for_selector("#one:not([hidden])")
    if explain:
        page.click("#explain")
        page.wait_for_selector("#explained:not([hidden])")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    return image


def main(run: str, photo: str, other: str) -> None:
    app, listener = App(Classifier.load(run)), listen("127.0.0.1", 0)
    server = http_server(app)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with sync_playwright() as playwright:
        binary = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        whole = screenshot(browser, url, photo, True, viewport=WHOLE, locale="en-US")
        phone = {"viewport": PHONE, "locale": "zh-CN", "color_scheme": "dark"}
        small = screenshot(browser, url, other, False, **phone)
        browser.close()
    server.should_exit = True
    thread.join()
    app.close()
    sheet = Image.new("RGB", (whole.width + GAP + small.width, whole.height), (200, 206, 214))
    sheet.paste(whole, (0, 0))
    sheet.paste(small, (whole.width + GAP, 0))
    sheet.save(Path(__file__).with_name("serve.jpg"), quality=82)


if __name__ == "__main__":
    main(*sys.argv[1:])
