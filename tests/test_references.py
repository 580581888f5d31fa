"""Class- and staticmethods run by reference, like functions; nothing else of a class does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from pgjobs import PgJobs, Status, TaskError
from pgjobs.running.registry import Registry
from tests.apps.classes import Report, Special
from tests.processes import WorkerProcess

HERE = "tests.apps.classes"


@pytest.mark.parametrize(
    ("function", "name", "args", "result"),
    [
        (Report.make, "Report.make", (2026,), "report of 2026"),
        (Special.make, "Special.make", (2026,), "special of 2026"),
        (Report.add, "Report.add", (1, 2), 3),
        (Report.Inner.make, "Report.Inner.make", (), "inner"),
    ],
)
def test_method_of_a_class_runs_by_reference(
    jobs: PgJobs, function: Callable[..., Any], name: str, args: tuple[Any, ...], result: Any
) -> None:
    job = jobs.enqueue(function, *args)
    assert job.task == f"{HERE}:{name}"
    jobs.worker(burst=True, modules=[HERE]).run()
    assert job.get(5) == result


@pytest.mark.parametrize("function", [Report().method, Report.method], ids=["bound", "unbound"])
def test_method_of_an_object_is_refused(jobs: PgJobs, function: Any) -> None:
    with pytest.raises(TaskError, match=r"is a method of an object|is not a plain function"):
        jobs.enqueue(function)


@pytest.mark.parametrize(
    "path",
    ["Report.method", "Report._private", "Report.name", "Report.__init__", "Report", "jobs.close", "PgJobs.task"],
)
def test_nothing_else_of_a_module_is_found(jobs: PgJobs, path: str) -> None:
    assert Registry(jobs, [HERE]).find(f"{HERE}:{path}") is None


def test_worker_process_finds_it_where_a_producer_only_knows_the_name(jobs: PgJobs, database_url: str) -> None:
    job = jobs.enqueue(f"{HERE}:Special.make", 1999)
    suspect = jobs.enqueue(f"{HERE}:Special.make", 2000)
    with closing(jobs.database.connect("test")) as conn:
        conn.execute(
            "UPDATE pgjobs.jobs SET crashes = 1 WHERE id = %s", [suspect.id]
        )  # it runs in a process of its own
    with WorkerProcess(database_url, "--burst", app=HERE) as worker:
        assert worker.leave(30) == 0
    assert [job.refresh().status, job.result] == [Status.SUCCEEDED, "special of 1999"]
    assert [suspect.refresh().status, suspect.result] == [Status.SUCCEEDED, "special of 2000"]
