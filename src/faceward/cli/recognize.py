"""`faceward recognize` and `faceward verify`."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, Client, Images, Regions, Replace, Threshold
from faceward.errors import ImageError
from faceward.target_files import check_target

if TYPE_CHECKING:
    from faceward.settings import Settings
    from faceward.types import FaceMatch, Recognition


def recognize(
    ctx: typer.Context,
    images: Images,
    region: Regions,
    client: Client = None,
    threshold: Threshold = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=100, help="Candidates shown for each face (JSON).")] = 5,
    annotate: Annotated[
        Path | None,
        typer.Option(
            "--annotate", metavar="OUT.jpg", help="Draw boxes and names on the photo into this file (one IMAGE only)."
        ),
    ] = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Who of a region is in a photo: one line for each face, the largest first."""
    if annotate is not None:
        _check_annotate(annotate, images, replace)
    given = invocation(ctx)
    answers: list[tuple[Path, Recognition | ImageError]] = []
    with given.open_service() as service:
        for image in images:
            try:
                answers.append(
                    (
                        image,
                        service.recognize(image, region=region, client_id=client, threshold=threshold, top_k=top_k),
                    )
                )
            except ImageError as exc:  # of several photos one may be bad
                answers.append((image, exc))
    if annotate is not None:
        for image, answer in answers:
            if not isinstance(answer, ImageError):
                _draw(given.settings(), image, answer, annotate)
    if as_json:
        output.print_json([_as_json(image, answer) for image, answer in answers])
    else:
        _print_answers(answers)
    bad = [answer for _, answer in answers if isinstance(answer, ImageError)]
    for error in bad:
        output.fail(str(error))
    if bad:
        raise typer.Exit(1)
    if annotate is not None:
        output.tell(f"Annotated picture: {annotate}")


def verify(
    ctx: typer.Context,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A photo.", show_default=False)],
    other: Annotated[
        Path | None, typer.Argument(metavar="OTHER", help="A second photo, unless --person is given.")
    ] = None,
    person: Annotated[
        int | None, typer.Option("--person", metavar="ID", help="Compare with an enrolled person.")
    ] = None,
    client: Client = None,
    threshold: Threshold = None,
    as_json: AsJson = False,
) -> None:
    """Whether two photos, or a photo and an enrolled person, are the same person. Of each photo its largest face counts."""
    if (other is None) == (person is None):
        raise typer.BadParameter("give a second photo, or --person ID: one of the two.")
    with invocation(ctx).open_service() as service:
        answer = service.verify(image, other, person_id=person, client_id=client, threshold=threshold)
    if as_json:
        output.print_json(answer)
        return
    verdict = "The same person" if answer.verified else "Not the same person"
    output.say(
        f"{verdict}: similarity {output.percent(answer.similarity)}, threshold {output.percent(answer.threshold)}."
    )


def _check_annotate(path: Path, images: list[Path], replace: bool) -> None:
    """Before anybody is looked for: a picture that can't be written is no answer."""
    from faceward.cli.annotate import FORMATS

    if len(images) != 1:
        raise typer.BadParameter(f"--annotate takes one IMAGE, not {len(images)}.")
    if path.suffix.lower() not in FORMATS:
        raise typer.BadParameter(f"--annotate {path}: the file's name must end in {', '.join(FORMATS)}.")
    if path.exists() and images[0].exists() and path.samefile(images[0]):
        raise typer.BadParameter(f"--annotate {path} is the photo itself: name another file.")
    check_target(path, replace=replace)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such directory", str(path.parent))


def _draw(settings: Settings, image: Path, answer: Recognition, target: Path) -> None:
    from faceward.cli.annotate import draw_faces, save
    from faceward.vision import ImageLimits, decode_image

    limits = ImageLimits(max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels)
    save(draw_faces(decode_image(image, limits), answer.faces), target)


def _as_json(image: Path, answer: Recognition | ImageError) -> dict[str, Any]:
    if isinstance(answer, ImageError):
        return {"image": image, "error": {"code": answer.code, "message": str(answer)}}
    return {
        "image": image,
        "client_id": answer.client_id,
        "regions": answer.regions,
        "threshold": answer.threshold,
        "faces": [_face_as_json(found) for found in answer.faces],
    }


def _face_as_json(found: FaceMatch) -> dict[str, Any]:
    face = found.face
    return {
        "box": face.box,
        "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in face.landmarks],
        "confidence": face.confidence,
        "quality": face.quality,
        "decision": found.decision,
        "reason": found.reason,
        "threshold": found.threshold,
        "match": found.match,
        "rival": found.rival,
        "candidates": found.candidates,
    }


def _print_answers(answers: list[tuple[Path, Recognition | ImageError]]) -> None:
    table = output.new_table(
        "image", "face", "person", "name", "region", "similarity", right=("face", "person", "similarity")
    )
    for image, answer in answers:
        shown = str(image)
        if isinstance(answer, ImageError):
            table.add_row(shown, "", "", "can't be read", "", "")
            continue
        if not answer.faces:
            table.add_row(shown, "", "", "no face found", "", "")
        for number, found in enumerate(answer.faces, start=1):
            if found.match is None:
                row = ("", "nobody", "", "")
            else:
                match = found.match
                name = match.name if found.rival is None else f"{match.name}, or else {found.rival.name}"
                row = (str(match.person_id), name, match.region, output.percent(match.similarity))
            table.add_row(shown, str(number), *(cell for cell in row))
    output.print_table(table)
