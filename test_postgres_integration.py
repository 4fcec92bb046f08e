#!/usr/bin/env python3
"""Tries the whole of faceward on the database that config.json names: python test_postgres_integration.py

Connection, enrolment by region, vector search in the right and the wrong place, and a benchmark; a report, and exit
status 1 if anything failed. The people that it enrolls belong to two clients of its own. At the end it removes these with all
that was written of them, where the login (database.migration_url, else database.url) owns the tables. Otherwise it removes the
people, and the two clients remain with their audit log and decisions, which the service may not delete.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table
from rich.text import Text
from src.services.advanced_face_service import AdvancedFaceRecognitionService

import faceward
from faceward.bulk_import import PersonRecord
from faceward.cli import output
from faceward.cli.invocation import shown_url
from faceward.errors import AccessDeniedError, FacewardError, PackUnavailableError
from faceward.evaluation.noise_model import NoiseModel
from faceward.factory import Deployment
from faceward.store.database import SET_TENANT
from faceward.store.schema import CONTRACT_INDEXES, TENANT_TABLES
from faceward.vision import fetch_sample_photos

UNKNOWN = -1
OF_THE_SERVICE = ("face_encodings", "persons", "regions", "embedding_models")
"""Tables from which the service's role may delete all that the script wrote, in this order."""


class WrongAnswerError(Exception):
    """A part answered, and not as it must."""


class Skipped(Exception):  # noqa: N818 - no error
    """A point that can't be tried here."""


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    state: str
    detail: str
    seconds: float


