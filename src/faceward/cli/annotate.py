"""Draws what was recognised on the photo: a box for each face, with the person's name and the similarity in percent."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
from PIL import Image, ImageDraw, ImageFont

from faceward.types import Box
from faceward.vision.files import write_atomically

if TYPE_CHECKING:
    from faceward.types import FaceMatch
    from faceward.vision import DecodedImage

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
FOUND = (22, 128, 61)
NOBODY = (120, 113, 108)
_INK = (255, 255, 255)
_PAPER = (28, 25, 23)
_NOBODY_HERE = "nobody"

# Tried in this order where Pillow's own font lacks a letter; Pillow looks in the system's font folders.
_OTHER_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arialuni.ttf",
)


def draw_faces(photo: DecodedImage, faces: Iterable[FaceMatch]) -> Image.Image:
    """The photo, upright and at its full size, with its faces marked."""
    picture = to_picture(photo)
    for face in faces:
        _mark(picture, face.face.box, face)
    return picture


def draw_portrait(photo: DecodedImage, face: FaceMatch, side: int) -> Image.Image:
    """A square of `side` pixels around one face, which is marked."""
    picture, box = to_picture(photo), face.face.box
    wide, high = picture.size
    length = min(wide, high, 2.2 * box.height)
    left = max(0.0, min((box.left + box.right - length) / 2, wide - length))
    top = max(0.0, min((box.top + box.bottom - length) / 2, high - length))
    square = picture.resize((side, side), Image.Resampling.LANCZOS, (left, top, left + length, top + length))
    zoom = side / length
    moved = ((box.left - left) * zoom, (box.top - top) * zoom, (box.right - left) * zoom, (box.bottom - top) * zoom)
    _mark(square, Box(*moved), face)
    return square


def to_picture(photo: DecodedImage) -> Image.Image:
    """Pillow's form of a photo, at its full size."""
    return Image.fromarray(cv2.cvtColor(photo.at_full_scale().pixels, cv2.COLOR_BGR2RGB))


def label_of(face: FaceMatch) -> str:
    """Who it is and how alike, or nobody."""
    if face.match is None:
        return _NOBODY_HERE
    return f"{drawable_name(face.match.name, face.match.person_id)}  {face.match.match_score:.0f} %"


def drawable_name(name: str, person_id: int) -> str:
    """The name; where no font here has its letters, the name without its accents; else the person's number."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return next((text for text in (name, plain) if _font(text, 20) is not None), f"person {person_id}")


def contact_sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]], *, caption: int) -> Image.Image:
    """Squares of one size in rows, each with a line of text below it. caption: height of that line in pixels."""
    gap = 8
    side = rows[0][0][0].width
    width = max(len(row) for row in rows) * (side + gap) + gap
    sheet = Image.new("RGB", (width, len(rows) * (side + caption + gap) + gap), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for down, row in enumerate(rows):
        for across, (square, text) in enumerate(row):
            left, top = gap + across * (side + gap), gap + down * (side + caption + gap)
            sheet.paste(square, (left, top))
            pen.rectangle((left, top + side, left + side - 1, top + side + caption - 1), fill=_PAPER)
            middle = (left + side / 2, top + side + caption / 2)
            pen.text(middle, text, fill=_INK, font=ImageFont.load_default(caption * 0.5), anchor="mm")
    return sheet


def save(picture: Image.Image, path: Path, *, quality: int = 88) -> None:
    """Write the picture whole or not at all. path: its suffix is one of FORMATS. Raises OSError."""
    encoded = io.BytesIO()
    picture.save(encoded, FORMATS[path.suffix.lower()], quality=quality)
    write_atomically(path, (encoded.getvalue(),))


def _mark(picture: Image.Image, box: Box, face: FaceMatch) -> None:
    """A frame around the face, and its label above it, or inside it where there is no room above."""
    pen = ImageDraw.Draw(picture)
    colour, text = FOUND if face.match else NOBODY, label_of(face)
    wide, high = picture.size
    pen.rectangle(box.as_tuple(), outline=colour, width=max(2, round(max(wide, high) / 250)))
    height = max(12.0, max(wide, high) / 24)
    font = _font(text, height)
    margin, line = height / 3, 1.5 * height
    width = pen.textlength(text, font) + 2 * margin
    left = max(0.0, min(box.left, wide - width))
    top = box.top - line if box.top >= line else max(0.0, min(box.top, high - line))
    pen.rectangle((left, top, left + width, top + line), fill=colour)
    pen.text((left + margin, top + line / 2), text, fill=_INK, font=font, anchor="lm")


def _font(text: str, height: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont | None:
    """A font that has every letter of the text, or None."""
    built_in = ImageFont.load_default(height)
    if _draws(built_in, text):
        return built_in
    for name in _OTHER_FONTS:
        try:
            font = ImageFont.truetype(name, height)
        except OSError:
            continue
        if _draws(font, text):
            return font
    return None


def _draws(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> bool:
    """Whether no letter comes out as the box that stands for a missing one."""
    missing = bytes(font.getmask("\uffff"))
    letters = {letter for letter in unicodedata.normalize("NFC", text) if not letter.isspace()}
    return all(bytes(font.getmask(letter)) != missing for letter in letters)
