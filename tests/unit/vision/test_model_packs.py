from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import Site, tarball, wanted_file

from faceward.errors import (
    PackDamagedError,
    PackManifestError,
    PackUnavailableError,
    UnknownPackError,
)
from faceward.vision.analyzer import FaceAnalyzer
from faceward.vision.fetch import WebFiles
from faceward.vision.model_packs import DEFAULT_PACK, KNOWN_PACKS, KnownPack, ModelPack, PackStore
from faceward.vision.pack_manifest import MANIFEST_NAME, EmbeddingModel, Licence, PackManifest

CONTENT = {"detect.onnx": b"detector", "marks.onnx": b"landmarks", "embed.onnx": b"embedding", "LICENSE": b"text"}


@pytest.fixture
def known(site: Site) -> KnownPack:
    """A pack under the default name, served by this machine."""
    site.pages |= {f"/pack/{name}": content for name, content in CONTENT.items()}
    wanted = tuple(wanted_file(name, name, content) for name, content in CONTENT.items())
    return KnownPack(
        manifest=PackManifest(
            name=DEFAULT_PACK,
            licence=Licence(name="MIT", allows="any use", file="LICENSE"),
            files={file.name: file.sha256 for file in wanted},
            detector="detect.onnx",
            landmarks="marks.onnx",
            embedding=EmbeddingModel(file="embed.onnx", dimension=8, colour="bgr", mean=0, scale=1),
            threshold=0.3,
        ),
        wanted=wanted,
        sources=(WebFiles(site.base + "pack/"),),
        archive="pack.tgz",
        archive_sha256=hashlib.sha256(tarball(CONTENT)).hexdigest(),
        how="npm pack pack",
    )


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, known: KnownPack, told: list[str]) -> PackStore:
    return PackStore(tmp_path / "home", notify=told.append, known={DEFAULT_PACK: known})


def directory_pack(directory: Path, **changes: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "own.onnx").write_bytes(b"my model")
    manifest = {
        "name": "mine",
        "licence": {"name": "research only", "allows": "research, no product"},
        "files": {"own.onnx": hashlib.sha256(b"my model").hexdigest()},
        "embedding": {"file": "own.onnx", "dimension": 8, "colour": "rgb", "mean": 127.5, "scale": 127.5},
        "threshold": 0.4,
    }
    (directory / MANIFEST_NAME).write_text(json.dumps({**manifest, **changes}))
    return directory


def test_a_known_pack_is_fetched_on_its_first_use(store: PackStore, site: Site, told: list[str]) -> None:
    assert store.names() == (DEFAULT_PACK,)
    assert not store.list()[0].present
    pack = store.get()
    assert pack.detector.read_bytes() == b"detector"
    assert pack.landmarks.read_bytes() == b"landmarks"
    assert pack.embedder.read_bytes() == b"embedding"
    assert (pack.name, pack.dimension, pack.threshold) == (DEFAULT_PACK, 8, 0.3)
    assert pack.model_id == f"{DEFAULT_PACK}:{hashlib.sha256(b'embedding').hexdigest()[:12]}"
    assert store.list()[0].present
    assert store.verify() == tuple(CONTENT)
    site.pages.clear()
    assert store.get() == pack


def test_the_licence_is_told_once(store: PackStore, told: list[str], tmp_path: Path, known: KnownPack) -> None:
    store.get()
    licences = [line for line in told if "licence" in line]
    assert len(licences) == 1
    assert "licence MIT" in licences[0]
    assert "any use" in licences[0]
    assert "LICENSE" in licences[0]
    told.clear()
    store.get()
    PackStore(tmp_path / "home", notify=told.append, known={DEFAULT_PACK: known}).get()
    assert told == []


def test_a_damaged_file_is_refused_by_name_and_mended_by_a_pull(store: PackStore, site: Site) -> None:
    pack = store.get()
    pack.embedder.write_bytes(b"something else")
    for use in (store.get, store.verify):
        with pytest.raises(PackDamagedError, match=r"embed\.onnx .* has the SHA-256 .*models pull"):
            use()
    site.asked.clear()
    store.pull()
    assert site.asked == ["/pack/embed.onnx"]
    assert store.get() == pack


def test_a_missing_file_fails_verification_by_name(store: PackStore) -> None:
    store.get().landmarks.unlink()
    with pytest.raises(PackDamagedError, match=r"marks\.onnx .*can't be read"):
        store.verify()


def test_an_archive_put_there_by_hand_is_taken(store: PackStore, site: Site, tmp_path: Path) -> None:
    site.pages.clear()
    with pytest.raises(PackUnavailableError) as failure:
        store.get()
    downloads = tmp_path / "home" / "downloads"
    assert f"run `npm pack pack`, put the file pack.tgz that it writes into {downloads}" in str(failure.value)
    downloads.mkdir()
    (downloads / "pack.tgz").write_bytes(tarball(CONTENT))
    assert store.get().detector.read_bytes() == b"detector"


def test_a_wrong_archive_put_there_by_hand_is_refused(store: PackStore, site: Site, tmp_path: Path) -> None:
    site.pages.clear()
    downloads = tmp_path / "home" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "pack.tgz").write_bytes(tarball({**CONTENT, "embed.onnx": b"another"}))
    with pytest.raises(PackUnavailableError, match=r"pack\.tgz has the SHA-256"):
        store.get()


