"""The server in a wheel: shared by processes, stopped with the last of them, and sound after every kind of sudden end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from faceward.errors import DatabaseUnavailableError, EmbeddedServerError
from faceward.store.database import Database
from faceward.store.embedded import EmbeddedServer
from faceward.store.regions import RegionStore

OPEN_AND_WAIT = """
import sys
from pathlib import Path
from faceward.store.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
print(server.get_pid(), flush=True)
sys.stdin.readline()
"""


class OtherProcess:
    """A real process that opens the server and holds it until it is told to end."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_WAIT, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def postmaster(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def end(self) -> None:
        """As a program ends, its exit handlers run."""
        self._process.communicate("\n", timeout=30)
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)


@pytest.fixture
def directory(server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path]) -> Iterator[Path]:
    """A cluster of this test's own, not running; what a failed test leaves running is stopped."""
    directory = copy_cluster(server_directories() / "data")
    yield directory
    stop(directory)


@pytest.fixture(scope="module")
def fresh(server_directories: Callable[[], Path]) -> Iterator[EmbeddedServer]:
    """A server in a directory that did not exist, with no setting of ours; a first try was killed in its initdb."""
    directory = server_directories() / "data"
    first = subprocess.Popen([sys.executable, "-c", OPEN_AND_WAIT, str(directory)], stdin=subprocess.PIPE)
    wait_until(lambda: (directory.with_name("data.new") / "PG_VERSION").exists())
    for process in [*psutil.Process(first.pid).children(recursive=True), first]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    first.communicate(timeout=30)
    assert not (directory / "PG_VERSION").exists()
    with contextlib.closing(EmbeddedServer(directory)) as server:
        yield server


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def running(directory: Path) -> bool:
    file = directory / "postmaster.pid"
    return file.exists() and psutil.pid_exists(int(file.read_text().split()[0]))


def stop(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess, ValueError):
        postmaster = psutil.Process(int((directory / "postmaster.pid").read_text().split()[0]))
        if postmaster.name() == "postgres":
            postmaster.send_signal(signal.SIGINT)
            postmaster.wait(30)


def answer(server: EmbeddedServer, statement: str = "SELECT 1", database: str = "postgres") -> object:
    with psycopg.connect(server.url_of(database)) as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]


def test_an_interrupted_initdb_leaves_a_usable_state(fresh: EmbeddedServer) -> None:
    assert answer(fresh) == 1
    assert not fresh.pgdata.with_name("data.new").exists()


def test_it_is_durable_unless_told_otherwise(fresh: EmbeddedServer) -> None:
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        assert answer(fresh, f"SHOW {setting}") == "on"


def test_it_listens_on_no_network_address(fresh: EmbeddedServer) -> None:
    assert answer(fresh, "SHOW listen_addresses") == ""
    pid = fresh.get_pid()
    assert pid is not None
    assert not psutil.Process(pid).net_connections("inet")


def test_its_directory_is_the_owners_alone(fresh: EmbeddedServer) -> None:
    assert stat.S_IMODE(fresh.pgdata.stat().st_mode) == 0o700


def test_its_log_never_quotes_a_refused_row(fresh: EmbeddedServer) -> None:
    with psycopg.connect(fresh.url_of("postgres"), autocommit=True) as connection:
        connection.execute("CREATE TABLE t (name text CHECK (name = ''))")
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("INSERT INTO t VALUES (%s)", ("Alice",))
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.execute("SELECT 'Alice' FROM FROM")
    log = fresh.log.read_text()
    assert "violates check constraint" in log
    assert "Alice" not in log


def test_processes_share_one_server_and_the_last_one_stops_it(directory: Path) -> None:
    one, other = OtherProcess(directory), OtherProcess(directory)
    assert one.postmaster() == other.postmaster()
    one.end()
    assert running(directory)
    other.end()
    assert not running(directory)


def test_each_opening_within_a_process_counts(directory: Path) -> None:
    one = EmbeddedServer(directory)
    other = EmbeddedServer(directory)
    one.close()
    one.close()
    assert answer(other) == 1
    other.close()
    assert not running(directory)


def test_a_killed_process_does_not_keep_the_server_running(directory: Path) -> None:
    with contextlib.closing(EmbeddedServer(directory)) as server:
        other = OtherProcess(directory)
        assert other.postmaster() == server.get_pid()
        other.kill()
    assert not running(directory)


def test_after_the_only_process_was_killed_the_next_one_stops_the_server(directory: Path) -> None:
    only = OtherProcess(directory)
    postmaster = only.postmaster()
    only.kill()
    assert running(directory)
    with contextlib.closing(EmbeddedServer(directory)) as server:
        assert server.get_pid() == postmaster
    assert not running(directory)


def test_a_crashed_server_is_started_again_and_still_stopped_by_the_last_process(directory: Path) -> None:
    with contextlib.closing(EmbeddedServer(directory)) as first:
        pid = first.get_pid()
        assert pid is not None
        children = psutil.Process(pid).children()
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs(children, timeout=30)
        with contextlib.closing(EmbeddedServer(directory)) as second:
            assert second.get_pid() != pid
            assert answer(second) == 1
        assert running(directory)
    assert not running(directory)


