"""Which tables and columns of an SQLite file hold the persons and their faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from faceward.errors import ImportSourceError

# The roles, each with the names that columns of known systems have, the likeliest first.
ROLES: Mapping[str, tuple[str, ...]] = {
    "persons.id": ("id", "person_id", "user_id", "employee_id", "student_id", "uid"),
    "persons.name": (
        "name", "full_name", "fullname", "person_name", "display_name", "employee_name", "student_name", "user_name",
        "username", "label",
    ),
    "persons.description": ("description", "notes", "note", "comment", "remark"),
    "persons.region": (),  # the old systems have none: only a mapping says so
    "faces.id": ("id", "face_id", "encoding_id"),
    "faces.person_id": (
        "person_id", "user_id", "employee_id", "student_id", "member_id", "subject_id", "people_id", "personid", "userid",
        "person", "user",
    ),
    "faces.embedding": (
        "embedding", "encoding", "face_encoding", "face_embedding", "embeddings", "encodings", "descriptor", "feature",
        "features", "feature_vector", "face_vector", "vector", "template",
    ),
    "faces.image_path": (
        "image_path", "photo_path", "img_path", "file_path", "filepath", "image_file", "photo_file", "filename", "path",
    ),
    "faces.image": ("image_data", "image_blob", "photo_data", "image", "photo", "picture", "face_image", "img"),
}  # fmt: skip
_IMAGES = ROLES["faces.image_path"], ROLES["faces.image"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view. keys: column -> the table it refers to. rowid: by what name it has row ids of its own. problem: why it
    can't be read.
    """

    name: str
    columns: tuple[str, ...]
    keys: Mapping[str, str]
    rowid: str | None
    problem: str | None = None

    def column(self, names: Sequence[str]) -> str | None:
        found = {column.lower(): column for column in self.columns}
        return next((found[name] for name in names if name in found), None)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of tables and columns; None where there is no such column. single: one row is a person and a face."""

    persons: str
    faces: str
    columns: Mapping[str, str | None]

    @property
    def single(self) -> bool:
        return self.persons == self.faces

    def described(self) -> dict[str, str]:
        tables = {"persons": self.persons, "faces": self.faces}
        return {role: f"{tables[role.split('.')[0]]}.{column}" for role, column in self.columns.items() if column}


def parse_mappings(given: Sequence[str]) -> dict[str, tuple[str, str]]:
    """`persons.name=users.full_name` -> {"persons.name": ("users", "full_name")}. Raises ImportSourceError."""
    mappings: dict[str, tuple[str, str]] = {}
    for each in given:
        role, _, target = each.partition("=")
        table, _, column = target.rpartition(".")
        if role not in ROLES or not table or not column:
            raise ImportSourceError(
                f"--map {each} can't be used: write ROLE=TABLE.COLUMN, as persons.name=users.full_name. The roles are "
                f"{', '.join(ROLES)}."
            )
        mappings[role] = (table, column)
    return mappings


def recognise(tables: Sequence[Table], mappings: Mapping[str, tuple[str, str]], *, images_do: bool = False) -> Layout:
    """The layout, as mapped and otherwise by the names of tables and columns. Raises ImportSourceError.

    images_do: embeddings are not needed where there are images.
    """
    by_name = {table.name: table for table in tables}
    for role, (name, column) in mappings.items():
        if name not in by_name or column not in by_name[name].columns:
            raise ImportSourceError(f"--map {role}={name}.{column}: there is no such column. {_shown(tables)}")
    faces = _mapped_table("faces", mappings, by_name) or _faces_table(tables, images_do=images_do)
    persons = _mapped_table("persons", mappings, by_name) or _persons_table(faces, tables, mappings)
    columns: dict[str, str | None] = {}
    for role, names in ROLES.items():
        table = persons if role.startswith("persons.") else faces
        columns[role] = mappings[role][1] if role in mappings else table.column(names)
    if "faces.person_id" not in mappings and persons is not faces:
        declared = [column for column, target in faces.keys.items() if target.lower() == persons.name.lower()]
        columns["faces.person_id"] = declared[0] if declared else columns["faces.person_id"]
    if persons is faces:
        # One row is a person with a face, unless a column is said to name the person: then rows that share it are one.
        own = mappings.get("faces.person_id") or mappings.get("persons.id")
        columns["persons.id"] = columns["faces.person_id"] = own[1] if own else columns["persons.id"]
    needed = ["persons.name"]
    if not (images_do and (columns["faces.image_path"] or columns["faces.image"])):
        needed.append("faces.embedding")
    missing = [role for role in needed if columns[role] is None]
    if persons is not faces:
        missing += [role for role in ("persons.id", "faces.person_id") if columns[role] is None]
    elif columns["persons.id"] is None and not persons.rowid:
        missing.append("persons.id")
    if missing:
        raise _unknown(f"No column is known for {', '.join(missing)}.", tables)
    return Layout(persons.name, faces.name, columns)


def _mapped_table(kind: str, mappings: Mapping[str, tuple[str, str]], by_name: Mapping[str, Table]) -> Table | None:
    names = sorted({table for role, (table, _) in mappings.items() if role.startswith(f"{kind}.")})
    if len(names) > 1:
        raise ImportSourceError(f"--map: the columns of {kind} must be of one table, not of {' and '.join(names)}.")
    return by_name[names[0]] if names else None


def _faces_table(tables: Sequence[Table], *, images_do: bool) -> Table:
    found, what = [table for table in tables if table.column(ROLES["faces.embedding"])], "embeddings"
    if not found and images_do:
        found, what = [table for table in tables if any(map(table.column, _IMAGES))], "images"
        # A person's own row may show one, too.
        found = [table for table in found if table.column(ROLES["faces.person_id"])] or found
    if len(found) != 1:
        several = f"Several tables may hold the {what}: {', '.join(table.name for table in found)}."
        raise _unknown(several if found else f"No table holds a column with {what} by a name that is known.", tables)
    return found[0]


def _persons_table(faces: Table, tables: Sequence[Table], mappings: Mapping[str, tuple[str, str]]) -> Table:
    others = {
        table.name.lower(): table for table in tables if table.column(ROLES["persons.name"]) and table is not faces
    }
    mapped = mappings.get("faces.person_id")
    key = mapped[1] if mapped else faces.column(ROLES["faces.person_id"])
    for column, target in faces.keys.items():
        if target.lower() in others and (key is None or column == key or mapped is None):
            return others[target.lower()]
    if key is not None:
        stem = key.lower().removesuffix("id").removesuffix("_")
        for name in (f"{stem}s", stem, "persons", "people", "users"):
            if name in others:
                return others[name]
        if len(others) == 1:
            return next(iter(others.values()))
    if faces.column(ROLES["persons.name"]):
        return faces
    raise _unknown(f"No table of persons is known for the faces in {faces.name}.", tables)


def _unknown(what: str, tables: Sequence[Table]) -> ImportSourceError:
    return ImportSourceError(
        f"{what} {_shown(tables)} Say which they are, as --map persons.name=users.full_name --map "
        "faces.person_id=encodings.user_id --map faces.embedding=encodings.data (or, with --re-embed, faces.image_path)."
    )


def _shown(tables: Sequence[Table]) -> str:
    listed = "; ".join(
        f"{table.name} ({', '.join(table.columns[:20]) if table.problem is None else f'unreadable: {table.problem}'})"
        for table in tables[:20]
    )
    return f"The file has: {listed or 'no table'}."
