"""`faceward models evaluate`: which threshold gives which rate of errors, on photos of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from faceward.evaluation.error_rates import ErrorRates, Rate

_STEP = 0.05
_LEAST, _MOST = 0.2, 0.8
_SIZES = 100, 1_000, 10_000, 100_000


def evaluate(
    ctx: typer.Context,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds PERSON/photo.jpg, two photos or more of each.")
    ],
    pack: Annotated[str | None, typer.Option("--pack", help="The pack; left out: the one in use.")] = None,
    faces: Annotated[
        int, typer.Option("--faces", min=1, help="Faces in the region that a threshold is wanted for.")
    ] = 1_000,
    fpir: Annotated[
        float,
        typer.Option("--fpir", min=0.0001, max=0.5, help="The share of strangers that may be taken for somebody."),
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Measure false matches and misses at each threshold, on photos of your own; nothing is stored.

    Of a photo with several faces the largest counts. Take photos as your cameras make them, of people unlike each other and
    alike: the rates are those of the photos you give.
    """
    from faceward.cli.photo_folder import folders_in, photos_in
    from faceward.errors import ImageError, ImageNotFoundError, InvalidValueError
    from faceward.evaluation.error_rates import MOST_PHOTOS, error_rates
    from faceward.factory import open_analyzer, pack_store

    photos = [(person.name, photo) for person in folders_in(directory) for photo in photos_in(person)]
    if not photos:
        raise ImageNotFoundError(f"{directory} holds no photos: they are looked for as {directory}/PERSON/photo.jpg.")
    if len(photos) > MOST_PHOTOS:
        raise InvalidValueError(
            "the number of photos", len(photos), f"at most {MOST_PHOTOS}: each is compared with each"
        )
    settings = invocation(ctx).settings()
    embeddings: list[NDArray[np.float32]] = []
    persons: list[str] = []
    unused = 0
    with output.download_bar("Fetching the models") as download:
        models = pack_store(settings, download.tell).get(pack or settings.model.pack, progress=download.progress)
    with open_analyzer(settings, models, threads=1) as analyzer, output.counting_bar() as bar:
        task = bar.add_task("photos", total=len(photos))
        for name, photo in photos:
            try:
                found = analyzer.analyze(photo, max_faces=1)
            except ImageError as exc:
                output.tell(str(exc))
                found = ()
            unused += not found
            embeddings += (face.embedding for face in found)
            persons += (name for _ in found)
            bar.advance(task)
        bar.update(task, description="comparisons", completed=0, total=len(embeddings))
        measured = error_rates(embeddings, persons, progress=lambda done: bar.update(task, completed=done))
        model = analyzer.model_id
    wanted = measured.threshold_for(faces, fpir)
    if as_json:
        output.print_json({"model_id": model, "unused": unused, "threshold": wanted, **_as_json(measured)})
    else:
        _print(measured, unused, faces, fpir, wanted)


def _print(measured: ErrorRates, unused: int, faces: int, fpir: float, wanted: float | None) -> None:
    told = [each for each in measured.rates if _LEAST <= each.threshold <= _MOST and _is_multiple(each.threshold)]
    table = output.new_table("threshold", "FMR", "FNMR", "FPIR", "FNIR", title="Measured")
    for each in told:
        shown = map(_shown, (each.fmr, each.fnmr, each.fpir, each.fnir))
        table.add_row(f"{each.threshold:.2f}", *shown)
    output.print_table(table)
    sizes = (f"{size:,} faces" for size in _SIZES)
    table = output.new_table("threshold", *sizes, title="FPIR by the region's faces, estimated from the FMR")
    for each in told:
        table.add_row(f"{each.threshold:.2f}", *(_shown(each.fpir_among(size)) for size in _SIZES))
    output.print_table(table)
    left_out = f"; {unused:,} photos without a face" if unused else ""
    output.say(
        f"{measured.photos:,} photos of {measured.persons:,} people: {measured.impostor_pairs:,} comparisons of two people, "
        f"{measured.genuine_pairs:,} of one, {measured.photos:,} searches among {measured.gallery:,} faces{left_out}. In "
        "brackets: 95 %, by drawing other people of these."
    )
    if wanted is None:
        output.say(
            f"So few people can't show, at any threshold, that at most {_percent(fpir)} of strangers are taken for somebody "
            f"among {faces:,} faces: give photos of more."
        )
    else:
        output.say(
            f"At most {_percent(fpir)} of strangers are taken for somebody among {faces:,} faces from {wanted:.2f} on."
        )


def _as_json(measured: ErrorRates) -> dict[str, object]:
    plain: dict[str, object] = output.plain(measured)
    plain["rates"] = [
        {**output.plain(rates), "fpir_by_faces": {str(size): output.plain(rates.fpir_among(size)) for size in _SIZES}}
        for rates in measured.rates
    ]
    return plain


def _is_multiple(threshold: float) -> bool:
    return abs(threshold / _STEP - round(threshold / _STEP)) < 1e-6


def _shown(rate: Rate) -> str:
    return f"{_percent(rate.value)} ({_percent(rate.low)} to {_percent(rate.high)})"


def _percent(rate: float) -> str:
    """Of two digits."""
    return "100%" if rate >= 0.995 else f"{rate * 100:.2g}%"
