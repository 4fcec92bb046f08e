"""Brings the people of older systems in: reads their files, and hands what can be used to a FaceService."""

from faceward.importers.accounts import Account, ImportAccount, RowProblem
from faceward.importers.assignment import RegionAssignment
from faceward.importers.sqlite import SqliteImport
from faceward.importers.sqlite_layout import parse_mappings
from faceward.importers.sqlite_source import SqliteSource

__all__ = [
    "Account",
    "ImportAccount",
    "RegionAssignment",
    "RowProblem",
    "SqliteImport",
    "SqliteSource",
    "parse_mappings",
]