def test_a_pack_of_a_directory_is_added_and_shares_the_default_detector(
    store: PackStore, tmp_path: Path, told: list[str]
) -> None:
    manifest = store.add(directory_pack(tmp_path / "dir"))
    shutil.rmtree(tmp_path / "dir")
    assert store.names() == (DEFAULT_PACK, "mine")
    pack = store.get("mine")
    assert pack.manifest == manifest
    assert pack.embedder.read_bytes() == b"my model"
    assert pack.detector == store.get().detector
    assert pack.dimension == 8
    assert any("research only" in line for line in told)
    assert store.pull("mine") == ("own.onnx",)
    assert store.list()[1].fetched_from == ()


def test_adding_a_pack_again_changes_nothing_and_another_of_its_name_is_refused(
    store: PackStore, tmp_path: Path
) -> None:
    store.add(directory_pack(tmp_path / "dir"))
    store.add(tmp_path / "dir")
    with pytest.raises(PackManifestError, match="different pack of the name mine"):
        store.add(directory_pack(tmp_path / "other", threshold=0.1))
    assert store.get("mine").threshold == 0.4


def test_the_name_of_a_known_pack_is_taken(store: PackStore, tmp_path: Path) -> None:
    with pytest.raises(PackManifestError, match="belongs to a pack of faceward"):
        store.add(directory_pack(tmp_path / "dir", name=DEFAULT_PACK))


def test_a_pack_with_a_wrong_file_is_not_added(store: PackStore, tmp_path: Path) -> None:
    directory = directory_pack(tmp_path / "dir")
    (directory / "own.onnx").write_bytes(b"another model")
    with pytest.raises(PackDamagedError, match=r"own\.onnx .*has the SHA-256"):
        store.add(directory)
    (directory / "own.onnx").unlink()
    with pytest.raises(PackDamagedError, match=r"own\.onnx .*No such file"):
        store.add(directory)
    assert store.names() == (DEFAULT_PACK,)


def test_a_home_that_can_not_be_written(store: PackStore, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "packs").write_text("in the way")
    with pytest.raises(PackUnavailableError, match="can't be written to"):
        store.get()
    with pytest.raises(PackUnavailableError, match="can't be copied to"):
        store.add(directory_pack(tmp_path / "dir"))


def test_an_unknown_pack(store: PackStore) -> None:
    for use in (store.get, store.pull, store.verify):
        with pytest.raises(UnknownPackError, match=f"no model pack 'other'. There are: {DEFAULT_PACK}"):
            use("other")
    with pytest.raises(UnknownPackError):
        store.get("../../etc")


def test_a_broken_manifest_hides_no_other_pack(store: PackStore, tmp_path: Path, told: list[str]) -> None:
    store.add(directory_pack(tmp_path / "dir"))
    (store.directory("mine") / MANIFEST_NAME).write_text("{")
    assert [status.manifest.name for status in store.list()] == [DEFAULT_PACK]
    assert any("mine" in line and "Invalid JSON" in line for line in told)
    with pytest.raises(PackManifestError):
        store.get("mine")


def test_a_pack_that_was_renamed_on_the_disk(store: PackStore, tmp_path: Path) -> None:
    store.add(directory_pack(tmp_path / "dir"))
    store.directory("mine").rename(store.directory("yours"))
    with pytest.raises(PackManifestError, match="names the pack mine, not yours"):
        store.get("yours")


def test_the_default_pack_is_what_its_publisher_sent(pack: ModelPack) -> None:
    known = KNOWN_PACKS[DEFAULT_PACK]
    assert known.archive_sha256 == "7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba"
    assert pack.licence.name == "MIT"
    assert "MIT License" in (pack.embedder.parent / "LICENSE").read_text()
    assert pack.dimension == 512


def test_another_convention_works_by_manifest_only(pack: ModelPack, home: Path, tmp_path: Path, photos: Any) -> None:
    """The same weights under another name, RGB order and other numbers: the embedding differs, and nothing breaks."""
    directory = tmp_path / "dir"
    directory.mkdir()
    shutil.copy(pack.embedder, directory / "own.onnx")
    sha256 = pack.manifest.files["fr_feature.onnx"]
    embedding = {"file": "own.onnx", "dimension": 512, "colour": "rgb", "mean": 127.5, "scale": 127.5}
    directory_pack(directory, files={"own.onnx": sha256}, embedding=embedding).joinpath("own.onnx").unlink()
    shutil.copy(pack.embedder, directory / "own.onnx")
    own_home = tmp_path / "home"
    shutil.copytree(home / "packs" / DEFAULT_PACK, own_home / "packs" / DEFAULT_PACK)
    store = PackStore(own_home)
    store.add(directory)
    with FaceAnalyzer.open(store.get("mine")) as own, FaceAnalyzer.open(pack) as default:
        assert own.model_id == f"mine:{sha256[:12]}"
        one, other = own.analyze(photos["obama.jpg"])[0], own.analyze(photos["obama2.jpg"])[0]
        stranger, reference = own.analyze(photos["biden.jpg"])[0], default.analyze(photos["obama.jpg"])[0]
    assert float(one.embedding @ other.embedding) > 0.5 > float(one.embedding @ stranger.embedding)
    assert not np.allclose(one.embedding, reference.embedding, atol=0.01)
    assert np.allclose(one.landmarks, reference.landmarks)
