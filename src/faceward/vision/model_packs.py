"""The model packs of a faceward home: fetched, added from a directory, verified, and handed out as verified paths."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from faceward.errors import PackDamagedError, PackManifestError, PackUnavailableError, UnknownPackError
from faceward.vision.embedding import EmbeddingConvention
from faceward.vision.fetch import (
    LocalArchive,
    Notify,
    NpmArchive,
    Progress,
    Source,
    WantedFile,
    WebFiles,
    fetch_files,
)
from faceward.vision.files import copy_atomically, process_lock, sha256_of_file, write_atomically
from faceward.vision.pack_manifest import MANIFEST_NAME, EmbeddingModel, Licence, PackManifest, read_manifest

DEFAULT_PACK: Final = "faceplugin-0.0.1"
_LICENCE_SHOWN: Final = ".licence-shown"


@dataclass(frozen=True, slots=True)
class KnownPack:
    """A pack that faceward knows where to fetch. archive: name under which it may be put into `downloads` by hand."""

    manifest: PackManifest
    wanted: tuple[WantedFile, ...]
    sources: tuple[Source, ...]
    archive: str
    archive_sha256: str
    how: str


@dataclass(frozen=True, slots=True)
class ModelPack:
    """A pack that is on the disk, every file verified when it was handed out."""

    manifest: PackManifest
    detector: Path
    landmarks: Path
    embedder: Path

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def model_id(self) -> str:
        """Names the embedding model; a gallery made by one is never searched by another."""
        return self.manifest.model_id

    @property
    def embedding(self) -> EmbeddingConvention:
        return self.manifest.embedding.convention

    @property
    def dimension(self) -> int:
        return self.manifest.embedding.dimension

    @property
    def threshold(self) -> float:
        """The similarity recommended for identification."""
        return self.manifest.threshold

    @property
    def licence(self) -> Licence:
        return self.manifest.licence


@dataclass(frozen=True, slots=True)
class PackStatus:
    """A pack in a list. present: its files are on the disk. fetched_from: its sources, empty for one added by hand."""

    manifest: PackManifest
    present: bool
    directory: Path
    fetched_from: tuple[str, ...] = ()


def _faceplugin() -> KnownPack:
    package, version = "faceplugin-face-recognition-js", "0.0.1"
    sha256 = "7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba"
    wanted = (
        WantedFile(
            "fr_detect.onnx",
            "model/fr_detect.onnx",
            "6c0256ccd3164f844736a401faf936ec2930764a87ae39442180887d0c5c8854",
            1_217_758,
        ),
        WantedFile(
            "fr_landmark.onnx",
            "model/fr_landmark.onnx",
            "f10b0ba1d2a8a099adefede1ebf3733e44fe370715e7303dbeb7f59c02142258",
            1_163_742,
        ),
        WantedFile(
            "fr_feature.onnx",
            "model/fr_feature.onnx",
            "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
            4_884_269,
        ),
        WantedFile("LICENSE", "LICENSE", "ceb7e9130f684a8e335940a09ccfb81c2fa18f6aa54975d656c54bb7992aee1a", 1_066),
    )
    return KnownPack(
        manifest=PackManifest(
            name=DEFAULT_PACK,
            description="Small models of Faceplugin: RFB-320 detection, 68 landmarks, 512-number embeddings.",
            licence=Licence(
                name="MIT",
                allows="any use, also commercial, as long as its copyright notice is kept",
                file="LICENSE",
            ),
            files={file.name: file.sha256 for file in wanted},
            detector="fr_detect.onnx",
            landmarks="fr_landmark.onnx",
            embedding=EmbeddingModel(
                file="fr_feature.onnx",
                dimension=512,
                colour="bgr",
                mean=127.5,
                scale=128.0,
                # Measured: faces that anything can tell apart are above 2.0, patterns taken for a face below 1.82.
                min_norm=1.9,
            ),
            threshold=0.35,
        ),
        wanted=wanted,
        sources=(
            NpmArchive(f"{package}@{version}", sha256),
            WebFiles(f"https://cdn.jsdelivr.net/npm/{package}@{version}/"),
            WebFiles(f"https://unpkg.com/{package}@{version}/"),
        ),
        archive=f"{package}-{version}.tgz",
        archive_sha256=sha256,
        how=f"npm pack {package}@{version}",
    )


KNOWN_PACKS: Final[Mapping[str, KnownPack]] = {DEFAULT_PACK: _faceplugin()}


class PackStore:
    """The packs below a home directory.

    home: packs lie in `packs/NAME`, archives put there by hand in `downloads`. notify: receives lines for the user:
    what is fetched from where, and a pack's licence on its first use. known: the packs that can be fetched.
    """

    def __init__(
        self, home: Path, *, notify: Notify | None = None, known: Mapping[str, KnownPack] = KNOWN_PACKS
    ) -> None:
        self._home = home
        self._notify = notify
        self._known = known

    def directory(self, name: str) -> Path:
        """Where the files of a pack lie."""
        return self._home / "packs" / name

    def names(self) -> tuple[str, ...]:
        """The names of all packs, the ones that can be fetched first."""
        folder = self._home / "packs"
        added = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST_NAME}")) if folder.is_dir() else []
        return (*self._known, *(name for name in added if name not in self._known))

    def list(self) -> tuple[PackStatus, ...]:
        """Every pack and whether its files are on the disk; their content is not read.

        A pack whose manifest can't be read is left out, and `notify` told why.
        """
        found = []
        for name in self.names():
            try:
                manifest = self.manifest(name)
            except PackManifestError as exc:
                self._tell(str(exc))
                continue
            directory = self.directory(name)
            present = all((directory / file).is_file() for file in manifest.files)
            sources = self._known[name].sources if name in self._known else ()
            found.append(PackStatus(manifest, present, directory, tuple(source.label for source in sources)))
        return tuple(found)

    def get(self, name: str = DEFAULT_PACK, *, progress: Progress | None = None) -> ModelPack:
        """A pack whose files have all been verified; fetches what is missing.

        Raises UnknownPackError, PackUnavailableError, PackDamagedError, PackManifestError and BusyError.
        """
        manifest = self.manifest(name)
        directory = self.directory(name)
        if name in self._known and not all((directory / file).is_file() for file in manifest.files):
            self.pull(name, progress=progress)
        self.verify(name)
        detector = directory / manifest.detector if manifest.detector else None
        landmarks = directory / manifest.landmarks if manifest.landmarks else None
        if detector is None or landmarks is None:
            default = self.get(DEFAULT_PACK, progress=progress)
            detector, landmarks = detector or default.detector, landmarks or default.landmarks
        self._show_licence(manifest)
        return ModelPack(manifest, detector, landmarks, directory / manifest.embedding.file)

    def pull(self, name: str = DEFAULT_PACK, *, progress: Progress | None = None) -> tuple[str, ...]:
        """Fetch what a pack lacks, from its sources in order. Returns the names of all its files, which are verified.

        A pack that was added by hand has no sources; it is verified. progress: receives bytes done and bytes in all.
        Raises UnknownPackError, PackUnavailableError and BusyError.
        """
        manifest = self.manifest(name)
        known = self._known.get(name)
        if known is None:
            return self.verify(name)
        directory = self.directory(name)
        by_hand = self._home / "downloads" / known.archive
        sources = (LocalArchive(by_hand, known.archive_sha256),) if by_hand.is_file() else ()
        fetch_files(
            known.wanted,
            directory,
            (*sources, *known.sources),
            what=f"model pack {name}",
            by_hand=(
                f"By hand: on a machine with a network run `{known.how}`, put the file {known.archive} that it writes "
                f"into {by_hand.parent}, and try again."
            ),
            lock=self._home / "locks" / f"pack-{name}.lock",
            progress=progress,
            notify=self._notify,
        )
        return tuple(manifest.files)

    def add(self, directory: Path) -> PackManifest:
        """Copy a pack from a directory with a manifest. Adding the same pack again changes nothing.

        Raises PackManifestError, also where another pack has that name; PackDamagedError for a file that is not there
        or of another SHA-256.
        """
        manifest = read_manifest(directory)
        if manifest.name in self._known:
            raise PackManifestError(f"The name {manifest.name} belongs to a pack of faceward; give yours another one.")
        _verify(manifest, directory, f"Mend {directory / MANIFEST_NAME} or the file.")
        target = self.directory(manifest.name)
        try:
            with process_lock(self._home / "locks" / f"pack-{manifest.name}.lock"):
                if (target / MANIFEST_NAME).exists() and read_manifest(target) != manifest:
                    raise PackManifestError(
                        f"A different pack of the name {manifest.name} is in {target}. Give this one another name, or "
                        "delete that directory first."
                    )
                for name in manifest.files:
                    copy_atomically(directory / name, target / name)
                # The manifest comes last: without it the directory is no pack yet.
                copy_atomically(directory / MANIFEST_NAME, target / MANIFEST_NAME)
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__
            raise PackUnavailableError(f"Model pack {manifest.name} can't be copied to {target}: {reason}.") from exc
        return manifest

    def verify(self, name: str = DEFAULT_PACK) -> tuple[str, ...]:
        """Compare each file of a pack with its SHA-256. Returns their names.

        Raises UnknownPackError, PackManifestError and PackDamagedError, which names the first file that is wrong.
        """
        manifest = self.manifest(name)
        directory = self.directory(name)
        mend = f"`faceward models pull {name}` fetches it anew."
        if name not in self._known:
            mend = f"Delete {directory} and add the pack again."
        _verify(manifest, directory, mend)
        return tuple(manifest.files)

    def manifest(self, name: str) -> PackManifest:
        """Of a pack, whose files may not be here yet. Raises UnknownPackError, PackManifestError."""
        if name in self._known:
            return self._known[name].manifest
        if name not in self.names():
            raise UnknownPackError(
                f"There is no model pack {name!r}. There are: {', '.join(self.names())}. "
                "`faceward models add DIR` adds one from a directory."
            )
        manifest = read_manifest(self.directory(name))
        if manifest.name != name:
            raise PackManifestError(
                f"{self.directory(name) / MANIFEST_NAME} names the pack {manifest.name}, not {name}."
            )
        return manifest

    def _tell(self, line: str) -> None:
        if self._notify is not None:
            self._notify(line)

    def _show_licence(self, manifest: PackManifest) -> None:
        shown = self.directory(manifest.name) / _LICENCE_SHOWN
        if self._notify is None or shown.exists():
            return
        licence = manifest.licence
        where = f" Full text: {self.directory(manifest.name) / licence.file}" if licence.file else ""
        self._tell(f"Model pack {manifest.name}: licence {licence.name}. It allows {licence.allows}.{where}")
        with suppress(OSError):  # a read-only home shows the notice each time
            write_atomically(shown, ())


def _verify(manifest: PackManifest, directory: Path, mend: str) -> None:
    for name, sha256 in manifest.files.items():
        path = directory / name
        try:
            found = sha256_of_file(path)
        except OSError as exc:
            raise PackDamagedError(
                f"{path} of model pack {manifest.name} can't be read: {exc.strerror}. {mend}"
            ) from exc
        if found != sha256:
            raise PackDamagedError(
                f"{path} of model pack {manifest.name} has the SHA-256 {found}; its manifest says {sha256}. {mend}"
            )
