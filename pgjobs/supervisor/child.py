"""The process in which jobs run: loads the application, runs a Worker, and does what its supervisor says.

Started by the supervisor as ``python -m pgjobs.supervisor.child FD BOARD_FD SETTINGS``; it exits when the pipe closes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import fields
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from pgjobs import embedded, migrations
from pgjobs.connections.database import is_away, refused
from pgjobs.errors import ConfigurationError, OptionError, PgJobsError, SchemaError
from pgjobs.running.loading import Application, load
from pgjobs.telemetry import Log, set_up_logging
from pgjobs.worker import dump, identity
from pgjobs.worker.board import Board
from pgjobs.worker.life import Life
from pgjobs.worker.runtime import Worker
from pgjobs.worker.settings import WorkerSettings
from pgjobs.worker.tally import Tally

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
OUT_OF_DATE: Final = 5
RECYCLED: Final = 75
"""A fresh process shall follow this one."""

logger = logging.getLogger("pgjobs.worker")


class Child:
    """One worker process under a supervisor."""

    def __init__(self, pipe: socket.socket, board: Board, settings: dict[str, Any]) -> None:
        self._pipe = pipe
        self._board = board
        self._settings = settings
        self._worker: Worker | None = None
        self._stopping = False
        self._told = False
        self._recycled = False
        self._done = 0
        self._speaking = threading.Lock()
        self._tally = Tally(Log()) if settings["http"] or settings["statsd"] else None

    def run(self) -> int:
        """Works until told to stop; returns the exit code."""
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the supervisor too, who then tells us
            signal.signal(number, _ignore)
        signal.signal(signal.SIGTERM, self._asked_to_stop)
        identity.leave_with_parent()
        identity.set_title(f"pgjobs worker: {self._settings['app']} {self._settings['queues']}")
        application = self._load()
        if application is None:
            return USAGE
        threading.Thread(target=self._obey, name="pgjobs-pipe", daemon=True).start()
        threading.Thread(target=self._pulse, name="pgjobs-pulse", daemon=True).start()
        try:
            self._work(application)
        except (ConfigurationError, OptionError) as error:
            return self._give_up(USAGE, str(error))
        except SchemaError as error:
            return self._give_up(OUT_OF_DATE, str(error))
        except psycopg.errors.InsufficientPrivilege as error:
            return self._give_up(FAILURE, refused(error))
        except (psycopg.Error, embedded.EmbeddedServerError) as error:
            if isinstance(error, psycopg.Error) and not is_away(error):
                raise
            where = application.jobs.database.where
            return self._give_up(
                UNREACHABLE,
                f"database {where} cannot be reached ({_first_line(error)}); check its URL and whether it runs, "
                "or pass --wait-for-db",
            )
        except PgJobsError as error:
            return self._give_up(FAILURE, str(error))
        self._tell_sums()
        self._say({"left": True, "done": self._done})  # a job that calls os._exit(0) does not
        return RECYCLED if self._recycled else OK

    def _load(self) -> Application | None:
        name = self._settings["app"]
        try:
            return load(name)
        except ConfigurationError as error:
            self._give_up(USAGE, str(error))
        except BaseException:
            self._give_up(USAGE, f"{name} cannot be imported:\n{traceback.format_exc()}")
        return None

    def _work(self, application: Application) -> None:
        settings, database = self._settings, application.jobs.database
        if settings["migrate"] and (applied := migrations.migrate(database.url, schema=database.schema)):
            logger.info("schema %s of %s: applied %s", database.schema, database.where, ", ".join(applied))
        worker = self._worker = self._make_worker(application)
        if not self._start(worker):
            return
        try:
            worker.wait()
        finally:
            worker.stop()
        self._done = worker.done
        self._recycled = (worker.recycling or self._stopping) and not self._told

    def _make_worker(self, application: Application) -> Worker:
        told = {each.name: self._settings[each.name] for each in fields(WorkerSettings) if each.name in self._settings}
        return Worker(
            application.jobs,
            WorkerSettings(
                modules=application.modules, supervised=True, supervisor_id=UUID(self._settings["supervisor"]), **told
            ),
            board=self._board,
            on_life=self._introduce,
            on_asked=lambda: self._say({"asked": True}),
            emit=self._tally,
        )

    def _start(self, worker: Worker) -> bool:
        """Starts it, once the database is there where that is to be waited for; returns whether it has started."""
        while not self._stopping:
            try:
                worker.start()
            except psycopg.Error as error:
                if not (self._settings["wait_for_db"] and is_away(error)):
                    raise
                worker.outage.away(error)
                worker.await_change(0.5)
            else:
                worker.outage.back()
                return True
        return False

    def _introduce(self, life: Life) -> None:
        """Tells the supervisor under which id we work, and where, so that it can beat for us."""
        assert self._worker is not None  # noqa: S101 - it has just begun a life
        database = self._worker.jobs.database
        self._say({"life": str(life.id), "url": database.url, "schema": database.schema})

    def _give_up(self, code: int, message: str) -> int:
        self._say({"error": message})
        return code

    def _say(self, message: dict[str, Any]) -> None:
        with self._speaking, contextlib.suppress(OSError):
            self._pipe.sendall(json.dumps(message).encode() + b"\n")

    def _asked_to_stop(self, number: int, frame: object) -> None:
        """Leaves, for a fresh process to follow, unless the supervisor was asked to stop as well."""
        self._stop()

    def _stop(self, *, hurry: bool = False) -> None:
        asked_before = self._stopping
        self._stopping = True
        if self._worker is not None and (hurry or not asked_before):
            self._worker.request_stop()

    def _drain(self) -> None:
        """Leaves when all that runs has ended, and nobody is to follow."""
        self._told = True
        if self._worker is None:
            self._stop()
        else:
            self._worker.drain()

    def _tell_facts(self, question: str, facts: object) -> None:
        self._say({"answer": question, "facts": facts})

    def _obey(self) -> None:
        """Does what the supervisor says, and stops at once when it is gone."""
        with self._pipe.makefile("r") as lines:
            for line in lines:
                match line.split():
                    case ["stop"]:
                        self._told = True
                        self._stop()
                    case ["hurry"]:
                        self._stop(hurry=True)
                    case ["dead", life] if self._worker is not None:
                        self._worker.declared_dead(UUID(life))
                    case ["drain"]:
                        self._drain()
                    case ["quiet" | "claim" as word] if self._worker is not None:
                        self._worker.be_quiet(word == "quiet")
                    case ["ask", question, what, seconds] if self._worker is not None:
                        tell = partial(self._tell_facts, question)
                        self._worker.ask(what, float(seconds), tell)
                    case ["recycle"] if self._worker is not None:
                        self._worker.recycle("the supervisor asks for it")
                    case _:
                        pass
        self._stop()
        self._stop(hurry=True)
        time.sleep(10)
        os._exit(FAILURE)

    def _pulse(self) -> None:
        """Moves the counter that the supervisor watches, for as long as Python code runs here."""
        while True:
            self._board.touch()
            self._tell_sums()
            time.sleep(1.0)

    def _tell_sums(self) -> None:
        """Tells the supervisor what has happened in the last second, where somebody may ask it."""
        if self._tally is not None and self._worker is not None:
            worker = self._worker
            sums = self._tally.take(worker.busy, worker.settings.concurrency, worker.claims)
            self._say({"sums": msgspec.to_builtins(sums)})


def _ignore(number: int, frame: object) -> None:
    """Unlike SIG_IGN, this is not passed on to the programs that a job starts."""


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def main() -> int:
    """Runs the child that the command line describes."""
    fd, board_fd, document = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    settings = json.loads(document)
    dump.listen(settings["stacks_fd"])
    set_up_logging(settings["log_level"], settings["name"])
    pipe = socket.socket(fileno=fd)
    return Child(pipe, Board(settings["concurrency"], board_fd), settings).run()


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that run a job which nobody waits for any more do not hold us up
