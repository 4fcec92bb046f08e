"""Imports that run in the background: their uploads, their readers, and the worker that runs them."""

from faceward.jobs.archive import ArchiveLimits
from faceward.jobs.embedding_lines import LineLimits
from faceward.jobs.imports import Imports, Upload
from faceward.jobs.set_aside import LargeImport
from faceward.jobs.worker import JobRunner, RunnerSettings

__all__ = ["ArchiveLimits", "Imports", "JobRunner", "LargeImport", "LineLimits", "RunnerSettings", "Upload"]
