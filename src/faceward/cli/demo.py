"""`faceward demo`: real photos, two clients with two regions each, and a table of who was found where."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation

if TYPE_CHECKING:
    from faceward.service import FaceService
    from faceward.settings import Settings
    from faceward.types import FaceMatch

DATABASE = "faceward_demo"
PICTURE = Path("demo-output") / "recognised.jpg"

OBAMA, BIDEN, COLLINS = "Barack Obama", "Joe Biden", "Eileen Collins"

SHOWN = {
    "obama.jpg": OBAMA,
    "obama2.jpg": OBAMA,
    "obama3.jpg": OBAMA,
    "obama_partial_face.jpg": OBAMA,
    "obama_partial_face2.jpg": OBAMA,
    "biden.jpg": BIDEN,
    "astronaut.png": COLLINS,
}
"""Who is in each photo."""


@dataclass(frozen=True, slots=True)
class Place:
    """A region of a client, the photo enrolled there, and whom it shows."""

    client_id: str
    region: str
    photo: str

    @property
    def person(self) -> str:
        return SHOWN[self.photo]

    def __str__(self) -> str:
        return f"client {self.client_id}, region {self.region}"


PLACES = (
    Place("acme", "A", "obama.jpg"),
    Place("acme", "B", "biden.jpg"),
    Place("globex", "A", "astronaut.png"),
    Place("globex", "B", "obama2.jpg"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one photo gave in one place. seconds: from the file to the answer."""

    photo: str
    place: Place
    face: FaceMatch | None
    seconds: float

    @property
    def expected(self) -> str | None:
        return self.place.person if SHOWN[self.photo] == self.place.person else None

    @property
    def found(self) -> str | None:
        return self.face.match.name if self.face and self.face.match else None

    @property
    def right(self) -> bool:
        return self.face is not None and self.found == self.expected


