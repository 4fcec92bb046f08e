from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from archives import Site, tarball, wanted_file

from faceward.errors import PackUnavailableError
from faceward.vision.fetch import (
    LocalArchive,
    NpmArchive,
    PipArchive,
    Progress,
    Source,
    WantedFile,
    WebFiles,
    fetch_files,
    missing_files,
)

ONE, TWO = os.urandom(700_000), b"the second file"
WANTED = (wanted_file("one.onnx", "model/one.onnx", ONE), wanted_file("two.txt", "two.txt", TWO))


def fetch(
    directory: Path, sources: Sequence[Source], wanted: Sequence[WantedFile] = WANTED, progress: Progress | None = None
) -> None:
    fetch_files(
        wanted,
        directory,
        sources,
        what="model pack x",
        by_hand="Put x.tgz into /some/place.",
        lock=directory.parent / "lock",
        progress=progress,
    )


def serve(site: Site) -> WebFiles:
    site.pages |= {"/good/model/one.onnx": ONE, "/good/two.txt": TWO}
    return WebFiles(site.base + "good/")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_files_come_from_the_web_with_progress(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fetch(tmp_path / "pack", [serve(site)], progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "pack" / "one.onnx").read_bytes() == ONE
    assert (tmp_path / "pack" / "two.txt").read_bytes() == TWO
    total = len(ONE) + len(TWO)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 3


def test_what_is_there_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    source = serve(site)
    fetch(tmp_path / "pack", [source])
    site.asked.clear()
    fetch(tmp_path / "pack", [source])
    assert site.asked == []
    (tmp_path / "pack" / "two.txt").write_bytes(b"damaged later!!")
    assert missing_files(WANTED, tmp_path / "pack") == [WANTED[1]]
    fetch(tmp_path / "pack", [source])
    assert site.asked == ["/good/two.txt"]
    assert (tmp_path / "pack" / "two.txt").read_bytes() == TWO


def test_a_file_that_was_put_there_by_hand_is_taken(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "one.onnx").write_bytes(ONE)
    (tmp_path / "pack" / "two.txt").write_bytes(TWO)
    fetch(tmp_path / "pack", [])


def test_the_next_source_gives_what_the_first_lacks(site: Site, tmp_path: Path) -> None:
    site.pages["/partial/model/one.onnx"] = ONE
    fetch(tmp_path / "pack", [WebFiles(site.base + "partial/"), serve(site)])
    assert (tmp_path / "pack" / "two.txt").read_bytes() == TWO
    assert site.asked == ["/partial/model/one.onnx", "/partial/two.txt", "/good/two.txt"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (ONE[:-1] + b"?", "has the SHA-256"),
        (ONE + b"?", "longer than its 700000 bytes"),
        (ONE[:-1], "over 699999 bytes"),
        (b"", "over 0 bytes"),
    ],
)
def test_another_content_is_refused_by_name_and_never_kept(site: Site, tmp_path: Path, body: bytes, said: str) -> None:
    site.pages["/bad/model/one.onnx"] = body
    with pytest.raises(PackUnavailableError, match=r"can't get one\.onnx, two\.txt") as failure:
        fetch(tmp_path / "pack", [WebFiles(site.base + "bad/")])
    assert f"model/one.onnx {said}" in str(failure.value) or said in str(failure.value)
    assert "model/one.onnx" in str(failure.value)
    assert names(tmp_path / "pack") == []


def test_a_download_that_breaks_off_is_not_kept(site: Site, tmp_path: Path) -> None:
    source = serve(site)
    site.cut.add("/good/model/one.onnx")
    with pytest.raises(PackUnavailableError, match=r"one\.onnx"):
        fetch(tmp_path / "pack", [source])
    assert names(tmp_path / "pack") == []


def test_when_nothing_helps_the_error_says_what_from_where_and_where_to_put_it(site: Site, tmp_path: Path) -> None:
    with pytest.raises(PackUnavailableError) as failure:
        fetch(tmp_path / "pack", [WebFiles(site.base + "none/"), WebFiles("http://127.0.0.1:9/")])
    text = str(failure.value)
    for part in ("model pack x", "one.onnx, two.txt", site.base, "404", "127.0.0.1:9", "Put x.tgz into /some/place."):
        assert part in text


def test_an_address_must_be_safe() -> None:
    for base in ("http://example.org/", "ftp://example.org/", "file:///etc/"):
        with pytest.raises(ValueError, match="not an HTTPS address"):
            WebFiles(base)
    assert WebFiles("https://example.org/").label == "https://example.org/"


def test_a_directory_that_can_not_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "pack").write_text("a file where the directory should be")
    with pytest.raises(PackUnavailableError, match=r"can't be written to .*pack"):
        fetch(tmp_path / "pack", [serve(site)])


