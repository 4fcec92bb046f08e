"""Boxes and crops as the columns of a face hold them: numbers with commas between."""

from __future__ import annotations

from faceward.types import Box, Crop


def box_text(box: Box | None) -> str | None:
    """Of face_bbox."""
    return ",".join(f"{side:.1f}" for side in box.as_tuple()) if box else None


def box_of(text: str | None) -> Box | None:
    return Box(*(float(part) for part in text.split(","))) if text else None


def crop_text(crop: Crop | None) -> str | None:
    """Of image_box: the box, then the scale."""
    return ",".join(f"{number:.6g}" for number in (*crop.box.as_tuple(), crop.scale)) if crop else None


def crop_of(text: str | None) -> Crop | None:
    if not text:
        return None
    *sides, scale = (float(part) for part in text.split(","))
    return Crop(Box(*sides), scale)
