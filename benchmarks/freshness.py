"""Is every search as fresh as the database? Processes that write, search and are killed, and a check of what each saw.

    python benchmarks/freshness.py [--seconds 60] [--quick] [--json FILE] [--url URL]

Each process enrolls, moves, deletes, imports and searches at random, always by sketch; now and then one of them is
killed by SIGKILL and another takes its place. Every call is written to the process's own journal before it begins and
after it has returned, with the time of the machine's monotonic clock, which all processes share. Afterwards every search
is held against the journals of all processes:

- it returns nobody whose deletion, or move away, had returned before the search began, and nobody who was not there yet;
- the person whose own embedding is the probe is found, where the enrolment, or the move here, had returned before the
  search began and neither a deletion nor a move away had begun before it ended.

The exit status is 1 where a search broke a rule, or where too little happened to prove anything.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pgvector import Vector
from rich.console import Console

from faceward.retrieval import KeeperSettings, Retriever, SketchKeeper
from faceward.sketches import SketchCache
from faceward.store.bulk import BulkWriter, NewPerson
from faceward.store.database import Database, PoolSettings
from faceward.store.gallery import Gallery
from faceward.store.schema import Schema
from faceward.store.scopes import ScopeReader
from faceward.store.search import TAIL_LIMIT, FaceSearch
from faceward.types import Embedding, NewFace
from plots import plot_bars
from report import options, scratch_server, show, write_json

CLIENT, MODEL = "freshness", "freshness-model"
REGIONS = ("north", "south", "west")
PEOPLE_AT_FIRST = 400
"""In each region, so that a sketch has something to leave out."""
OWN = 0.999
"""A probe is its person's own embedding; all others are nearly orthogonal to it."""


def embedding_of(name: str) -> Embedding:
    """The embedding that stands for a person, from the name alone: any process can search for anybody."""
    vector = np.random.default_rng(list(name.encode())).standard_normal(512)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


# What happened, as the journals tell it


@dataclass(frozen=True, slots=True)
class Change:
    """A write. begun, ended: nanoseconds; ended is infinite where the process died before the call returned.
    region: where the person is afterwards; None: nowhere.
    """

    begun: float
    ended: float
    region: str | None


@dataclass(frozen=True, slots=True)
class Search:
    """A search that returned. found: (name, region, similarity), best first. fresh: rows that no sketch proposed."""

    begun: float
    ended: float
    regions: tuple[str, ...]
    probe: str
    found: tuple[tuple[str, str, float], ...]
    fresh: int


@dataclass(slots=True)
class History:
    """All that the processes did. changes: of each person, in order; one process alone changes a person."""

    changes: dict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))
    searches: list[Search] = field(default_factory=list)
    operations: Counter[str] = field(default_factory=Counter)
    interrupted: int = 0

    def add(self, lines: Iterable[str]) -> None:
        """Read one process's journal. Its last line may be half written, and its last call may not have returned."""
        open_call: dict[str, Any] | None = None
        for line in lines:
            if not line.endswith("\n"):
                break
            entry = json.loads(line)
            if "call" in entry:
                open_call = entry
                continue
            assert open_call is not None
            self._close(open_call, entry["at"], entry)
            open_call = None
        if open_call is not None:
            self.interrupted += 1
            self._close(open_call, float("inf"), {})

    def _close(self, call: dict[str, Any], ended: float, result: dict[str, Any]) -> None:
        if ended < float("inf"):
            self.operations[call["call"]] += 1
        if call["call"] != "search":
            for name in call["names"]:
                self.changes[name].append(Change(call["at"], ended, call["region"]))
        elif ended < float("inf"):
            found = tuple((name, region, similarity) for name, region, similarity in result["found"])
            self.searches.append(
                Search(call["at"], ended, tuple(call["regions"]), call["probe"], found, result["fresh"])
            )

    def possible_regions(self, name: str, begun: float, ended: float) -> set[str | None]:
        """Where a person may have been at some moment of that time; None: nowhere."""
        changes = self.changes.get(name, [])
        # The last change that had returned, and every later one that had begun. A call that never returned may have
        # done its work at any time.
        settled = bisect_left([change.ended for change in changes], begun)
        started = bisect_right([change.begun for change in changes], ended)
        before = changes[settled - 1].region if settled else None
        return {before, *(change.region for change in changes[settled:started])}


