"""Where the database is: several hosts, of which one takes writes."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy as sa

from pgjobs import ConfigurationError, PgJobs, migrations
from pgjobs.connections.database import Database
from tests.processes import WorkerProcess, pgjobs

pytestmark = pytest.mark.server


@pytest.fixture
def hosts_url(database_url: str) -> str:
    """URL of two hosts, with a password: at the first nobody answers."""
    parts = urlsplit(database_url)
    return f"postgresql://{parts.username}:s3cret@127.0.0.1:1,{parts.hostname}:{parts.port}{parts.path}"


def shown(url: str) -> str:
    """How logs and errors name the database."""
    parts = urlsplit(url)
    return f"{parts.path.lstrip('/')}@{parts.netloc.rpartition('@')[2]}"


def test_every_command_takes_several_hosts_and_shows_them_without_the_password(hosts_url: str) -> None:
    done = [pgjobs(hosts_url, *command) for command in (["migrate"], ["migrate", "--check"], ["info"])]
    with WorkerProcess(hosts_url, "--burst") as worker:
        assert worker.leave() == 0
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 3
    assert worker.said(shown(hosts_url))
    for each in done[:2]:
        assert shown(hosts_url) in each.stdout
    assert "s3cret" not in "\n".join([*worker.lines, *(each.stdout for each in done)])


async def test_every_door_takes_several_hosts(hosts_url: str) -> None:
    parts = urlsplit(hosts_url)
    hosts = [f"host={host}" for host in parts.netloc.rpartition("@")[2].split(",")]
    engine = sa.create_engine(f"postgresql+psycopg://{parts.username}:s3cret@{parts.path}?{'&'.join(hosts)}")
    for given in (hosts_url, engine):
        jobs = PgJobs(given)
        add = jobs.task(name="add")(lambda a, b: a + b)
        try:
            with jobs.worker():
                assert add.enqueue(1, 2).get(15) == 3
                assert await (await add.aenqueue(2, 3)).aget(15) == 5
            assert jobs.database.where == shown(hosts_url)
            assert migrations.current(jobs.database.url) == migrations.head()
        finally:
            await jobs.aclose()
    with engine.connect() as conn:
        assert conn.scalar(sa.text("SELECT count(*) FROM pgjobs.jobs WHERE status = 'succeeded'")) == 4
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "attributes"),
    [
        ("postgresql://a,b/d", "read-write"),
        ("host=a,b dbname=d", "read-write"),
        ("postgresql://a,b/d?target_session_attrs=any", "any"),
        ("postgresql://a/d", None),
    ],
)
def test_of_several_hosts_the_one_that_takes_writes_is_meant(url: str, attributes: str | None) -> None:
    known = psycopg.conninfo.conninfo_to_dict(Database(url, "pgjobs").url)
    assert known.get("target_session_attrs") == attributes


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://ann:s3cret@host/d", "is one of mysql; pgjobs needs PostgreSQL"),
        ("sqlite:///d", "is one of sqlite; pgjobs needs PostgreSQL"),
        ("s3cret@x://host/d", "is one of another database; pgjobs needs PostgreSQL"),
        ("postgresql+asyncpg://ann:s3cret@host/d?ssl=require", "has a parameter 'ssl', which .* such as sslmode"),
        ("host=h ssl=require password=s3cret", "has a parameter 'ssl'"),
        ("postgresql://ann:s3cret?s3cret=1/x@host/d", "with %40 for @"),
        ("ann:s3cret@host/d", "with %40 for @"),
    ],
)
def test_url_that_cannot_be_read_is_told_what_is_wrong_and_not_shown(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^the database's URL .*{says}") as caught:
        _ = Database(url, "pgjobs").url
    assert "s3cret" not in str(caught.value)


def test_environment_may_name_several_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PGHOST", "a,b"), ("PGPORT", "5433"), ("PGDATABASE", "d")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PGJOBS_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert Database(None, "pgjobs").where == "d@a:5433,b:5433"
