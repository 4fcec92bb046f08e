"""Whether a text names a person, as reports of imports do: by number, or by what the person is or was called.

In Python, not in SQL: an item is a path as some archive spelt it, and what it is compared with is composed, cleaned and of
another case. Both are brought to one spelling first, whatever the database's encoding and locale.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import permutations

from faceward.store.former_names import Identity

# Thai, Lao, Burmese, Khmer, Han, Kana, Hangul.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff\u3400-\u9fff\uac00-\ud7a3"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(r"[^\W_]+")
_RUN = re.compile(rf"\d+|[{_UNSPACED}]+|[^\W\d_{_UNSPACED}]+")
_ALL_UNSPACED = re.compile(rf"[{_UNSPACED}]+")
_BETWEEN = "[^a-z0-9]*"
_SEPARATOR = re.compile(r"[/\\]")
_QUOTED_OR_PATH = re.compile(
    r"""(?<!region )(?<!\w)'[^']*'(?!\w)|(?<!\w)"[^"]*"(?!\w)|\S*[/\\]\S*|\S+\.\w{3,4}(?!\w)"""
)
_LINE = re.compile(r"line \d+")
_ENDS = " '\".,:;"
_DISTINCTIVE = 4
"""Letters and digits of a name that no ordinary word of a report is, as long as it is written alike."""
_RARE = 8
"""Letters of several names written as one that are no part of somebody else's."""