def violations(history: History) -> Iterator[str]:
    """What the searches got wrong, in words."""
    for search in history.searches:
        where = ", ".join(search.regions)
        for name, region, _ in search.found:
            possible = history.possible_regions(name, search.begun, search.ended)
            if region not in possible:
                yield f"a search of {where} returned {name} in {region}; at that time: {_said(possible)}"
        possible = history.possible_regions(search.probe, search.begun, search.ended)
        must_be_found = bool(possible) and all(region in search.regions for region in possible)
        nearest = search.found[0] if search.found else ("nobody", "", 0.0)
        if must_be_found and not (nearest[0] == search.probe and nearest[2] >= OWN):
            yield f"a search of {where} missed {search.probe}, who was in {_said(possible)}; nearest: {nearest}"


def _said(regions: set[str | None]) -> str:
    return " or ".join(sorted(region or "nowhere" for region in regions))


def sought(history: History) -> int:
    """Searches that had somebody to find for certain."""
    return sum(
        all(region in search.regions for region in history.possible_regions(search.probe, search.begun, search.ended))
        for search in history.searches
    )


# The processes


class _Counters(Protocol):
    def __getitem__(self, number: int) -> int: ...
    def __setitem__(self, number: int, value: int) -> None: ...
    def __len__(self) -> int: ...


class Journal:
    """Appends to a file at once: what was written before a SIGKILL is there after it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, **entry: Any) -> None:
        self._file.write(json.dumps({"at": time.monotonic_ns(), **entry}).encode() + b"\n")

    @contextmanager
    def call(self, name: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Writes the call, and when it returned what the block put into the result."""
        result: dict[str, Any] = {}
        self.write(call=name, **arguments)
        yield result
        self.write(**result)


