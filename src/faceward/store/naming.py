"""Whether a text names a person, as reports of imports do: by number, or by what the person is or was called.

In Python, not in SQL: an item is a path as some archive spelt it, and what it is compared with is composed, cleaned and of
another case. Both are brought to one spelling first, whatever the database's encoding and locale.
"""

from __future__ import annotations

import re
import unicodedata

from faceward.store.former_names import Identity

_WORD = re.compile(r"[^\W_]+")
_BETWEEN = "[^a-z0-9]*"
_SEPARATOR = re.compile(r"[/\\]")
_QUOTED_OR_PATH = re.compile(r"""(?<!region )(?<!\w)'[^']*'(?!\w)|(?<!\w)"[^"]*"(?!\w)|\S*[/\\]\S*""")
_LINE = re.compile(r"line \d+")
_ENDS = " '\".,:;"
_DISTINCTIVE = 4
"""Letters and digits of a name that no ordinary word of a report is, as long as it is written alike."""


class Naming:
    """What names one person.

    What has a sign in it (as "E-1") or several words counts wherever it stands. Of single words, long ones count anywhere in
    names of files and quotations, and in sentences where they are written alike ("Will" is not "will"); short ones, as "A"
    or "44", only in names of files, and not as the region: a word of two or three letters anywhere there, anything else as a
    whole part.

    clues: regular expressions of PostgreSQL and Python alike; in the folded text of whatever names the person at least one of
    them is found, and as a rule in little else.
    """

    def __init__(self, identity: Identity) -> None:
        self._phrases = {f" person {number} " for number in identity.numbers}
        self.clues = {f"person[^a-z0-9]+{number}" for number in identity.numbers}
        self._in_fields = set[str]()
        self._as_written = set[str]()
        self._short = set[str]()
        self._parts = set[str]()
        signs = set[str]()
        for text in (*identity.names, *identity.external_ids):
            spelt = _spelt(text)
            if not spelt.strip():  # nothing that can be seen: it would be found everywhere
                continue
            words = _words(spelt)
            small, letters = words.casefold(), len(words.replace(" ", ""))
            self.clues.add(_BETWEEN.join(small.split()) if words else re.escape(spelt.casefold()))
            if not words or spelt.replace(" ", "").casefold() != small.replace(" ", ""):
                signs.add(re.escape(spelt.casefold()))
            if not words:
                continue
            self._parts.add(small)
            if letters >= _DISTINCTIVE and words.count(" ") > 2:
                self._phrases.add(small)
            elif letters >= _DISTINCTIVE:
                self._in_fields.add(small)
                self._as_written.add(words)
            elif letters > 1 and text in identity.names and not words.strip().isdecimal():
                self._short.add(small)
        self._signs = re.compile(rf"(?<![^\W_])(?:{'|'.join(sorted(signs))})(?![^\W_])") if signs else None

    def in_item(self, item: str) -> bool:
        """item: the name of a file in an archive, or the number of a line."""
        spelt = _spelt(item)
        return self._anywhere(spelt) or (_LINE.fullmatch(item) is None and self._in_field(spelt))

    def in_sentence(self, text: str) -> bool:
        """text: for people to read; it may quote names and paths."""
        spelt = _spelt(text)
        if self._anywhere(spelt) or _any_of(self._as_written, _words(spelt)):
            return True
        return any(self._in_field(found) for found in _QUOTED_OR_PATH.findall(spelt))

    def _anywhere(self, spelt: str) -> bool:
        small = spelt.casefold()
        if self._signs is not None and self._signs.search(small):
            return True
        return _any_of(self._phrases, _words(small))

    def _in_field(self, spelt: str) -> bool:
        small = spelt.casefold()
        parts = [part for part in _SEPARATOR.split(small.strip(_ENDS)) if part not in ("", ".")]
        if len(parts) == 3:  # REGION/PERSON/photo.jpg: many a region is called by letters
            parts, whole = parts[1:], parts[1:2]
        else:
            whole = [*parts, *(part.rpartition(".")[0] for part in parts[-1:])]
        return (
            _any_of(self._in_fields, _words(small))
            or _any_of(self._short, _words("/".join(parts)))
            or not self._parts.isdisjoint(map(_words, whole))
        )


def folded(text: str) -> str:
    """As texts are compared: of ASCII, the same in small letters."""
    return _spelt(text).casefold()


def _spelt(text: str) -> str:
    """Without accents and width, and without what can't be seen: reports show U+FFFD in its place."""
    if text.isascii() and text.isprintable():
        return text
    if not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    taken_apart = unicodedata.normalize("NFKD", text.replace("\ufffd", ""))
    return "".join(char for char in taken_apart if not unicodedata.combining(char))


def _words(text: str) -> str:
    """The words of the text, each between spaces; empty where there is none."""
    words = _WORD.findall(text)
    return f" {' '.join(words)} " if words else ""


def _any_of(phrases: set[str], words: str) -> bool:
    return any(phrase in words for phrase in phrases)