class Naming:
    """What names one person.

    What has a sign in it (as "E-1") or several words counts wherever it stands. Of single words, long ones count anywhere in
    names of files and quotations, and in sentences where they are written alike ("Will" is not "will"); short ones, as "A"
    or "44", only in names of files, and not as the region: a word of two or three letters anywhere there, anything else as a
    whole part.

    In names of files and quotations words end at a digit and at a capital too ("AliceSmith2"), several may stand in any order,
    and what is longer may be a part of the photo's own name ("withalice.jpg"), unless that is the folder's too: of Anna nothing
    is found in Johanna/johanna.jpg. In scripts that put no spaces between words two letters are enough.

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
        self._in_parts = set[str]()
        self._short_ids = set[str]()
        self._any_order = set[frozenset[str]]()
        self._joined = set[str]()
        self._rare = set[str]()
        self._unspaced = set[str]()
        signs = set[str]()
        for text in (*identity.names, *identity.external_ids):
            spelt = _spelt(text)
            if not spelt.strip():  # nothing that can be seen: it would be found everywhere
                continue
            words = _words(spelt)
            small, letters = words.casefold(), len(words.replace(" ", ""))
            if not words or spelt.replace(" ", "").casefold() != small.replace(" ", ""):
                signs.add(re.escape(spelt.casefold()))
            if not words:
                self.clues.add(re.escape(spelt.casefold()))
                continue
            self._parts.add(small)
            if letters >= _DISTINCTIVE and words.count(" ") > 2:
                self._phrases.add(small)
            elif letters >= _DISTINCTIVE:
                self._in_fields.add(small)
                self._as_written.add(words)
            elif letters > 1 and text in identity.names and not words.strip().isdecimal():
                self._short.add(small)
            self._add_pieces(_pieces(spelt), _runs(spelt), is_name=text in identity.names)
        self._signs = re.compile(rf"(?<![^\W_])(?:{'|'.join(sorted(signs))})(?![^\W_])") if signs else None

    def _add_pieces(self, pieces: list[str], runs: list[str], *, is_name: bool) -> None:
        """What is looked for beside whole words. pieces, runs: of one name or external id, at least one each."""
        joined = "".join(pieces)
        only_letters = not any(piece.isdecimal() for piece in pieces)
        phrases = {_phrase(pieces), _phrase(runs)}
        if len(joined) >= _DISTINCTIVE:
            self._in_parts |= phrases
        elif only_letters and is_name and len(joined) > 1:
            self._short |= phrases
        elif len(pieces) > 1:
            self._short_ids |= phrases
        if _ALL_UNSPACED.fullmatch(joined):
            if len(joined) > 1:
                self._unspaced.add(joined)
            self.clues.add(_BETWEEN.join(joined))
            return
        if not only_letters or len(joined) < _DISTINCTIVE:
            self.clues.add(_BETWEEN.join(pieces))
            return
        self.clues.add(max(pieces, key=len))
        self._any_order |= {frozenset(words) for words in (pieces, runs) if len(words) > 1}
        orders = permutations(pieces) if len(pieces) <= 3 else (pieces, pieces[::-1])
        in_one = {"".join(order) for order in orders}
        self._joined |= in_one
        if len(pieces) > 1 and len(joined) >= _RARE:
            self._rare |= in_one

    def in_item(self, item: str) -> bool:
        """item: the name of a file in an archive, or the number of a line."""
        spelt = _spelt(item)
        return self._anywhere(spelt) or (_LINE.fullmatch(item) is None and self._in_field(spelt))

    def in_own_item(self, item: str) -> bool:
        """As `in_item`, but of REGION/PERSON/photo.jpg only where PERSON is this one and not a namesake: of Anna nothing that
        lies in Anna Meier's folder.
        """
        parts = _SEPARATOR.split(_spelt(item))
        return self.in_item(item) and (len(parts) != 3 or self._is_whole(parts[1]))

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
        if self._unspaced and _any_of(self._unspaced, small):
            return True
        return _any_of(self._phrases, _words(small))

    def _in_field(self, spelt: str) -> bool:
        cased = [part for part in _SEPARATOR.split(spelt.strip(_ENDS)) if part not in ("", ".")]
        parts = [part.casefold() for part in cased]
        in_place = len(parts) == 3  # REGION/PERSON/photo.jpg: many a region is called by letters
        first = 1 if in_place else 0
        whole = parts[1:2] if in_place else [*parts, *(part.rpartition(".")[0] for part in parts[-1:])]
        return (
            _any_of(self._in_fields, _words("/".join(parts)))
            or _any_of(self._short, _words("/".join(parts[first:])))
            or not self._parts.isdisjoint(map(_words, whole))
            or self._in_pieces([_pieces(part) for part in cased], [_runs(part) for part in cased], first)
            or (bool(parts) and "." in parts[-1] and self._inside(cased[-1], cased[first:-1]))
        )

    def _in_pieces(self, pieces: list[list[str]], runs: list[list[str]], first: int) -> bool:
        """pieces, runs: of each part of a path. first: the first of them that is not the region."""
        phrases = [_phrase(words) for words in (*pieces, *runs)]
        named = [_phrase(words) for each in (pieces, runs) for words in each[first:]]
        # Photos of everybody are called p1.jpg.
        ids = [_phrase(words) for each in (pieces, runs) for words in (each[1:2] if first else each)]
        words = {word for each in (pieces, runs) for part in each[first:] for word in part}
        return (
            any(_any_of(self._in_parts, phrase) for phrase in phrases)
            or any(_any_of(self._short, phrase) for phrase in named)
            or any(_any_of(self._short_ids, phrase) for phrase in ids)
            or any(each <= words for each in self._any_order)
            or not self._joined.isdisjoint(words)
            or any(_any_of(self._rare, run) for part in runs for run in part)
            or any(_any_of(self._unspaced, "".join(part)) for part in runs)
        )

    def _is_whole(self, folder: str) -> bool:
        """Whether it is called by the person's whole name or external id, with a number behind it or not."""
        pieces = _pieces(folder)
        return (
            _words(folder.casefold()) in self._parts
            or not {_phrase(pieces), _phrase(_runs(folder))}.isdisjoint(self._in_parts | self._short | self._short_ids)
            or "".join(piece for piece in pieces if not piece.isdecimal()) in self._joined
        )

    def _inside(self, file: str, folders: list[str]) -> bool:
        """Whether a word of a photo's own name has the person's inside."""
        of_folders = {run for folder in folders for run in _runs(folder)}
        return any(_any_of(self._joined, run) for run in _runs(file) if run not in of_folders)


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
    plain = "".join(char for char in taken_apart if not unicodedata.combining(char))
    return unicodedata.normalize("NFC", plain)  # Hangul is made of letters that are no accents


def _words(text: str) -> str:
    """The words of the text, each between spaces; empty where there is none."""
    words = _WORD.findall(text)
    return f" {' '.join(words)} " if words else ""


def _phrase(words: list[str]) -> str:
    return f" {' '.join(words)} "


def _runs(text: str) -> list[str]:
    """The text in small letters, cut at all that is no letter or digit, and between letters and digits."""
    return [run.casefold() for run in _RUN.findall(text)]


def _pieces(text: str) -> list[str]:
    """As `_runs`, cut at capitals too: "withAliceSmith", "ALICESmith"."""
    return [piece.casefold() for run in _RUN.findall(text) for piece in _humps(run)]


def _humps(run: str) -> list[str]:
    cuts = [
        at
        for at in range(1, len(run))
        if run[at].isupper() and (not run[at - 1].isupper() or run[at + 1 : at + 2].islower())
    ]
    return [run[start:end] for start, end in zip([0, *cuts], [*cuts, len(run)], strict=True)]


def _any_of(phrases: set[str], words: str) -> bool:
    return any(phrase in words for phrase in phrases)
