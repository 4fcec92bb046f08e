"""What `faceward doctor` finds, point by point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Point:
    """mend: what to do where it fails."""

    name: str
    state: Literal["ok", "failed", "not reached"]
    detail: str = ""
    mend: str = ""
