"""Which command or option helps with an error.

Errors say what holds for every caller, over HTTP too; a command adds its own.
"""

from __future__ import annotations

from faceward.errors import FacewardError, PersonSuspendedError

_BY_CODE = {
    "unknown_person": "`faceward people list` shows those that do.",
    "unknown_client": "`faceward clients list` shows those that do.",
    "unknown_key": "`faceward keys list` shows those that do.",
    "several_faces": "Here: --largest.",
    "likely_duplicate": "Here: --allow-duplicate.",
    "index_missing": "`faceward db index` builds it, where search.hnsw_index in the settings is true.",
    "different_regions": "Here: --across-regions.",
    "other_person": (
        "If so, import this source again with --source NAME, with which its external ids then begin; if it is the same person, "
        "change the name in the gallery first."
    ),
}


def advised(error: FacewardError) -> str:
    """The error's message, and what helps."""
    if isinstance(error, PersonSuspendedError):
        from faceward.commands import command

        words, rest = ("people expire", " --expires TIME") if error.expired else ("people resume", "")
        return f"{error} Here: `{command(words, error.person_id, client_id=error.client_id)}{rest}`."
    return advised_words(error.code, str(error))


def advised_words(code: str, message: str) -> str:
    """As `advised`, of an error that was kept as its code and message."""
    return f"{message} {_BY_CODE[code]}" if code in _BY_CODE else message