class Worker:
    """One process's own people, whom it alone changes; it searches for everybody's.

    counters: how many people each process has enrolled so far, shared by all. They are named by process and number.
    """

    def __init__(self, url: str, number: int, journal: Path, counters: _Counters) -> None:
        self._number = number
        self._counters = counters
        self._random = random.Random(number)
        self._journal = Journal(journal)
        self._people: dict[str, tuple[int, str]] = {}
        self._database = Database(url, pool=PoolSettings(pool_size=2, max_overflow=2))
        self._gallery = Gallery(self._database, MODEL)
        self._bulk = BulkWriter(self._database, self._gallery, MODEL)
        self._keeper = SketchKeeper(
            ScopeReader(self._database, MODEL, 512),
            SketchCache(1 << 28),
            # A short tail and pause, so that sketches are loaded, extended and behind, all in one run.
            KeeperSettings(tail=24, idle_seconds=0.5),
        )
        self._retriever = Retriever(
            FaceSearch(self._database), self._gallery, self._keeper, model_id=MODEL, dimension=512
        )
        for region in REGIONS:
            self._retriever.warm(CLIENT, region)

    def run(self, until: float) -> None:
        operations = [self.search, self.enroll, self.enroll_slowly, self.move, self.delete, self.load_anew, self.burst]
        weights = [60, 14, 2, 14, 8, 1, 0.15]
        while time.monotonic() < until:
            self._random.choices(operations, weights)[0]()

    def search(self) -> None:
        scopes = [REGIONS[:1], REGIONS[1:2], REGIONS[2:], REGIONS[:2], REGIONS]
        regions = self._random.choices(scopes, [2, 2, 2, 2, 3])[0]
        probe = self._somebody()
        embedding = embedding_of(probe)
        with self._journal.call("search", regions=regions, probe=probe) as result:
            (answer,) = self._retriever.find(CLIENT, regions, [embedding], top_k=3, strategy="sketch")
            result["found"] = [(found.name, found.region, found.similarity) for found in answer.candidates]
            result["fresh"] = answer.fresh

    def enroll(self) -> None:
        name, region = self._new_name(), self._random.choice(REGIONS)
        face = NewFace(embedding_of(name))
        with self._journal.call("enroll", names=[name], region=region):
            person, _ = self._gallery.create_person(CLIENT, region, name, [face])
        self._people[name] = (person.id, region)

    def enroll_slowly(self) -> None:
        """The row gets its version long before others can see it."""
        name, region = self._new_name(), self._random.choice(REGIONS)
        with self._journal.call("enroll slowly", names=[name], region=region), self._database.transaction(CLIENT) as tx:
            person_id = tx.exec_driver_sql(
                "INSERT INTO persons (client_id, region, name) VALUES (%s, %s, %s) RETURNING id",
                (CLIENT, region, name),
            ).scalar_one()
            tx.exec_driver_sql(
                "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding) "
                "VALUES (%s, %s, %s, %s, %s)",
                (CLIENT, person_id, region, MODEL, Vector(embedding_of(name))),
            )
            time.sleep(self._random.uniform(0.05, 0.4))
        self._people[name] = (person_id, region)

    def burst(self) -> None:
        """More new faces at once than a search looks at beside its sketch."""
        names, region = [self._new_name() for _ in range(TAIL_LIMIT + 100)], self._random.choice(REGIONS)
        persons = [NewPerson(name, region, name, (embedding_of(name),)) for name in names]
        with self._journal.call("import", names=names, region=region):
            self._bulk.write(CLIENT, persons)

    def move(self) -> None:
        if not self._people:
            return
        name = self._random.choice(list(self._people))
        person_id, here = self._people[name]
        region = self._random.choice([other for other in REGIONS if other != here])
        with self._journal.call("move", names=[name], region=region):
            self._gallery.move_person(CLIENT, person_id, region)
        self._people[name] = (person_id, region)

    def delete(self) -> None:
        if not self._people:
            return
        name = self._random.choice(list(self._people))
        person_id, _ = self._people.pop(name)
        with self._journal.call("delete", names=[name], region=None):
            self._gallery.delete_person(CLIENT, person_id)

    def load_anew(self) -> None:
        self._keeper.load((CLIENT, self._random.choice(REGIONS)))

    def _new_name(self) -> str:
        # Counted before it is there: others search for it before, while and after it is stored.
        self._counters[self._number] += 1
        return f"{self._number}:{self._counters[self._number]}"

    def _somebody(self) -> str:
        """Mostly one of the newest people of any process, else one of those who were there at first."""
        if self._random.random() < 0.1:
            return f"0:{self._random.choice(REGIONS)}:{self._random.randrange(PEOPLE_AT_FIRST)}"
        number = self._random.choice([n for n in range(len(self._counters)) if self._counters[n]] or [self._number])
        newest = max(1, self._counters[number])
        oldest = max(1, newest - 30) if self._random.random() < 0.8 else 1
        return f"{number}:{self._random.randint(oldest, newest)}"


def work(url: str, number: int, journal: Path, counters: _Counters, until: float) -> None:
    Worker(url, number, journal, counters).run(until)


def prepare(url: str, journal: Path) -> None:
    """The people who are there at first; process 0 stands for them."""
    with Database(url) as database:
        writer = BulkWriter(database, Gallery(database, MODEL), MODEL)
        told = Journal(journal)
        for region in REGIONS:
            names = [f"0:{region}:{number}" for number in range(PEOPLE_AT_FIRST)]
            with told.call("import", names=names, region=region):
                writer.write(CLIENT, [NewPerson(name, region, name, (embedding_of(name),)) for name in names])


