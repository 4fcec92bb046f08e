"""What `faceward doctor` finds, point by point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Point:
    """mend: what to do where it fails. A warning is of what the service itself does without."""

    name: str
    state: Literal["ok", "warning", "failed", "not reached"]
    detail: str = ""
    mend: str = ""
