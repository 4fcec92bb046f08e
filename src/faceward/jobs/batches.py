"""Stores the items of an import batch by batch, and counts them the same however often a batch was begun.

Before a batch is stored it is recorded what of it the gallery has. So whoever goes on after a crash can tell what the job
itself stored from what was there before, and stores nothing twice: the gallery knows each photo by its digest and each
person by the external id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from faceward.bulk_import import PersonRecord
from faceward.jobs.archive import ArchivedPhoto
from faceward.jobs.embedding_lines import EmbeddingLine
from faceward.photo_import import PhotoRecord, PhotoResult
from faceward.service import FaceService
from faceward.store.job_queue import Intent, JobProgress, JobQueue
from faceward.store.presence import PersonKey, PersonPhoto, Presence
from faceward.types import Job, JobRefusal

Item: TypeAlias = ArchivedPhoto | EmbeddingLine | JobRefusal

_MOST_BYTES = 32 * 1024 * 1024


def batches(items: Iterator[Item], most: int, until: int | None = None) -> Iterator[list[Item]]:
    """Lists of items that are worked on together, at most `most` and 32 MiB of photos, or one.

    until: where the first one ends, for it was begun before.
    """
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.data) if isinstance(item, ArchivedPhoto) else 0
        full = len(batch) >= most or size >= _MOST_BYTES
        if full if until is None else item.position + 1 >= until:
            yield batch
            batch, size, until = [], 0, None
    if batch:
        yield batch


@dataclass(slots=True)
class _Outcome:
    """persons: keys of those that the batch made. faces: stored."""

    persons: set[PersonKey] = field(default_factory=set)
    faces: int = 0
    skipped: int = 0
    refusals: list[JobRefusal] = field(default_factory=list)


class BatchStore:
    """Stores batches of one job. photo_workers: photos analysed at once."""

    def __init__(
        self, service: FaceService, queue: JobQueue, presence: Presence, job: Job, *, photo_workers: int = 1
    ) -> None:
        self._service = service
        self._queue = queue
        self._presence = presence
        self._job = job
        self._photo_workers = photo_workers

    def store(self, batch: Sequence[Item], progress: JobProgress, intent: Intent | None) -> JobProgress:
        """Store a batch and report it. intent: of this very batch, where it was begun before.

        Raises JobLostError where the job is another's now, ModelMismatchError, StoreError.
        """
        if self._job.region_limit is not None:
            self._job = self._queue.reload(self._job)  # renamed regions go on being its own, their old names don't
        outcome = _Outcome()
        photos: list[ArchivedPhoto] = []
        lines: list[EmbeddingLine] = []
        for item in batch:
            if isinstance(item, JobRefusal):
                outcome.refusals.append(item)
            elif not self._job.may_enter(_person(item)[0]):
                outcome.refusals.append(_out_of_reach(item))
            elif isinstance(item, ArchivedPhoto):
                photos.append(item)
            else:
                lines.append(item)
        until = batch[-1].position + 1
        if photos:
            self._store_photos(photos, self._intent(progress, until, intent, photos), outcome)
        elif lines:
            self._store_lines(lines, self._intent(progress, until, intent, lines), outcome)
        done = progress.plus(
            done=until - progress.done,
            persons=len(outcome.persons),
            faces=outcome.faces,
            skipped=outcome.skipped,
            refused=len(outcome.refusals),
        )
        self._queue.report(self._job, done, sorted(outcome.refusals, key=lambda refusal: refusal.position))
        return done

    def _intent(
        self,
        progress: JobProgress,
        until: int,
        begun: Intent | None,
        items: Sequence[ArchivedPhoto] | Sequence[EmbeddingLine],
    ) -> Intent:
        if begun is not None:
            return begun
        client_id = self._job.client_id
        there = self._presence.persons(client_id, list({_person(item) for item in items}))
        photos = {item.position: _photo(item) for item in items if isinstance(item, ArchivedPhoto)}
        known = self._presence.photos(client_id, list(photos.values())) if photos else frozenset()
        intent = Intent(
            progress.done,
            until,
            persons=frozenset(item.position for item in items if _person(item) in there),
            faces=frozenset(position for position, photo in photos.items() if photo in known),
        )
        self._queue.intend(self._job, intent)
        return intent

    def _store_photos(self, photos: Sequence[ArchivedPhoto], intent: Intent, outcome: _Outcome) -> None:
        results: list[PhotoResult] = []
        self._service.import_photos(
            [PhotoRecord(item.path.region, item.path.external_id, item.path.name, item.data) for item in photos],
            client_id=self._job.client_id,
            workers=self._photo_workers,
            several_faces=self._job.options.get("several_faces", "error"),
            on_result=results.append,
        )
        counted: set[PersonPhoto] = set()
        for item, result in zip(photos, results, strict=True):
            if result.status == "refused":
                outcome.refusals.append(JobRefusal(item.position, item.item, result.code, result.reason))
            elif _photo(item) in counted or (result.status == "skipped" and item.position in intent.faces):
                outcome.skipped += 1
            else:
                counted.add(_photo(item))
                outcome.faces += 1
                if item.position not in intent.persons:
                    outcome.persons.add(_person(item))

    def _store_lines(self, lines: Sequence[EmbeddingLine], intent: Intent, outcome: _Outcome) -> None:
        first = {_person(line): line for line in reversed(lines)}
        given = [line for line in lines if first[_person(line)] is line]
        report = self._service.import_embeddings(
            (
                PersonRecord(line.external_id, line.region, line.name, [line.embedding], line.description)
                for line in given
            ),
            client_id=self._job.client_id,
            model_id=self._job.options.get("model_id"),
        )
        filled = report.faces - report.persons  # of those who were there without a face
        outcome.faces += filled
        outcome.skipped -= filled
        refused = {
            given[refusal.position].position: (code, refusal.reason)
            for code, refusals in (("invalid_value", report.refusals), ("moved", report.moved_persons))
            for refusal in refusals
        }
        for line in lines:
            if line.position in refused:
                outcome.refusals.append(JobRefusal(line.position, line.item, *refused[line.position]))
            elif first[_person(line)] is not line or line.position in intent.persons:
                outcome.skipped += 1
            else:
                outcome.persons.add(_person(line))
                outcome.faces += 1


def _person(item: ArchivedPhoto | EmbeddingLine) -> PersonKey:
    if isinstance(item, ArchivedPhoto):
        return item.path.region, item.path.external_id
    return item.region, item.external_id


def _photo(item: ArchivedPhoto) -> PersonPhoto:
    return *_person(item), hashlib.sha256(item.data).digest()


def _out_of_reach(item: ArchivedPhoto | EmbeddingLine) -> JobRefusal:
    region = _person(item)[0]
    return JobRefusal(
        item.position, item.item, "region_not_allowed", f"The key that sent it may not work in region {region!r}."
    )
