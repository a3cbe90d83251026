"""Text on images: a font that has its letters, and lines that fit."""

from PIL import ImageFont

FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
    "wqy-microhei.ttc",
)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, or one of the system's that has all the letters, if there is one."""
    own = ImageFont.load_default(size)
    if isinstance(own, ImageFont.ImageFont) or has_letters(own, text):
        return own
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        if has_letters(font, text):
            return font
    return own


def has_letters(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether no letter of the text is drawn as one that no font has."""
    absent = bytes(font.getmask("\U0010ffff"))
    return not any(
        bytes(font.getmask(letter)) == absent for letter in set(text) if not letter.isspace()
    )


def shorten(text: str, room: int, size: int) -> str:
    """As much of the text as fits, with an ellipsis."""
    font = font_for(text, size)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text + "..."


def wrap(text: str, room: int, size: int) -> list[str]:
    """Lines that fit, broken at spaces."""
    lines = [""]
    font = font_for(text, size)
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > room and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
