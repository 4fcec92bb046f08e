"""Photos in the public domain to show and test faceward with: official portraits, and one of NASA's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from faceward.vision.fetch import LocalArchive, Notify, PipArchive, Progress, Source, WantedFile, fetch_files


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """Photos that come in one archive. archive: the name under which it may be put into `downloads` by hand."""

    photos: tuple[WantedFile, ...]
    sources: tuple[Source, ...]
    archive: str
    archive_sha256: str
    how: str


def _portraits() -> PhotoSet:
    requirement, archive = "face_recognition==1.3.0", "face_recognition-1.3.0.tar.gz"
    sha256 = "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec"
    photos = {
        "obama.jpg": ("0930e3aa8cae5920329c0c8cbc6a2ab70f47b0e67b432875beaa95cbf7e741f6", 279_922),
        "obama2.jpg": ("a7efcc907375274796f39646510704aa86672d59f6d5469d69af3c85590976a6", 184_455),
        "obama3.jpg": ("76ac6bf97c36dc2da0ad16a537d6a5ac1b10f48d49aac29a0cca9a17cdbc3ca3", 595_944),
        "obama_partial_face.jpg": ("c2d1f09e7ef3042352b41e41286e6eb0522f64f88308be13886991b95db52117", 423_060),
        "obama_partial_face2.jpg": ("9a812347f97633542b8cd9992de22def11b74f79d82056bc3ee830f13878e028", 478_346),
        "biden.jpg": ("3c17508bb91554c637a2eabddfae790e5bb1caba93130814fc2ac50be9760c4c", 353_723),
    }
    options = ("--no-binary", ":all:")
    return PhotoSet(
        photos=tuple(
            WantedFile(name, f"tests/test_images/{name}", digest, size) for name, (digest, size) in photos.items()
        ),
        sources=(PipArchive(requirement, sha256, options),),
        archive=archive,
        archive_sha256=sha256,
        how=f"python -m pip download --no-deps --no-binary :all: {requirement}",
    )


def _astronaut() -> PhotoSet:
    # One particular wheel, whatever machine this is: only its photo is used, and so its SHA-256 is known.
    requirement = "scikit-image==0.26.0"
    archive = "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl"
    sha256 = "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af"
    platform = ("--implementation", "cp", "--python-version", "3.11", "--abi", "cp311")
    options = ("--only-binary", ":all:", *platform, "--platform", "manylinux_2_28_x86_64")
    photo = WantedFile(
        "astronaut.png",
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        791_555,
    )
    return PhotoSet(
        photos=(photo,),
        sources=(PipArchive(requirement, sha256, options),),
        archive=archive,
        archive_sha256=sha256,
        how=f"python -m pip download --no-deps {' '.join(options)} {requirement}",
    )


PHOTO_SETS: Final = (_portraits(), _astronaut())


def fetch_sample_photos(
    home: Path,
    progress: Progress | None = None,
    *,
    notify: Notify | None = None,
    sets: Sequence[PhotoSet] = PHOTO_SETS,
) -> dict[str, Path]:
    """Have the sample photos in `home/photos`, verified. Returns file name to path, in a fixed order.

    progress: receives bytes done and bytes in all of the archive's photos under way. Photos that are there already are
    not fetched again. Raises PackUnavailableError, which says where to put what by hand; BusyError.
    """
    folder, downloads = home / "photos", home / "downloads"
    for photos in sets:
        by_hand = downloads / photos.archive
        sources = (LocalArchive(by_hand, photos.archive_sha256),) if by_hand.is_file() else ()
        fetch_files(
            photos.photos,
            folder,
            (*sources, *photos.sources),
            what="sample photos",
            by_hand=(
                f"By hand: on a machine with a network run `{photos.how}`, put the file {photos.archive} that it "
                f"writes into {downloads}, and try again."
            ),
            lock=home / "locks" / "photos.lock",
            progress=progress,
            notify=notify,
        )
    return {photo.name: folder / photo.name for photos in sets for photo in photos.photos}
