"""Brings the people of older systems in: reads what they left, and hands what can be used to a FaceService."""

from faceward.importers.accounts import Account, ImportAccount, RowProblem
from faceward.importers.assignment import RegionAssignment
from faceward.importers.compreface import compreface
from faceward.importers.csv_source import CsvSource, parse_columns
from faceward.importers.deepface import deepface
from faceward.importers.join import SourceImport, check_source
from faceward.importers.model_check import require_model
from faceward.importers.postgres_source import PostgresSource
from faceward.importers.rows import Source
from faceward.importers.source_import import plan_import, run_import
from faceward.importers.sqlite_layout import parse_mappings
from faceward.importers.sqlite_source import SqliteSource

__all__ = [
    "Account",
    "CsvSource",
    "ImportAccount",
    "PostgresSource",
    "RegionAssignment",
    "RowProblem",
    "Source",
    "SourceImport",
    "SqliteSource",
    "check_source",
    "compreface",
    "deepface",
    "parse_columns",
    "parse_mappings",
    "plan_import",
    "require_model",
    "run_import",
]