def test_two_that_fetch_at_once_fetch_once(site: Site, tmp_path: Path) -> None:
    source = serve(site)
    threads = [threading.Thread(target=fetch, args=(tmp_path / "pack", [source])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(site.asked) == ["/good/model/one.onnx", "/good/two.txt"]


def archive(tmp_path: Path, content: bytes, name: str = "x.tgz") -> LocalArchive:
    path = tmp_path / name
    path.write_bytes(content)
    return LocalArchive(path, hashlib.sha256(content).hexdigest())


def test_members_of_a_tarball(tmp_path: Path) -> None:
    fetch(tmp_path / "pack", [archive(tmp_path, tarball({"model/one.onnx": ONE, "two.txt": TWO, "other": b"?"}))])
    assert names(tmp_path / "pack") == ["one.onnx", "two.txt"]


def test_members_of_a_wheel(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("model/one.onnx", ONE)
        zipped.writestr("two.txt", TWO)
        zipped.writestr("../../outside", b"?")
    fetch(tmp_path / "pack", [archive(tmp_path, out.getvalue(), "x.whl")])
    assert names(tmp_path / "pack") == ["one.onnx", "two.txt"]
    assert names(tmp_path) == ["lock", "pack", "x.whl"]


def test_an_archive_with_another_hash_is_not_opened(tmp_path: Path) -> None:
    path = archive(tmp_path, tarball({"model/one.onnx": ONE, "two.txt": TWO})).path
    with pytest.raises(PackUnavailableError, match=r"x\.tgz has the SHA-256 .*; 0000 is wanted"):
        fetch(tmp_path / "pack", [LocalArchive(path, "0000")])
    assert not (tmp_path / "pack").exists()


def test_a_tarball_that_reaches_outside_puts_nothing_there(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name in ("package/../../outside", "/outside"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            packed.addfile(entry, io.BytesIO(b"?"))
        link = tarfile.TarInfo("package/two.txt")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        packed.addfile(link)
        entry = tarfile.TarInfo("package/model/one.onnx")
        entry.size = len(ONE)
        packed.addfile(entry, io.BytesIO(ONE))
    with pytest.raises(PackUnavailableError, match=r"can't get two\.txt"):
        fetch(tmp_path / "pack", [archive(tmp_path, out.getvalue())])
    assert names(tmp_path / "pack") == ["one.onnx"]
    assert names(tmp_path) == ["lock", "pack", "x.tgz"]


@pytest.fixture
def npm(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The real npm client with a registry on this machine, which holds thing@1.0.0. Returns its tarball."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    package = json.dumps({"name": "thing", "version": "1.0.0"}).encode()
    content = tarball({"package.json": package, "model/one.onnx": ONE, "two.txt": TWO})
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    version = {
        "name": "thing",
        "version": "1.0.0",
        "dist": {"tarball": f"{site.base}thing/-/thing-1.0.0.tgz", "integrity": integrity},
    }
    document = {"name": "thing", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    site.pages |= {"/thing": json.dumps(document).encode(), "/thing/-/thing-1.0.0.tgz": content}
    for name in [name for name in os.environ if name.lower().startswith("npm_config_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("npm_config_registry", site.base)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))
    return content


def test_the_npm_client_fetches_a_tarball(npm: bytes, tmp_path: Path) -> None:
    fetch(tmp_path / "pack", [NpmArchive("thing@1.0.0", hashlib.sha256(npm).hexdigest())])
    assert (tmp_path / "pack" / "one.onnx").read_bytes() == ONE


def test_a_tarball_of_npm_with_another_hash_is_refused(npm: bytes, tmp_path: Path) -> None:
    with pytest.raises(PackUnavailableError, match=r"npm pack thing@1\.0\.0: thing-1\.0\.0\.tgz has the SHA-256"):
        fetch(tmp_path / "pack", [NpmArchive("thing@1.0.0", hashlib.sha256(npm + b"?").hexdigest())])


@pytest.mark.usefixtures("npm")
def test_what_npm_says_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(PackUnavailableError, match=r"npm pack nothing@1\.0\.0: exit status 1: .*404"):
        fetch(tmp_path / "pack", [NpmArchive("nothing@1.0.0", "00")])


def test_without_npm_the_next_source_is_tried(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackUnavailableError, match="npm pack thing: npm is not installed"):
        fetch(tmp_path / "pack", [NpmArchive("thing", "00")])
    fetch(tmp_path / "pack", [NpmArchive("thing", "00"), serve(site)])


@pytest.fixture
def wheel(site: Site, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The real pip with an index on this machine, which holds thing==1.0. Returns its wheel."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        zipped.writestr("model/one.onnx", ONE)
        zipped.writestr("two.txt", TWO)
        zipped.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        zipped.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        zipped.writestr("thing-1.0.dist-info/RECORD", "")
    content = out.getvalue()
    name = "thing-1.0-py3-none-any.whl"
    site.pages |= {
        "/simple/thing/": f'<!DOCTYPE html><html><body><a href="/files/{name}">{name}</a></body></html>'.encode(),
        f"/files/{name}": content,
    }
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", site.base + "simple/")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return content


def test_pip_fetches_a_wheel(wheel: bytes, tmp_path: Path) -> None:
    source = PipArchive("thing==1.0", hashlib.sha256(wheel).hexdigest(), ("--only-binary", ":all:"))
    fetch(tmp_path / "pack", [source])
    assert (tmp_path / "pack" / "two.txt").read_bytes() == TWO


def test_pip_refuses_another_hash(wheel: bytes, tmp_path: Path) -> None:
    source = PipArchive("thing==1.0", hashlib.sha256(wheel + b"?").hexdigest(), ("--only-binary", ":all:"))
    with pytest.raises(PackUnavailableError, match=r"pip download thing==1\.0: exit status 1: .*HASH"):
        fetch(tmp_path / "pack", [source])
    assert not (tmp_path / "pack").exists()
