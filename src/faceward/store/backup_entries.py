"""A backup's table of contents, as pg_restore lists it, and what of it is faceward's.

A file may hold more: an older faceward backed up the whole database, and whoever owns that may have added grants, policies
and triggers to faceward's tables, which name roles and functions that another server has not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from faceward.store.graph_index import NAME as GRAPH_INDEX
from faceward.store.own_tables import FUNCTION_PREFIX, NAMES, POLICIES, VERSION_TABLE

NEEDED = (VERSION_TABLE, "persons", "face_encodings")
# All that the migrations make. Of the rest pg_restore makes nothing: the extension is there by then, and faceward has no
# views, triggers or rules. The graph is built once all services go on.
_OF_TABLES = frozenset(("CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "DEFAULT", "ROW SECURITY", "POLICY"))
_BY_WHAT_THEY_NEED = frozenset(("INDEX", "SEQUENCE", "SEQUENCE SET", "SEQUENCE OWNED BY", "STATISTICS"))
_SILENT = frozenset(("COMMENT", "STATISTICS DATA"))
_ENTRY = re.compile(r"\d+; \d+ \d+ (?P<kind>[A-Z]+(?: [A-Z]+)*) (?P<schema>\S+) (?P<rest>.*)")
_PRIVILEGE = re.compile(r'(GRANT|REVOKE) .* (?:TO|FROM) (?P<role>"(?:[^"]|"")+"|[^\s";]+)(?: WITH GRANT OPTION)?;')


@dataclass(frozen=True, slots=True)
class Entry:
    """line: as pg_restore takes it again. needs: numbers of other entries. rest: what the line names, and its owner."""

    line: str
    number: str
    kind: str
    schema: str
    rest: str
    needs: frozenset[str]

    @property
    def name(self) -> str:
        """Of a table, or of what is a table's."""
        return self.rest.partition(" ")[0]

    @property
    def told(self) -> str:
        """Without its owner."""
        return f"{self.kind} {self.schema} {self.rest.rpartition(' ')[0]}"


@dataclass(frozen=True, slots=True)
class Contents:
    """schema: that of the tables. kept: the entries to restore, but for `privileges`. left_out: what is not faceward's."""

    schema: str
    kept: Sequence[Entry]
    privileges: Sequence[Entry]
    left_out: Sequence[str]

    @property
    def tables(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.kept if entry.kind == "TABLE")


def parsed(listing: str) -> list[Entry]:
    """The entries of `pg_restore --list --verbose`."""
    entries: list[Entry] = []
    for line in listing.splitlines():
        if found := _ENTRY.fullmatch(line):
            number = line.partition(";")[0]
            entries.append(Entry(line, number, found["kind"], found["schema"], found["rest"], frozenset()))
        elif entries and (needs := re.fullmatch(r";\s+depends on: ([\d ]+)", line)):
            last = entries[-1]
            entries[-1] = Entry(
                last.line, last.number, last.kind, last.schema, last.rest, frozenset(needs[1].split()) - {last.number}
            )
    return entries


def lacking(entries: Sequence[Entry]) -> list[str]:
    """The tables that every faceward has and this backup has not."""
    there = {entry.name for entry in entries if entry.kind == "TABLE"}
    return [name for name in NEEDED if name not in there]


def chosen(entries: Sequence[Entry]) -> Contents:
    """What of a backup that lacks nothing is faceward's."""
    schema = next(entry.schema for entry in entries if entry.kind == "TABLE" and entry.name == VERSION_TABLE)
    kept: dict[str, Entry] = {}
    foreign: set[str] = set()
    privileges, left_out = [], []
    # In the file's order each entry comes after those that it needs.
    for entry in entries:
        if entry.schema == "-" or entry.kind in _SILENT or (entry.kind == "INDEX" and entry.name == GRAPH_INDEX):
            continue  # of no schema: the extension, schemas, settings
        if _is_own(entry, schema, kept, foreign):
            kept[entry.number] = entry
        elif entry.kind == "ACL" and entry.needs & kept.keys():
            privileges.append(entry)
        else:
            # What is part of something left out goes with that unsaid.
            if not entry.needs & foreign or (entry.schema == schema and entry.name in NAMES):
                left_out.append(entry.told)
            foreign.add(entry.number)
    return Contents(schema, list(kept.values()), privileges, left_out)


def _is_own(entry: Entry, schema: str, kept: Collection[str], foreign: Collection[str]) -> bool:
    if entry.schema != schema:
        return False
    if entry.kind in ("TABLE", "TABLE DATA"):
        return entry.name in NAMES  # whatever a column of it needs: no restore does without
    if any(number in foreign for number in entry.needs):
        return False
    if entry.kind == "FUNCTION":
        return entry.rest.startswith(FUNCTION_PREFIX)
    if entry.kind in _BY_WHAT_THEY_NEED:
        return any(number in kept for number in entry.needs)
    if entry.kind not in _OF_TABLES or entry.name not in NAMES:
        return False
    return entry.kind != "POLICY" or entry.rest.split(" ")[1] in POLICIES


def granted(script: str, roles: Collection[str]) -> tuple[list[str], list[str]]:
    """The grants of pg_restore's SQL that concern these roles or everybody, and the roles of the others."""
    kept, unknown = [], set()
    for line in script.splitlines():
        found = _PRIVILEGE.fullmatch(line)
        if found is None:
            continue
        role = found["role"]
        role = role[1:-1].replace('""', '"') if role.startswith('"') else role
        if role == "PUBLIC" or role in roles:
            kept.append(line)
        else:
            unknown.add(role)
    return kept, sorted(unknown)
