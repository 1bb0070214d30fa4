"""Letters: which font has them, how wide a line is, where it may break. What Unicode calls a space is one, and never an empty box."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

from .direction import in_visual_order, levels, right_to_left
from .errors import InputError

Font = Path | None  # a font file; None for the one that Pillow brings, which knows ASCII
Fonts = tuple[Font, ...]  # in order of preference
Face = ImageFont.FreeTypeFont

NO_BREAK, MAY_BREAK = "\u00a0", "\u200b"  # a space that holds words together; no space, where a line may break
NO_BREAKS = "\u00a0\u2007\u202f"
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
NOT_FIRST = "、。，．・：；？！」』）］｝〕〉》】ーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ々…‥,.:;?!)]}’”"  # on a line
NOT_LAST = "「『（［｛〔〈《【([{‘“"
JOINERS = "\u200c\u200d"  # in Arabic, Persian and Indic scripts they change the letters beside them
NO_LETTER = "\U000f1ffe"  # a private-use code point: a font draws its box for missing glyphs


@lru_cache(maxsize=1)
def built_in() -> Fonts:
    """The fonts that are always there: Pillow's, DejaVu Sans (Latin, Greek, Cyrillic, Arabic and more), Noto Sans CJK (Japanese)."""
    found = find_spec("matplotlib")
    dejavu = Path(found.origin or "").parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" if found else Path()
    japanese = Path(__file__).parent / "fonts" / "NotoSansCJKjp-subset.otf"
    return (None, *(path for path in (dejavu, japanese) if path.is_file()))


@lru_cache(maxsize=64)
def face(font: Font, size: int) -> Face:
    """A font at a size in pixels.

    Raises:
        InputError: it is no font that can be read and scaled.
    """
    try:
        found = ImageFont.truetype(str(font), size) if font else ImageFont.load_default(size)
    except (OSError, ValueError) as error:
        raise InputError(f"title_font {font} is not a font that can be read") from error
    assert isinstance(found, Face)
    return found


def lines_of(text: str) -> list[str]:
    """The lines of a text, with plain spaces, NO_BREAK and MAY_BREAK in place of all of Unicode's; without marks that change nothing."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n")
    lines = [""]
    for c in text:
        if c in LINE_ENDS:
            lines.append("")
        elif c in NO_BREAKS:
            lines[-1] += NO_BREAK
        elif c == MAY_BREAK or not _unseen(c) or (c in JOINERS and lines[-1][-1:] >= "\u0590"):
            lines[-1] += " " if c.isspace() else c
    lines = [line.strip(f" {NO_BREAK}{MAY_BREAK}") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return lines


def _unseen(c: str) -> bool:
    """Whether a character only steers: joiners, direction marks, soft hyphens, variation selectors."""
    return unicodedata.category(c) == "Cf" or c == "\u034f" or "\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef"


def missing(text: str, fonts: Fonts) -> list[str]:
    """The letters of a text that none of the fonts has, each once."""
    return [c for c in dict.fromkeys("".join(lines_of(text))) if not any(_has(font, c) for font in fonts)]


@lru_cache(maxsize=65536)
def _has(font: Font, letter: str) -> bool:
    try:
        return letter in f" {NO_BREAK}{MAY_BREAK}" or _shape(font, letter) != _box(font)
    except OSError:  # the font is damaged in the shape of this letter
        return False


@lru_cache(maxsize=64)
def _box(font: Font) -> bytes:
    return _shape(font, NO_LETTER)


def _shape(font: Font, letter: str) -> bytes:
    mask = face(font, 32).getmask(letter)
    return bytes(mask) + repr(mask.size).encode()


def _runs(line: str, fonts: Fonts) -> list[tuple[Font, str, str]]:
    """Parts of a line from left to right, each with its font and direction.

    One font draws all where one has all, and Raqm orders the letters; else each letter is drawn by the first font that has it.
    """
    line, base = line.replace(NO_BREAK, " ").replace(MAY_BREAK, ""), "rtl" if right_to_left(line) else "ltr"
    if whole := [font for font in fonts if all(_has(font, c) for c in line)]:
        return [(whole[0], line, base)] if line else []
    each: list[Font] = []
    for c in line:  # spaces and accents are drawn by the font of what they follow
        follows = each and (c in f" {JOINERS}" or unicodedata.combining(c)) and _has(each[-1], c)
        each.append(each[-1] if follows else next((font for font in fonts if _has(font, c)), fonts[0]))
    at = iter(line)
    runs = groupby(zip(levels(line), each, strict=True))
    parts = [(level, (font, "".join(next(at) for _ in run), "rtl" if level % 2 else "ltr")) for (level, font), run in runs]
    return in_visual_order(parts)


@lru_cache(maxsize=16384)  # a line is measured again and again while it is wrapped
def width(line: str, fonts: Fonts, size: int) -> float:
    """Width of a line, pixels."""
    return sum(face(font, size).getlength(part) for font, part, _ in _runs(line, fonts))


def middle(line: str, fonts: Fonts, size: int) -> float:
    """Pixels from the middle of a line's height down to the foot of its letters."""
    ascent, descent = face(next(iter(_runs(line, fonts)), (fonts[0],))[0], size).getmetrics()
    return (ascent - descent) / 2


def reach(line: str, fonts: Fonts, size: int, outline: int) -> tuple[int, int]:
    """How far a line reaches above and below the foot of its letters, with stacked marks and an outline of that width, pixels."""
    boxes = [face(font, size).getbbox(part, anchor="ls", stroke_width=outline) for font, part, _ in _runs(line, fonts)]
    return max((-round(box[1]) for box in boxes), default=0), max((round(box[3]) for box in boxes), default=0)


def write(draw: ImageDraw.ImageDraw, at: tuple[float, float], line: str, fonts: Fonts, size: int, **style: object) -> None:
    """Draw a line.

    Args:
        at: (x, y), pixels: where the line begins, and the foot of its letters. style: as `ImageDraw.text` has it.
    """
    x, y = at
    for font, part, direction in _runs(line, fonts):
        found = face(font, size)
        ordered = {"direction": direction} if found.layout_engine == ImageFont.Layout.RAQM else {}
        draw.text((x, y), part, font=found, anchor="ls", **ordered, **style)  # type: ignore[arg-type]
        x += found.getlength(part)


def wrapped(line: str, limit: float, measure: Callable[[str], float]) -> list[str] | None:
    """The line in as many parts as it takes, none wider than the limit; None where a single word is wider.

    It breaks at spaces and, as Japanese is set, between ideographs and kana, but not before a closing mark or after an opening one.

    Args:
        measure: gives the width of a text.
    """
    parts = [""]
    for word in _words(line):
        if measure((parts[-1] + word).rstrip(" ")) <= limit:
            parts[-1] += word
        elif measure(word.rstrip(" ")) <= limit:
            parts.append(word)
        else:
            return None
    return [part.strip(f" {MAY_BREAK}") for part in parts if part] or [""]


def _words(line: str) -> list[str]:
    """What may not be broken, each with the spaces after it."""
    words = [""]
    for c in line:
        before = words[-1][-1:]
        if before and c != " " and (before in f" {MAY_BREAK}" or _breaks(before, c)):
            words.append("")
        words[-1] += c
    return words


def _breaks(before: str, after: str) -> bool:
    return (_wide(before) or _wide(after)) and NO_BREAK not in (before, after) and before not in NOT_LAST and after not in NOT_FIRST


def _wide(c: str) -> bool:
    return unicodedata.east_asian_width(c) in ("W", "F")