@dataclass(frozen=True, slots=True)
class Run:
    """kills: processes ended by SIGKILL. failures: processes that ended with an error of their own."""

    history: History
    kills: int
    failures: int


def run(url: str, seconds: float, processes: int, kill_every: float, directory: Path) -> Run:
    """Let the processes work for that time, and read what they wrote."""
    prepare(url, directory / "journal-0")
    context = multiprocessing.get_context("spawn")
    places = 1 + processes + int(seconds / kill_every) + 1
    # No lock guards the counters: a process may be killed while it would hold one.
    counters = context.RawArray(ctypes.c_int64, places)
    until = time.monotonic() + seconds
    started = kills = failures = 0
    running: list[Any] = []
    kill_at = time.monotonic() + kill_every + 1.0
    chance = random.Random(1)
    while time.monotonic() < until:
        while len(running) < processes and started + 1 < places:
            started += 1
            process = context.Process(
                target=work, args=(url, started, directory / f"journal-{started}", counters, until), daemon=True
            )
            process.start()
            running.append(process)
        time.sleep(0.05)
        for process in running:
            failures += process.exitcode not in (None, 0)
        running = [process for process in running if process.exitcode is None]
        if running and time.monotonic() >= kill_at:
            process = running.pop(chance.randrange(len(running)))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            kill_at = time.monotonic() + kill_every * chance.uniform(0.7, 1.3)
    for process in running:
        process.join()
        failures += process.exitcode != 0
    history = History()
    for path in sorted(directory.glob("journal-*")):
        with path.open(encoding="utf-8") as journal:
            history.add(journal)
    return Run(history, kills, failures)


def report(console: Console, outcome: Run, wrong: Sequence[str]) -> dict[str, Any]:
    history = outcome.history
    fresh = [search.fresh for search in history.searches]
    figures: dict[str, Any] = {
        "searches": len(history.searches),
        "searches with somebody to find": sought(history),
        "searches that met rows newer than their sketch": sum(count > 0 for count in fresh),
        "most newer rows met by one search": max(fresh, default=0),
        **{f"calls: {name}": count for name, count in sorted(history.operations.items()) if name != "search"},
        "processes killed": outcome.kills,
        "calls cut short by a kill": history.interrupted,
        "processes that failed": outcome.failures,
        "violations": len(wrong),
    }
    show(console, "Freshness", ("what", "count"), list(figures.items()))
    for line in wrong[:20]:
        console.print(line, markup=False)
    return figures


def main() -> int:
    parser = options((__doc__ or "").partition("\n")[0])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the processes work (default 60)")
    parser.add_argument("--processes", type=int, default=4, help="at work at the same time (default 4)")
    parser.add_argument("--kill-every", type=float, default=2.0, metavar="SECONDS", help="(default 2)")
    parser.add_argument("--url", help="an empty database; left out: a server of its own, thrown away afterwards")
    arguments = parser.parse_args()
    seconds = min(arguments.seconds, 10.0) if arguments.quick else arguments.seconds
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faceward-journals-")))
        url = arguments.url
        if url is None:
            server = stack.enter_context(scratch_server())
            server.ensure_database()
            url = server.url
        Schema(url).upgrade()
        outcome = run(url, seconds, arguments.processes, arguments.kill_every, directory)
    wrong = list(violations(outcome.history))
    figures = report(Console(), outcome, wrong)
    write_json(arguments.json, {"seconds": seconds, "processes": arguments.processes, **figures, "wrong": wrong[:100]})
    counts = {name: value for name, value in figures.items() if isinstance(value, int)}
    plot_bars(arguments.plot, f"{len(wrong)} wrong answers in {seconds:.0f} s", counts, "times")
    proved = figures["searches with somebody to find"] and figures["searches that met rows newer than their sketch"]
    return 0 if proved and not wrong and not outcome.failures else 1


if __name__ == "__main__":
    sys.exit(main())
