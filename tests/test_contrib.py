"""Methods of rows and classes with ``perform`` as jobs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from pgjobs import ArgumentsError, OptionError, PgJobs, Snooze, Status, TaskError
from pgjobs.contrib.classes import job_class
from pgjobs.contrib.orm import RowMethods


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "app_users"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    region: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    mails: Mapped[int] = mapped_column(default=0)

    def welcome(self, greeting: str, fail: bool = False) -> str:
        self.mails += 1
        if fail:
            raise RuntimeError("the mail server is away")
        return f"{greeting} {self.name}"

    def due(self, day: date, *days: date) -> Any:
        return Snooze("1h") if days else (day - date(2027, 1, 1)).days

    async def later(self) -> None: ...

    def each(self) -> Iterator[int]:
        yield 1

    def _secret(self) -> None:
        raise AssertionError


class OtherBase(DeclarativeBase):
    pass


class Stranger(OtherBase):
    __tablename__ = "strangers"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def sessions(direct_url: str) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(direct_url.replace("postgresql://", "postgresql+psycopg://"))
    Base.metadata.create_all(engine)
    yield sessionmaker(engine)
    engine.dispose()


@pytest.fixture
def later(jobs: PgJobs, sessions: sessionmaker[Session]) -> RowMethods:
    return RowMethods(jobs, sessions, Base, retry=1)


def drain(jobs: PgJobs) -> None:
    jobs.worker(burst=True).run()


def test_method_of_a_row_runs_on_the_row_as_it_is_then(
    jobs: PgJobs, later: RowMethods, sessions: sessionmaker[Session], conn: psycopg.Connection
) -> None:
    with sessions.begin() as session:
        user = User(id=uuid4(), region=3, name="Ann")
        session.add(user)
        session.flush()
        job = later(user, session, priority=7).welcome("hello")
    conn.execute("UPDATE app_users SET name = 'Bob'")
    drain(jobs)
    assert job.get(5) == "hello Bob"
    assert job.row.priority == 7
    assert conn.execute("SELECT mails FROM app_users").fetchall() == [(1,)]


def test_what_it_changed_is_taken_back_where_it_fails(
    jobs: PgJobs, later: RowMethods, sessions: sessionmaker[Session], conn: psycopg.Connection
) -> None:
    with sessions.begin() as session:
        user = User(id=uuid4(), region=3, name="Ann")
        session.add(user)
        session.flush()
        job = later(user, session).welcome("hello", fail=True)
    drain(jobs)
    assert job.refresh().status is Status.FAILED
    assert conn.execute("SELECT mails FROM app_users").fetchall() == [(0,)]


def test_job_of_a_row_that_is_gone_is_cancelled(
    jobs: PgJobs, later: RowMethods, sessions: sessionmaker[Session], conn: psycopg.Connection
) -> None:
    with sessions.begin() as session:
        user = User(id=uuid4(), region=3, name="Ann")
        session.add(user)
        session.flush()
        job = later(user, session).welcome("hello")
    conn.execute("DELETE FROM app_users")
    drain(jobs)
    assert job.refresh().status is Status.CANCELLED
    assert "not there any more" in str(job.reason)


def test_what_cannot_run_is_refused_before_a_row_is_written(
    jobs: PgJobs, later: RowMethods, sessions: sessionmaker[Session], conn: psycopg.Connection
) -> None:
    with pytest.raises(OptionError, match="flush its session first"):
        later(User(id=uuid4(), region=1, name="Ann"))
    with sessions.begin() as session:
        user = User(id=uuid4(), region=3, name="Ann")
        session.add(user)
        session.flush()
        with pytest.raises(ArgumentsError, match=r"User.welcome': missing a required argument: 'greeting'"):
            later(user, session).welcome()
        with pytest.raises(ArgumentsError, match=r"Expected `str`, got `int` - at `\$.greeting`"):
            later(user, session).welcome(5)
        for name, says in (("later", "User.later is async"), ("each", "User.each yields")):
            with pytest.raises(OptionError, match=says):
                getattr(later(user, session), name)
        for other in (None, 5, User):
            with pytest.raises(OptionError, match="is no row; give an object of a model of Base"):
                later(other)  # type: ignore[arg-type]
        for name in ("_secret", "name", "nothing", "metadata"):
            with pytest.raises(AttributeError, match="no public method"):
                getattr(later(user, session), name)
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (0,)


def test_arguments_of_a_method_have_their_types_and_a_returned_snooze_is_one(
    jobs: PgJobs, later: RowMethods, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        user = User(id=uuid4(), region=4, name="Ann")
        session.add(user)
        session.flush()
        on, again = (later(user, session).due(date(2027, 1, 31), *days) for days in ((), (date(2027, 2, 1),)))
    drain(jobs)
    assert (on.get(1), again.refresh().status, again.reason) == (30, Status.SCHEDULED, "snoozed")


@pytest.mark.parametrize(
    ("model", "method"),
    [("tests.test_contrib.Stranger", "welcome"), ("os", "system"), ("tests.test_contrib.User", "_secret")],
)
def test_row_that_names_something_else_calls_nothing(jobs: PgJobs, later: RowMethods, model: str, method: str) -> None:
    job = jobs.enqueue("row_method", model=model, key=[1], method=method, args=[], kwargs={})
    drain(jobs)
    assert job.refresh().status is Status.FAILED


def test_class_with_perform_is_a_task(jobs: PgJobs) -> None:
    made: list[object] = []

    @job_class(jobs, queue="archive", name="Archive")
    class Archive:
        def __init__(self) -> None:
            made.append(self)

        def perform(self, repository: int, branch: str = "main") -> str:
            return f"{repository}/{branch}"

    archive: Any = Archive
    first, second = archive.perform_async(17), archive.task.enqueue(17, branch="next")
    later = archive.perform_in("1h", 17)
    assert later.status is Status.SCHEDULED
    drain(jobs)
    assert [first.get(5), second.get(5)] == ["17/main", "17/next"]
    assert len(made) == 2
    assert first.queue == "archive"
    with pytest.raises(ArgumentsError):
        archive.perform_async("seventeen")


def test_perform_may_be_async_or_belong_to_the_class(jobs: PgJobs) -> None:
    @job_class(jobs, name="A")
    class A:
        async def perform(self, n: int) -> int:
            return n + 1

    @job_class(jobs, name="B")
    class B:
        @classmethod
        def perform(cls, n: int) -> str:
            return cls.__name__ * n

    a: Any = A
    b: Any = B
    found = [a.perform_async(1), b.perform_async(2)]
    assert a.task.executor == "async"
    drain(jobs)
    assert [job.get(5) for job in found] == [2, "BB"]


def test_class_without_perform_is_refused(jobs: PgJobs) -> None:
    with pytest.raises(TaskError, match="has no method perform"):
        job_class(jobs)(object)


def test_class_that_could_not_perform_is_refused(jobs: PgJobs) -> None:
    class Needs:
        def __init__(self, what: str) -> None: ...
        def perform(self) -> None: ...

    class Yields:
        def perform(self) -> Iterator[int]:
            yield 1

    with pytest.raises(TaskError, match=r"no .*Needs can be made without arguments \(missing .* 'what'\)"):
        job_class(jobs)(Needs)
    with pytest.raises(OptionError, match=r"Yields.perform yields"):
        job_class(jobs)(Yields)
    with pytest.raises(TaskError, match=r"write @job_class\(jobs\) above the class"):
        job_class(Yields)  # type: ignore[arg-type]
