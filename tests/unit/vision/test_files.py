from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faceward.errors import BusyError
from faceward.vision.files import copy_atomically, process_lock, sha256_of_file, write_atomically

HOLDER = """
import sys, time
from pathlib import Path
from faceward.vision.files import process_lock
with process_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""

COUNTER = """
import sys, time
from pathlib import Path
from faceward.vision.files import process_lock
number = Path(sys.argv[2])
for _ in range(20):
    with process_lock(Path(sys.argv[1])):
        value = int(number.read_text())
        time.sleep(0.001)
        number.write_text(str(value + 1))
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *(str(argument) for argument in arguments)], stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with start(HOLDER, tmp_path / "lock", 60) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_file_is_written_with_its_directories(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, [b"one", b"two"])
    assert path.read_bytes() == b"onetwo"
    assert sha256_of_file(path) == hashlib.sha256(b"onetwo").hexdigest()
    copy_atomically(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"onetwo"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the disk is full")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk is full"):
        write_atomically(path, parts())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 10)

    def parts() -> Iterator[bytes]:
        for _ in range(10):
            assert path.read_bytes() == b"a" * 10
            yield b"b"

    write_atomically(path, parts())
    assert path.read_bytes() == b"b" * 10


@pytest.mark.usefixtures("holder")
def test_the_lock_of_another_process_is_waited_for_only_so_long(tmp_path: Path) -> None:
    told = []
    with (
        pytest.raises(BusyError, match=r"held the lock .*lock"),
        process_lock(tmp_path / "lock", timeout=0.3, waiting=lambda: told.append(1)),
    ):
        pytest.fail("two processes hold the lock")
    assert told == [1]


def test_the_lock_ends_with_its_process(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    with process_lock(tmp_path / "lock", timeout=10):
        pass


def test_processes_take_turns(tmp_path: Path) -> None:
    number = tmp_path / "number"
    number.write_text("0")
    processes = [start(COUNTER, tmp_path / "lock", number) for _ in range(3)]
    for process in processes:
        with process:
            assert process.wait(60) == 0
    assert number.read_text() == "60"


def test_the_lock_can_be_taken_again(tmp_path: Path) -> None:
    started = time.monotonic()
    for _ in range(3):
        with process_lock(tmp_path / "deep" / "lock"):
            pass
    assert time.monotonic() - started < 60
