"""AVIF by Pillow's own decoder, HEIC by that of the extra `heic`."""

import base64
import io
import struct
import sys
import zlib

import numpy as np
import pytest
from encoded import encode, scene
from PIL import Image
from refusals import refused

from foveate.data import image as module
from foveate.data.image import load_image, load_pixels
from foveate.errors import ImageError

# 48 x 32 pixels: a red, a lime, a blue and a white quarter; as it is, and turned by a quarter by
# the file's own `irot`, with the same turn in EXIF, as phones write it
UPRIGHT, TURNED = (
    zlib.decompress(base64.b85decode(text))
    for text in (
        (
            "c-"
            "muNV30{GsVvAy&8%Pmg51nBLl8SRGck>UfiWvLwIq=N0u(b+a*CjAhJwuG5(YG&l$n#C3}U!AFfalk5HR*ZXd"
            "rL|V&%-tyfiQmBq|Ezq%uKy8D+_aASPcyW=Sqw$*atQq5>d&I<p`-"
            "A4r!2l{quAZ~&R}EI^9nJ}~_G|KkS(13z;DP=~k!BM;;M{~!g-"
            "U=_?jCA*j$5`l7BPK=DG5))Vi6gJ(BnR4Bnk(Z4HB$fgqSQL_g$~jyZ4;D)pa7+N&B9d8LkP7vO0~Bi{=Oluh"
            "W&m}n0*L<q|NjRd%><+$fM_5VD9EhH1ZiaE-"
            "~hQ>JhLDd7No#XVrgVzX$CSqb5jyQA!@6^xISXXq<G;U+wFhP`~IzH;W~-"
            "py;1M4?=SxPbz#=b{nwvAu8ORCbk_O(GtTI<pBJ(Frn!1W82n()um8IN08x5r2L"
        ),
        (
            "c-"
            "muNV30{GsVvAy&8%Pmg51nBLl8SRGck>UfpKeYYDppk1Sn>t<P<^K3<a6VB@Af5Br_*J8N_gLU|?ck1hE)zLT"
            "Dgx1d0IxlN4M;1&A#&GxO5GJdms?kdq2l22_(#mTbs?B*+L-"
            ";#!djR?b(DS(3{DRmt!rv!JK|NMFe;NX`e+<v_j8j4T{L<~$3KBDoI?fBygY!N9=JoB-"
            "4z?!d^y`2Rmh0W(+yGf>GcCWl0zoR$+KBdWv%76FA#cVnhpH)rH!V*!b!fCv_aB%pE*7si9d5(XR-fVPNa78j"
            "&KJ?8+$8p%0{Ag38XovHw$|NsC00pw*M{Q&B9fr8A6Opr!q4i1pJIWvp$OMtdBNMsh|!lHnYfswV5iKV#}$d<"
            "}1N=<``^ChPgCxgQrWJPXnN+Kw7Y&96yN9>psFZ^S>{qK3-"
            "zZET9CsDjN>izZo#b3WJ%$m9X`t!$Ck#&#GI=_F$8GZKiB6i<2SFZ?zAI$mne>VUPV1tCVuP=iZkjKHm$S4E~"
            "5TGS&5PJb619ij"
        ),
    )
)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    block = exif.tobytes()
    expected = np.asarray(load_image(encode(scene(), "PNG", exif=block))).astype(int)
    found = np.asarray(load_image(encode(scene(), "AVIF", exif=block, quality=95)))
    assert found.shape == expected.shape and np.abs(found - expected).mean() < 3


def test_avif_in_every_mode() -> None:
    clear = scene().convert("RGBA")
    clear.putalpha(0)
    assert np.asarray(load_image(encode(clear, "AVIF"))).min() >= 254  # on white
    grey = np.asarray(load_image(encode(scene().convert("L"), "AVIF", quality=95)))
    assert np.abs(grey[..., 0] - np.asarray(scene().convert("L")).astype(int)).mean() < 3
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime")]
    film = encode(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(load_image(film)).astype(int) - np.asarray(frames[0])).max() < 9


def test_damaged_avif_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(scene(), "AVIF")
    for cut in (30, 200, len(data) - 20):
        with refused(ImageError, "'x'", "truncated", "remove it"):
            load_image(data[:cut], "x")
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    with refused(ImageError, "'x'", "48x64"):
        load_image(data, "x")


def test_heic_without_its_decoder_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pi_heif", "pi_heif.as_plugin"):
        monkeypatch.setitem(sys.modules, name, None)
    for data in (UPRIGHT, UPRIGHT.replace(b"ftypheix", b"ftypmif1", 1)):
        with refused(ImageError, "'x'", "HEIC", "pip install 'foveate[heic]'", "convert"):
            load_image(data, "x")


def quarters(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours of the corners, row by row, to the nearest of 0 and 255."""
    w, h = image.size
    corners = [(4, 4), (w - 4, 4), (4, h - 4), (w - 4, h - 4)]
    return [tuple(255 * (value > 127) for value in image.getpixel(at)) for at in corners]


RED, LIME, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def test_heic_is_decoded_and_turned_once() -> None:
    pytest.importorskip("pi_heif")
    for data in (UPRIGHT, UPRIGHT.replace(b"ftypheix", b"ftypmif1", 1)):
        image = load_image(data)
        assert (image.mode, image.size) == ("RGB", (48, 32))
        assert quarters(image) == [RED, LIME, BLUE, WHITE]
    turned = load_image(TURNED)
    assert (turned.size, quarters(turned)) == ((32, 48), [BLUE, RED, WHITE, LIME])
    assert np.array_equal(load_pixels(TURNED, "", 8), np.asarray(turned))


def test_damaged_heic_is_refused_and_a_bomb_before_allocation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin = pytest.importorskip("pi_heif.as_plugin")
    for cut in (100, 300, len(UPRIGHT) - 30):
        with refused(ImageError, "'x'", "remove it"):
            load_image(UPRIGHT[:cut], "x")
    size = UPRIGHT.index(b"ispe") + 8
    huge = UPRIGHT[:size] + struct.pack(">II", 50_000, 50_000) + UPRIGHT[size + 8 :]
    with refused(ImageError, "'x'", "50000x50000"):
        load_image(huge, "x")

    def load(_: object) -> None:
        raise AssertionError("memory was taken")

    monkeypatch.setattr(plugin.HeifImageFile, "load", load)
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    with refused(ImageError, "'x'", "48x32"):
        load_image(UPRIGHT, "x")


def test_reading_heic_does_not_change_what_the_host_reads() -> None:
    pytest.importorskip("pi_heif")
    load_image(UPRIGHT)
    assert "HEIF" not in Image.OPEN
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(UPRIGHT))