class Report:
    """What was tried, printed as it happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.points: list[Point] = []
        self.remains = ""

    def try_point(self, name: str, work: Callable[[], str]) -> bool:
        """Run one point; it returns what to report, and raises where it fails."""
        start = time.perf_counter()
        try:
            state, detail = "passed", work()
        except Skipped as exc:
            state, detail = "skipped", str(exc)
        except (FacewardError, WrongAnswerError) as exc:
            state, detail = "failed", f"{type(exc).__name__}: {exc}"
        self.points.append(Point(name, state, detail, time.perf_counter() - start))
        return state != "failed"

    @property
    def passed(self) -> bool:
        return all(point.state != "failed" for point in self.points)

    def show(self) -> None:
        colours = {"passed": "green", "failed": "bold red", "skipped": "yellow"}
        table = Table(title="faceward on PostgreSQL", title_justify="left", show_lines=True)
        for heading in ("point", "", "what was found", "seconds"):
            table.add_column(heading, overflow="fold", justify="right" if heading == "seconds" else "left")
        for point in self.points:
            table.add_row(
                point.name, Text(point.state, colours[point.state]), Text(point.detail), f"{point.seconds:.2f}"
            )
        self._console.print(table)
        if self.remains:
            self._console.print(Text(self.remains))
        failed = sum(point.state == "failed" for point in self.points)
        verdict = "Everything passed." if not failed else f"Failed: {failed} of {len(self.points)} points."
        self._console.print(Text(verdict, "green" if not failed else "bold red"))


class Trial:
    """The points, on one service, with two clients that nobody else has."""

    def __init__(self, service: faceward.FaceService, home: Path, *, persons: int, searches: int) -> None:
        self._faceward = service
        self._service = AdvancedFaceRecognitionService(service=service)
        self._home = home
        self._persons = persons
        self._searches = searches
        run = uuid.uuid4().hex[:12]
        self.client, self.other_client = f"integration-test-{run}-1", f"integration-test-{run}-2"
        self._photos: dict[str, Path] = {}

    def enrolment(self) -> str:
        """Three people: two in regions A and B of a client, one in region A of another."""
        try:
            self._photos = fetch_sample_photos(self._home)
        except PackUnavailableError as exc:
            raise Skipped(f"The sample photos are not to be had here. {str(exc).splitlines()[0]}") from exc
        enrolled = [
            self._service.enroll_person(name, str(self._photos[photo]), region, client_id=client)
            for name, photo, region, client in (
                ("Barack Obama", "obama.jpg", "A", self.client),
                ("Joe Biden", "biden.jpg", "B", self.client),
                ("Eileen Collins", "astronaut.png", "A", self.other_client),
            )
        ]
        for person in enrolled:
            stored = self._faceward.get_person(person["person_id"], client_id=person["client_id"])
            expect(stored.region == person["region"], f"person {stored.id} is in region {stored.region}")
        return f"{len(enrolled)} people in regions A and B of two clients"

    def search(self) -> str:
        """Another photo of an enrolled man is found in his region, and nowhere else."""
        if not self._photos:
            raise Skipped("It needs the sample photos.")
        probe = cv2.imread(str(self._photos["obama2.jpg"]))
        assert probe is not None, "it was verified a moment ago"
        self._service.enroll_person(
            "Eileen Collins", str(self._photos["astronaut.png"]), "B", client_id=self.other_client
        )
        seen = []
        for region, client, expected in (
            ("A", self.client, "Barack Obama"),
            ("B", self.client, None),
            ("A", self.other_client, None),
            ("B", self.other_client, None),
        ):
            answer = self._service.recognize_face_with_threshold(probe, region=region, threshold=0.35, client_id=client)
            expect(len(answer["matches"]) == 1, f"{len(answer['matches'])} faces in a photo of one man")
            match = answer["matches"][0]
            found = None if match["person_id"] == UNKNOWN else match["name"]
            expect(found == expected, f"region {region}: found {found}, expected {expected}")
            if found:
                seen.append(f"{found}, {match['match_score']:.1f} %")
        return f"found in the right region ({seen[0]}); in the wrong region and by the wrong client nobody"

    def benchmark(self) -> str:
        """Synthetic people, spread as real faces are, searched by probes with a similarity of 0.7."""
        noise = NoiseModel.load()
        if noise.dimension != self._faceward.dimension:
            raise Skipped(
                f"The synthetic people have {noise.dimension} numbers, this model {self._faceward.dimension}."
            )
        rng = np.random.default_rng(1)
        gallery = noise.persons(self._persons, rng)
        start = time.perf_counter()
        stored = self._faceward.import_embeddings(
            (PersonRecord(str(number), "benchmark", f"Person {number}", [row]) for number, row in enumerate(gallery)),
            client_id=self.client,
        )
        import_seconds = time.perf_counter() - start
        expect(stored.persons == self._persons, f"{stored.persons} of {self._persons} people stored")

        sought = rng.integers(0, self._persons, self._searches)
        probes = noise.near(gallery[sought], 0.7, rng)
        self._faceward.search(probes[0], region="benchmark", client_id=self.client)  # no time includes a first use
        times, missed = [], 0
        for number, probe in zip(sought, probes, strict=True):
            start = time.perf_counter()
            found = self._faceward.search(probe, region="benchmark", client_id=self.client, top_k=1)
            times.append(time.perf_counter() - start)
            missed += not found or found[0].external_id != str(number)
        expect(missed == 0, f"{missed} of {self._searches} people were not found")
        median, p95 = 1000 * statistics.median(times), 1000 * float(np.percentile(times, 95))
        return (
            f"{self._searches} searches among {self._persons} people: median {median:.2f} ms, 95 % within {p95:.2f} ms, "
            f"nobody missed; imported at {self._persons / import_seconds:.0f} people a second"
        )


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongAnswerError(otherwise)


def describe(deployment: Deployment) -> str:
    status = deployment.schema.status()
    pgvector = status.pgvector or "not in this database yet"
    return f"{shown_url(deployment.url)}: PostgreSQL {status.server_version}, pgvector {pgvector}"


def describe_tables(deployment: Deployment) -> str:
    status = deployment.schema.status()
    expect(status.current, f"the tables are at version {status.revision}")
    expect(status.app_role_is_safe, "the role faceward_app is missing, or not bound by row-level security")
    missing = [name for name in CONTRACT_INDEXES if name not in status.indexes]
    expect(not missing or not deployment.settings.search.hnsw_index, f"missing: {', '.join(missing)}")
    return f"version {status.revision}, pgvector {status.pgvector}, indexes {', '.join(CONTRACT_INDEXES)}"


def remove(deployment: Deployment, client_ids: Sequence[str]) -> str:
    """Remove all rows of the clients, or those that may be removed; returns what is to be said of the others.

    The service must be closed: it writes decisions in the background.
    """
    try:
        with deployment.schema.transaction() as transaction:
            for client_id in client_ids:
                transaction.exec_driver_sql(SET_TENANT, (client_id,))
                delete_rows(transaction, client_id, reversed(TENANT_TABLES))
    except AccessDeniedError:  # no owner's login: the audit log and the decisions can only be added to
        with closing(deployment.connect()) as database:
            for client_id in client_ids:
                with database.transaction(client_id) as transaction:
                    delete_rows(transaction, client_id, OF_THE_SERVICE)
        return (
            f"The clients {' and '.join(client_ids)} remain, without people, with their audit log and decisions: only the "
            "tables' owner may delete those. `faceward purge` does when they are old enough."
        )
    return ""


def delete_rows(transaction: sa.Connection, client_id: str, tables: Iterable[str]) -> None:
    for table in tables:
        transaction.exec_driver_sql(f"DELETE FROM {table} WHERE client_id = %s", (client_id,))


def try_service(report: Report, console: Console, deployment: Deployment, *, persons: int, searches: int) -> None:
    try:
        service = faceward.open_service(deployment.settings, notify=console.print)
    except FacewardError as exc:
        report.points.append(Point("Service", "failed", f"{type(exc).__name__}: {exc}", 0.0))
        return
    trial = Trial(service, deployment.settings.home, persons=persons, searches=searches)
    try:
        with closing(service):
            report.try_point("Tables", lambda: describe_tables(deployment))
            report.try_point("Enrolment by region", trial.enrolment)
            report.try_point("Vector search", trial.search)
            report.try_point("Benchmark", trial.benchmark)
    finally:
        report.remains = remove(deployment, (trial.client, trial.other_client))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="the settings; left out: ./config.json where there is one")
    parser.add_argument("--persons", type=int, default=2000, help="synthetic people of the benchmark (default 2000)")
    parser.add_argument("--searches", type=int, default=300, help="searches of the benchmark (default 300)")
    arguments = parser.parse_args()
    if arguments.persons < 1 or arguments.searches < 1:
        parser.error("--persons and --searches must be 1 or more")

    console = output.stdout()
    report = Report(console)
    with ExitStack() as stack:
        try:
            settings = faceward.load_settings(arguments.config)
            deployment = stack.enter_context(closing(Deployment(settings)))
        except FacewardError as exc:
            failure = f"{type(exc).__name__}: {exc}"
            report.points.append(Point("Connection", "failed", failure, 0.0))
            report.show()
            return 1
        if report.try_point("Connection", lambda: describe(deployment)):
            try_service(report, console, deployment, persons=arguments.persons, searches=arguments.searches)
        report.show()
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
