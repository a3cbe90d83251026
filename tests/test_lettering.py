"""Text on images."""

import pytest
from PIL import ImageFont

from foveate import lettering as module
from foveate.lettering import font_for, has_letters, shorten, wrap


def test_names_without_letters_in_our_font_look_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = ImageFont.load_default(16)
    assert isinstance(own, ImageFont.FreeTypeFont)
    assert has_letters(own, "dress") and not has_letters(own, "猫")
    assert font_for("dress", 16).getname() == own.getname()
    monkeypatch.setattr(module, "FONTS", ("none-such.ttf",))
    assert font_for("猫", 16).getname() == own.getname()
    monkeypatch.setattr(
        module, "has_letters", lambda font, text: font is not own and font.size == 17
    )
    larger = ImageFont.load_default(17)
    monkeypatch.setattr(module, "FONTS", ("some.ttf",))
    monkeypatch.setattr(ImageFont, "load_default", lambda size: own)
    monkeypatch.setattr(ImageFont, "truetype", lambda name, size: larger)
    assert font_for("猫", 16).size == 17


def test_text_fits() -> None:
    long = "a very long name of a class that nobody would use but somebody does"
    font = font_for(long, 14)
    assert shorten("short", 200, 14) == "short"
    assert shorten(long, 100, 14).endswith("...") and font.getlength(shorten(long, 100, 14)) <= 100
    lines = wrap(long, 150, 14)
    assert (
        len(lines) > 2
        and " ".join(lines) == long
        and all(font.getlength(line) <= 150 for line in lines)
    )