def test_the_pid_file_of_a_crash_may_name_another_program_by_now(directory: Path) -> None:
    """As after a reboot, or in a container started anew: process numbers begin again."""
    content = [str(os.getppid()), str(directory), "1", "5432", str(directory), "", "  1  1", "ready"]
    (directory / "postmaster.pid").write_text("\n".join(content) + "\n")
    with contextlib.closing(EmbeddedServer(directory)) as server:
        assert answer(server) == 1


def test_a_server_of_another_container_on_the_same_directory_is_left_alone(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process can't be seen, but its socket answers: a second server on the same files would destroy them."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        monkeypatch.chdir(directory)  # a socket's path has to be short
        listener.bind(".s.PGSQL.5432")
        listener.listen()
        content = [str(gone.pid), str(directory), "1", "5432", str(directory), "", "  1  1", "ready"]
        (directory / "postmaster.pid").write_text("\n".join(content) + "\n")
        with pytest.raises(EmbeddedServerError, match="another container"):
            EmbeddedServer(directory)
    assert (directory / "postmaster.pid").exists()


@pytest.mark.parametrize("name", ["with space", "quo'te", "ünï 100% + a&b?c#d;e"])
def test_a_directory_may_have_any_usual_name(
    server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path], name: str
) -> None:
    """On macOS the user's data directory has a space in its path."""
    place = server_directories() / name
    place.mkdir()
    with contextlib.closing(EmbeddedServer(copy_cluster(place / "data"))) as server:
        assert answer(server) == 1
        with Database(server.url_of("faceward_template")) as database:
            assert RegionStore(database).list("c").regions == ()


@pytest.mark.parametrize("name", ['quo"te', "dollar$(touch owned)", "tick`touch owned`"])
def test_a_name_that_a_shell_would_read_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EmbeddedServerError, match=r"pg_ctl can't use a path with '.'"):
        EmbeddedServer(tmp_path / name / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_cannot_start_says_why_and_how_to_go_on(directory: Path) -> None:
    configuration = directory / "faceward.conf"
    right = configuration.read_text()
    configuration.write_text(right + "shared_buffers = 'a lot'\n")
    with pytest.raises(EmbeddedServerError) as caught:
        EmbeddedServer(directory)
    message = str(caught.value)
    for part in (str(directory), "pg_ctl failed", "shared_buffers", "FACEWARD_HOME", "database.url"):
        assert part in message
    configuration.write_text(right)
    with contextlib.closing(EmbeddedServer(directory)) as server:
        assert answer(server) == 1


def test_the_reason_is_told_where_it_is_not_the_last_of_the_log(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for segment in (directory / "pg_wal").glob("0*"):
        segment.unlink()
    with pytest.raises(EmbeddedServerError, match="PANIC:  could not locate a valid checkpoint record") as caught:
        EmbeddedServer(directory)
    assert "disk is full" not in str(caught.value)
    monkeypatch.setattr("faceward.store.embedded._ROOM", 2**70)
    with pytest.raises(EmbeddedServerError, match=r"Its disk is full: \d+ MB are free"):
        EmbeddedServer(directory)


def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    """Root may write everywhere, so the attempt is made as nobody, who may not even enter the tests' directory."""
    code = (
        "import sys, os\nfrom pathlib import Path\nfrom faceward.errors import EmbeddedServerError\n"
        "from faceward.store.embedded import EmbeddedServer\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: EmbeddedServer(Path(sys.argv[1]))\nexcept EmbeddedServerError as exc: print(exc)"
    )
    place = tmp_path / "locked"
    place.mkdir(mode=0o555)
    done = subprocess.run(
        [sys.executable, "-c", code, str(place / "data")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"no permission for {place}" in done.stdout
    assert "set FACEWARD_HOME" in done.stdout


def test_a_directory_that_holds_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("mine")
    with pytest.raises(EmbeddedServerError, match=r"data\.txt"):
        EmbeddedServer(tmp_path / "data.txt")
    assert (tmp_path / "data.txt").read_text() == "mine"


def test_a_socket_in_a_common_directory_is_the_owners_alone(
    server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path]
) -> None:
    """A path too long for a socket puts it elsewhere, where other users may enter; logins need no password."""
    folder = server_directories() / ("long" * 30)
    folder.mkdir()
    with contextlib.closing(EmbeddedServer(copy_cluster(folder / "data"))) as server:
        assert answer(server) == 1
        sockets = server.get_postmaster_info().socket_dir
        assert sockets is not None
        assert sockets != server.pgdata
        assert stat.S_IMODE((sockets / ".s.PGSQL.5432").stat().st_mode) == 0o700


def test_the_directories_above_are_not_opened_to_everybody(
    server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path]
) -> None:
    """Where root runs it the server is another user, who has to pass through them."""
    private = server_directories() / "private"
    private.mkdir(mode=0o700)
    with contextlib.closing(EmbeddedServer(copy_cluster(private / "data"))) as server:
        assert answer(server) == 1
        assert stat.S_IMODE(private.stat().st_mode) & 0o066 == 0


def test_a_server_that_is_gone_is_an_error_of_ours(directory: Path) -> None:
    server = EmbeddedServer(directory)
    server.close()
    with pytest.raises(DatabaseUnavailableError, match="can't be reached"):
        server.ensure_database("late")


def test_a_database_is_made_once(server: EmbeddedServer) -> None:
    server.ensure_database("made_once")
    server.ensure_database("made_once")
    assert answer(server, "SELECT current_database()", "made_once") == "made_once"
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE made_once")
