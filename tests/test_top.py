"""pgjobs top: views, filters, sorts and acts, each after a question; through a real terminal, too."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pyte
import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from pgjobs import ConfigurationError, PgJobs, Status, statements, top
from pgjobs.cli.top import command
from pgjobs.top.dialogs import Confirm, Pages
from pgjobs.top.screen import Top
from pgjobs.top.view import Column, View, fitted, matching, ordered
from pgjobs.top.views import QUEUES, VIEWS
from tests.processes import PGJOBS, environment, pgjobs
from tests.support import eventually
from tests.test_explain import put_worker

SIZE = (80, 24)


# -- data


def names(view: View[Any], columns: list[Column[Any]]) -> list[str]:
    return [column.title for column in columns]


def test_columns_fit_and_those_that_matter_stay() -> None:
    for view in VIEWS:
        for room in (40, 80, 120, 200):
            kept = fitted(view.columns, room)
            assert kept[0] is view.columns[0]
            assert sum((column.width or 12) + 2 for column in kept) <= room, view.title
        assert fitted(view.columns, 250) == list(view.columns), view.title
    assert {"queue", "queued", "running", "failed"} <= set(names(QUEUES, fitted(QUEUES.columns, 80)))


def test_rows_match_by_words_and_are_ordered_with_nothing_at_the_end() -> None:
    view = View[tuple[str, int | None]](
        "numbers",
        [
            Column("name", lambda row: row[0], lambda row: row[0]),
            Column("n", lambda row: str(row[1]), lambda row: row[1]),
        ],
        lambda jobs: iter(()),  # type: ignore[arg-type,return-value]
        lambda row: row[0],
    )
    rows = [("mail.send", 3), ("mail.sort", None), ("report", 12)]
    assert matching(view, rows, "MAIL") == rows[:2]
    assert matching(view, rows, "mail 3") == rows[:1]
    assert matching(view, rows, " ") == rows
    assert ordered(view, rows, 1, down=True) == [rows[2], rows[0], rows[1]]
    assert ordered(view, rows, 1, down=False) == [rows[0], rows[2], rows[1]]


def test_every_view_can_be_named_and_has_keys_of_its_own() -> None:
    (choice,) = [each.type for each in command.params if each.name == "view"]
    assert list(getattr(choice, "choices", ())) == [view.title for view in VIEWS]
    for view in VIEWS:
        keys = [action.key for action in view.actions]
        assert len(set(keys)) == len(keys)
        assert not set(keys) & set("qsS/?123456789")


def test_error_names_the_extra_where_it_is_missing(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pgjobs.top.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "textual.app", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pgjobs-queue\[tui\]'"):
        top.run(jobs, 1.0, "queues")


def test_pipe_is_refused_with_the_way_out(database_url: str) -> None:
    done = pgjobs(database_url, "top")
    assert (done.returncode, "pgjobs info --json" in done.stderr) == (2, True)


# -- behaviour


@pytest.fixture
def lived_in(jobs: PgJobs) -> PgJobs:
    @jobs.task(name="mail.send", queue="mail", private=["password"])
    def send(to: str, password: str = "") -> None: ...

    @jobs.task(name="boom", retry=1)
    def boom(i: int) -> None:
        raise ValueError("no way")

    boom.enqueue_many([(i,) for i in range(3)])
    jobs.worker(burst=True).run()
    send.enqueue_many([("ann", "canary"), ("bob", "canary")])
    send.using(queue="reports", delay=60).enqueue("eve")
    return jobs


async def answer(pilot: Pilot[None], app: Top, action: str, key: str) -> str:
    """Asks for an action, and answers; returns the question."""
    await pilot.press(action)
    await until(pilot, lambda: isinstance(app.screen, Confirm))
    assert isinstance(app.screen, Confirm)
    question = app.screen.question
    await pilot.press(key)
    await until(pilot, lambda: not isinstance(app.screen, Confirm))
    return question


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        await pilot.pause(0.02)


def rows(app: Top) -> list[list[str]]:
    table: DataTable[Any] = app.screen_stack[0].query_one(DataTable)
    return [[str(cell) for cell in table.get_row_at(index)] for index in range(table.row_count)]


def firsts(app: Top) -> list[str]:
    return [row[0] for row in rows(app)]


def said(app: Top) -> str:
    return str(app.screen_stack[0].query_one("#message", Static).render())


async def test_queues_are_shown_filtered_and_paused_after_a_question(lived_in: PgJobs) -> None:
    app = Top(lived_in, 0.1, "queues")
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: firsts(app) == ["default", "mail", "reports"])
        await pilot.press("/", *"mail")
        await until(pilot, lambda: firsts(app) == ["mail"])
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.focused, DataTable))
        assert await answer(pilot, app, "p", "n") == "Pause queue mail? 2 jobs will wait; what runs goes on."
        assert lived_in.pauses() == []
        await answer(pilot, app, "p", "y")
        await until(pilot, lambda: firsts(app) == ["‖ mail"])
        assert [pause.name for pause in lived_in.pauses()] == ["mail"]
        await answer(pilot, app, "p", "y")
        await until(pilot, lambda: firsts(app) == ["mail"])
        await pilot.press("escape")
        await until(pilot, lambda: len(rows(app)) == 3)
        await pilot.press("q")
    assert app.return_code == 0


async def test_tasks_are_paused_and_workers_seen(lived_in: PgJobs) -> None:
    app = Top(lived_in, 0.1, "tasks")
    with lived_in.worker(queues="other", name="mine"):
        async with app.run_test(size=SIZE) as pilot:
            await until(pilot, lambda: firsts(app) == ["boom", "mail.send"])
            await answer(pilot, app, "p", "y")
            await until(pilot, lambda: firsts(app) == ["‖ boom", "mail.send"])
            await pilot.press("3")
            await until(pilot, lambda: firsts(app) == ["mine"])
            await pilot.press("tab", "tab", "tab")
            await until(pilot, lambda: "default" in firsts(app))
            await pilot.press("shift+tab")
            await until(pilot, lambda: firsts(app) == ["ValueError: no way"])


async def test_workers_are_quieted_and_stopped_after_a_question(
    lived_in: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    worker = put_worker(conn, "mail", "-1 hour")
    stands = "SELECT quiet_at IS NOT NULL, stopping_at IS NOT NULL FROM pgjobs.workers WHERE id = %s"
    app = Top(lived_in, 0.2, "workers")
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: firsts(app))
        assert "claim no more? 0 jobs" in await answer(pilot, app, "p", "n")
        assert conn.execute(stands, [worker]).fetchone() == (False, False)
        await answer(pilot, app, "p", "y")
        await until(pilot, lambda: "quiet" in rows(app)[0])
        assert conn.execute(stands, [worker]).fetchone() == (True, False)
        assert "claim again?" in await answer(pilot, app, "p", "y")
        await until(pilot, lambda: "quiet" not in rows(app)[0])
        assert "nobody follows it" in await answer(pilot, app, "x", "y")
        await until(pilot, lambda: "stopping" in rows(app)[0])
        assert conn.execute(stands, [worker]).fetchone() == (False, True)
        await pilot.press("x")
        await until(pilot, lambda: "allows no stop" in said(app))


async def test_job_is_shown_whole_but_for_what_is_private_and_cancelled(lived_in: PgJobs) -> None:
    app = Top(lived_in, 0.1, "jobs")
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: len(rows(app)) == 6)
        assert firsts(app)[0] == "mail.send", "the latest first"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Pages))
        assert isinstance(app.screen, Pages)
        text = "\n".join(f"{title} {part}" for title, part in app.screen.sections)
        assert '"to": "eve"' in text
        assert "canary" not in text
        await pilot.press("escape")
        assert (await answer(pilot, app, "c", "y")).startswith("Cancel 1 job of mail.send? It is scheduled: ")
        await until(pilot, lambda: "cancelled" in [row[1] for row in rows(app)])
        await pilot.press("c")
        await until(pilot, lambda: said(app) == "this one allows no cancel")


async def test_failures_are_shown_and_all_of_a_kind_retried_with_a_line_in_the_audit(
    lived_in: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    app = Top(lived_in, 0.1, "failures")
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: firsts(app) == ["ValueError: no way"])
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Pages))
        assert isinstance(app.screen, Pages)
        assert "raise ValueError" in "\n".join(str(part) for _, part in app.screen.sections)
        await pilot.press("q")
        question = await answer(pilot, app, "r", "y")
        assert question == "Queue 3 failed jobs of boom again? They failed with ValueError: no way"
        await until(pilot, lambda: said(app) == "3 jobs queued again")
    assert conn.execute("SELECT action, jobs FROM pgjobs.audit").fetchall() == [("retry", 3)]
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE task = 'boom' AND status = 'queued'").fetchone() == (3,)


async def test_sorting_and_pace_are_by_keys(lived_in: PgJobs) -> None:
    app = Top(lived_in, 2.0, "queues")
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: firsts(app) == ["default", "mail", "reports"])
        await pilot.press("S")
        await until(pilot, lambda: firsts(app) == ["reports", "mail", "default"])
        while "by queued" not in said(app):
            await pilot.press("s")
        assert firsts(app)[0] == "mail"
        await pilot.press("plus")
        await until(pilot, lambda: "every 5 s" in said(app))
        await pilot.press("minus", "minus")
        await until(pilot, lambda: "every 1 s" in said(app))
        await pilot.press("?")
        await until(pilot, lambda: isinstance(app.screen, Pages))
        await pilot.press("escape")
        assert not isinstance(app.screen, Pages)


@pytest.mark.parametrize("size", [(40, 10), (200, 50)])
async def test_it_fits_any_terminal(size: tuple[int, int], lived_in: PgJobs) -> None:
    app = Top(lived_in, 0.1, "queues")
    async with app.run_test(size=size) as pilot:
        for view in VIEWS:
            await pilot.press(str(VIEWS.index(view) + 1))
            await until(pilot, lambda: "reading" not in said(app))
            table: DataTable[Any] = app.screen.query_one(DataTable)
            assert table.virtual_size.width <= size[0], view.title
            await pilot.resize_terminal(80, 24)
            await pilot.resize_terminal(*size)


async def test_outage_is_said_and_outlived(
    lived_in: PgJobs, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Top(lived_in, 0.1, "queues")
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: len(rows(app)) == 3)

        async def away(*_: Any) -> Any:
            raise psycopg.OperationalError("connection refused")

        with monkeypatch.context() as patch:
            patch.setattr(lived_in.database, "alook", away)
            await until(pilot, lambda: "the database is out of reach, trying again: connection refused" in said(app))
            assert len(rows(app)) == 3, "the last rows stay"
        await until(pilot, lambda: "3 rows" in said(app))


def test_retry_of_a_job_that_has_not_ended_is_said_to_be_none(lived_in: PgJobs) -> None:
    from pgjobs.top import actions

    job = lived_in.tasks["mail.send"].enqueue("ann")

    async def both() -> tuple[str, str]:
        try:
            return await actions.retry_job(lived_in, job.id), await actions.cancel_job(lived_in, job.id)
        finally:
            await lived_in.database.aclose()

    retried, cancelled = asyncio.run(both())
    assert "cannot be queued again" in retried
    assert cancelled.startswith("cancelled")
    assert job.refresh().status is Status.CANCELLED


def test_what_has_ended_otherwise_meanwhile_is_neither_retried_nor_cancelled(
    lived_in: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pgjobs.top import actions

    (alike,) = lived_in.database.run(statements.lately_alike(None, None, 10))
    chunks = actions._chunks

    async def chunks_of_a_busy_table(*args: Any) -> AsyncIterator[list[UUID]]:
        async for ids in chunks(*args):
            conn.execute("UPDATE pgjobs.jobs SET status = 'succeeded' WHERE status = 'failed'")
            yield ids

    monkeypatch.setattr(actions, "_chunks", chunks_of_a_busy_table)

    async def act() -> str:
        try:
            return await actions.retry_alike(lived_in, alike)
        finally:
            await lived_in.database.aclose()

    assert asyncio.run(act()) == "0 jobs queued again"


# -- a real terminal


class Terminal:
    """A program on a pseudo-terminal of 80×24, and what its screen shows."""

    def __init__(self, url: str, *arguments: str) -> None:
        self.screen = pyte.Screen(*SIZE)
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.raw = b""
        self.popen = subprocess.Popen(
            [*PGJOBS, *arguments],
            env=environment(url, TERM="xterm-256color"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def read(self) -> None:
        while select.select([self._master], [], [], 0.02)[0]:
            data = os.read(self._master, 65_536)
            self.raw += data
            # pyte knows no private parameters with intermediate characters, as the query of a mode has them
            self._stream.feed(data.replace(b"\x1b[?2026$p", b"").replace(b"\x1b[?2048$p", b""))

    def shows(self, words: str) -> bool:
        self.read()
        return any(words in line for line in self.screen.display)

    def wait_for(self, words: str) -> None:
        eventually(lambda: self.shows(words) or self.popen.poll() is not None, timeout_s=20)
        assert self.shows(words), "\n".join(self.screen.display)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self) -> int:
        def ended() -> bool:
            self.read()
            return self.popen.poll() is not None

        eventually(ended, timeout_s=15)
        self.read()
        return self.popen.wait()

    def close(self) -> None:
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
        os.close(self._slave)
        os.close(self._master)


@pytest.fixture
def terminal(lived_in: PgJobs, database_url: str) -> Iterator[Terminal]:
    opened = Terminal(database_url, "top", "--refresh", "0.2")
    yield opened
    opened.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_in_a_terminal_it_opens_filters_pauses_and_leaves_it_as_it_was(terminal: Terminal, lived_in: PgJobs) -> None:
    terminal.wait_for("reports")
    terminal.wait_for("p pause or resume")
    terminal.type("/")
    terminal.wait_for("words that a row must have")
    terminal.type("mail")
    terminal.wait_for("1 row ")
    terminal.type("\r")
    terminal.wait_for("p pause or resume")
    terminal.type("p")
    terminal.wait_for("Pause queue mail?")
    terminal.type("y")
    terminal.wait_for("‖ mail")
    assert [pause.name for pause in lived_in.pauses()] == ["mail"]
    terminal.type("q")
    assert terminal.end() == 0
    assert terminal.settings() == terminal.before
    assert terminal.raw.rindex(b"\x1b[?1049l") > terminal.raw.rindex(b"\x1b[?1049h"), "the screen is given back"
    assert terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l"), "the cursor shows"


def test_info_watches_on_a_screen_of_its_own_and_leaves_its_last_picture(lived_in: PgJobs, database_url: str) -> None:
    opened = Terminal(database_url, "info", "--watch", "0.2")
    try:
        opened.wait_for("mail")
        assert b"\x1b[?1049h" in opened.raw
        opened.popen.send_signal(signal.SIGINT)
        assert opened.end() == 0
        assert b"mail" in opened.raw.rpartition(b"\x1b[?1049l")[2]
        assert opened.settings() == opened.before
    finally:
        opened.close()
