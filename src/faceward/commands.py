"""The commands that a message proposes, as a shell takes them."""

from __future__ import annotations

import shlex

from faceward.checks import DEFAULT_CLIENT


def command(words: str, *arguments: object, client_id: str) -> str:
    """`faceward` with these words and arguments, in a client; of ids and names nothing is left to the shell."""
    client = () if client_id == DEFAULT_CLIENT else ("--client", client_id)
    return " ".join(["faceward", words, *(shlex.quote(str(part)) for part in (*arguments, *client))])


def merge_command(person_id: int, other_id: int, *, client_id: str) -> str:
    """Makes two records of one person one: the earlier one, which other systems are likelier to know, stays."""
    early, late = sorted((person_id, other_id))
    return command("people merge", late, early, client_id=client_id)