def demo(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Enroll people in two regions of two clients and recognise photos of them: a few seconds, nothing of yours is touched.

    Fetches the models (MIT licence) and seven photos in the public domain the first time; works without a network from
    then on. It has a database of its own on the PostgreSQL that comes with faceward, made anew at each run.
    """
    given = invocation(ctx)
    photos = _fetch(given.settings())
    with _demo_service(given.settings()) as service:
        for place in PLACES:
            service.enroll(photos[place.photo], name=place.person, region=place.region, client_id=place.client_id)
        service.recognize(photos["obama.jpg"], region="A", client_id="acme")  # so that no time includes a first use
        outcomes = [_recognise(service, photos, photo, place) for photo in SHOWN for place in PLACES]
    _draw(photos, outcomes)
    if as_json:
        output.print_json(_as_json(outcomes))
    else:
        _report(outcomes)
    if not all(outcome.right for outcome in outcomes):
        raise typer.Exit(1)


def _fetch(settings: Settings) -> dict[str, Path]:
    """Have the model pack and the photos on the disk."""
    from faceward.vision import PackStore, fetch_sample_photos

    with output.download_bar("Fetching the models") as download:
        PackStore(settings.home, notify=download.tell).get(progress=download.progress)
    with output.download_bar("Fetching the photos") as download:
        return fetch_sample_photos(settings.home, download.progress, notify=download.tell)


@contextmanager
def _demo_service(settings: Settings) -> Iterator[FaceService]:
    """A service with faceward's defaults on the demo's own database, whatever the settings say about both."""
    from faceward.factory import open_service
    from faceward.settings import DatabaseSettings, EnrollSettings, ImageSettings, ModelSettings, SearchSettings
    from faceward.store.embedded import EmbeddedServer
    from faceward.vision.files import process_lock

    lock = settings.home / "locks" / "demo.lock"
    with process_lock(lock, waiting=lambda: output.tell("Another demo is running; waiting for it.")):
        server = EmbeddedServer(settings.database_directory)
        try:
            server.drop_database(DATABASE)
            server.ensure_database(DATABASE)
            own = {
                "database": DatabaseSettings(url=server.url_of(DATABASE), pool_size=1),
                "model": ModelSettings(runtime=settings.model.runtime),
                "images": ImageSettings(),
                "enroll": EnrollSettings(),
                "search": SearchSettings(),
            }
            with open_service(settings.model_copy(update=own)) as service:
                yield service
        finally:
            server.close()


def _recognise(service: FaceService, photos: dict[str, Path], photo: str, place: Place) -> Outcome:
    start = time.perf_counter()
    answer = service.recognize(photos[photo], region=place.region, client_id=place.client_id)
    seconds = time.perf_counter() - start
    return Outcome(photo, place, answer.faces[0] if answer.faces else None, seconds)


def _draw(photos: dict[str, Path], outcomes: list[Outcome]) -> None:
    """Three people, each in the place where they are enrolled and in one where they are not."""
    from faceward.cli import annotate
    from faceward.vision import decode_image

    faces = {(outcome.photo, outcome.place): outcome.face for outcome in outcomes if outcome.face}
    rows = (
        (("obama3.jpg", PLACES[0]), ("biden.jpg", PLACES[1]), ("astronaut.png", PLACES[2])),
        (("obama3.jpg", PLACES[1]), ("biden.jpg", PLACES[3]), ("astronaut.png", PLACES[0])),
    )
    tiles = [
        [
            (annotate.draw_portrait(decode_image(photos[photo]), faces[photo, place], 320), str(place))
            for photo, place in row
            if (photo, place) in faces
        ]
        for row in rows
    ]
    if not all(tiles):
        return  # the table says which faces were not found
    annotate.save(annotate.contact_sheet(tiles, caption=40), PICTURE)


def _as_json(outcomes: list[Outcome]) -> dict[str, object]:
    return {
        "right": all(outcome.right for outcome in outcomes),
        "picture": str(PICTURE),
        "photos": [
            {
                "photo": outcome.photo,
                "client_id": outcome.place.client_id,
                "region": outcome.place.region,
                "found": outcome.found,
                "similarity": outcome.face.match.similarity if outcome.face and outcome.face.match else None,
                "expected": outcome.expected,
                "right": outcome.right,
                "seconds": round(outcome.seconds, 4),
            }
            for outcome in outcomes
        ],
    }


def _report(outcomes: list[Outcome]) -> None:
    from rich.text import Text

    console = output.stdout()
    console.print("Two companies use one faceward: the clients acme and globex, each with the regions A and B.")
    console.print("In each region one person was enrolled, with one photo:")
    for place in PLACES:
        console.print(f"  {place}: {place.person} ({place.photo})")
    console.print("Then each photo was looked up in each region, as a camera there would do:\n")
    table = output.new_table("photo", "client", "region", "found", "expected", "")
    shown = None
    for outcome in outcomes:
        if outcome.photo != shown:
            table.add_section()
        found = "no face" if outcome.face is None else "nobody"
        if outcome.face and outcome.face.match:
            found = f"{outcome.found}, {output.percent(outcome.face.match.similarity)}"
        table.add_row(
            outcome.photo if outcome.photo != shown else "",
            outcome.place.client_id,
            outcome.place.region,
            Text(found, "" if outcome.found else "dim"),
            Text(outcome.expected or "nobody", "" if outcome.expected else "dim"),
            Text("✓", "green") if outcome.right else Text("✗", "bold red"),
        )
        shown = outcome.photo
    console.print(table)
    wrong = [outcome for outcome in outcomes if not outcome.right]
    found_in_place = sum(outcome.found is not None for outcome in outcomes)
    if wrong:
        console.print(Text(f"{len(wrong)} of {len(outcomes)} answers are not as expected (✗ above).", "bold red"))
    else:
        console.print(
            f"Found where enrolled: {found_in_place} of {found_in_place}. Found in a wrong region or by a wrong client: "
            f"0 of {len(outcomes) - found_in_place}."
        )
    milliseconds = 1000 * statistics.median(outcome.seconds for outcome in outcomes)
    console.print(
        "Percent is 100 x cosine similarity; an enrolled photo finds itself with 100 %, and strangers lie near 0."
    )
    console.print(
        f"Time for one photo, from the file to the answer: {milliseconds:.0f} ms (median of {len(outcomes)})."
    )
    console.print(f"Annotated picture: {PICTURE}\n")
    console.print("Now with photos of your own:")
    command = _command()
    console.print(f'  {command} enroll alice.jpg --name "Alice" --region A')
    console.print(f"  {command} recognize camera.jpg --region A")


def _command() -> str:
    """What starts this program from where the user is: by its path where it is on no search path, as in .venv."""
    if shutil.which("faceward"):
        return "faceward"
    started = Path(sys.argv[0])
    return str(started.relative_to(Path.cwd())) if started.is_relative_to(Path.cwd()) else str(started)
