"""What ``-A`` finds, and what a worker then runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgjobs import PgJobs
from pgjobs.errors import ConfigurationError
from pgjobs.running.loading import load
from pgjobs.running.registry import Registry, loaded_since

Write = Callable[..., None]

JOBS = "from pgjobs import PgJobs\njobs = PgJobs('postgresql://localhost/here', schema='shop')\n"
TASK = JOBS + "@jobs.task\ndef send(to): ...\n"
SECOND = "other = PgJobs('postgresql://localhost/there')\n"
QUEUE = (
    "from pgjobs.queue import Queue\nmail = Queue('mail', 'postgresql://localhost/here')\nmail.jobs.schema = 'shop'\n"
)
FACTORY = JOBS.replace("jobs =", "_made =") + "def make(): return _made\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules into the folder that the worker is started in."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def to_file(**modules: str) -> None:
        for name, source in modules.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)

    yield to_file
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


# -- the application


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (TASK, "shop_app:jobs"),
        (TASK, "shop_app"),
        (TASK, " shop_app:jobs "),
        (FACTORY, "shop_app:make"),
        (QUEUE, "shop_app:mail"),
        (QUEUE, "shop_app"),
        (QUEUE + "def make(): return mail\n", "shop_app:make"),
        (JOBS + SECOND, "shop_app:jobs"),
        (JOBS + "same = jobs\n", "shop_app"),
        (JOBS + "_private = PgJobs()\n", "shop_app"),
    ],
)
def test_the_application_is_found_by_its_name(source: str, name: str, write: Write) -> None:
    write(shop_app=source)
    found = load(name)
    assert found.jobs.schema == "shop"
    assert "shop_app" in found.modules


@pytest.mark.parametrize("attribute", ["absent", "number", "text", "function", "send"])
def test_a_name_that_holds_no_application_is_refused(attribute: str, write: Write) -> None:
    write(shop_app=TASK + "number = 5\ntext = 'jobs'\ndef function(): return 5\n")
    with pytest.raises(ConfigurationError, match=rf"^shop_app:{attribute} is no PgJobs, nor does it return one"):
        load(f"shop_app:{attribute}")


def test_two_applications_in_a_module_must_be_told_apart(write: Write) -> None:
    write(shop_app=JOBS + SECOND)
    with pytest.raises(ConfigurationError, match="shop_app has 2 PgJobs; say which, as in -A shop_app:jobs"):
        load("shop_app")


def test_a_module_without_an_application_may_still_hold_functions(write: Write) -> None:
    write(shop_app="def send(to): ...\n")
    found = load("shop_app")
    assert type(found.jobs) is PgJobs
    assert found.modules == {"shop_app"}


def test_several_modules_may_share_one_application(write: Write) -> None:
    write(shop_app=JOBS, shop_mail="from shop_app import jobs\n@jobs.task\ndef send(to): ...\n")
    found = load("shop_app:jobs,shop_mail")
    assert set(found.jobs.tasks) == {"shop_mail.send"}
    assert found.modules == {"shop_app", "shop_mail"}


def test_the_modules_of_a_package_that_were_imported_with_it_may_run(write: Write) -> None:
    write(
        shop____init__="",
        shop__app=JOBS + "import shop.tasks, shop_other",
        shop__tasks="",
        shop__idle="",
        shop_other="",
    )
    assert load("shop.app").modules == {"shop", "shop.app", "shop.tasks"}


@pytest.mark.parametrize(
    "name", ["shop_nowhere", "shop_nowhere.app:jobs", "shop_app.tasks", "shop_app:jobs,shop_nowhere"]
)
def test_a_module_that_is_not_there_is_told_with_the_folder(name: str, write: Write, tmp_path: Path) -> None:
    write(shop_app=JOBS)
    with pytest.raises(
        ConfigurationError, match=r"module 'shop_\w+(\.\w+)?' is not found from .*start in the project"
    ) as e:
        load(name)
    assert str(tmp_path) in str(e.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./shop_app.py", "write -A shop_app"),
        ("shop_app.py:jobs", "write -A shop_app"),
        ("shop/app", "write -A shop.app"),
        ("./shop/__init__.py", "write -A shop"),
        ("../shop_app.py", "start in the project's folder, and write -A app.tasks for app/tasks.py"),
        ("my-shop.py", "start in the project's folder"),
        (".shop_app", "write -A shop_app"),
        ("", "-A app.tasks"),
    ],
)
def test_a_file_is_told_how_it_is_named_as_a_module(name: str, says: str, write: Write) -> None:
    write(shop_app=JOBS)
    with pytest.raises(ConfigurationError, match=rf"is no module's name; .*{says}"):
        load(name)


def test_a_file_is_named_from_the_folder_that_it_is_found_in(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"; write -A shop\.app$"):
        load(f"{tmp_path}/shop/app.py")


@pytest.mark.parametrize(
    ("source", "error"),
    [("import shop_dependency\n", ModuleNotFoundError), ("1 / 0\n", ZeroDivisionError), ("def\n", SyntaxError)],
)
def test_an_error_inside_the_application_is_raised_as_it_is(source: str, error: type[Exception], write: Write) -> None:
    write(shop_app=source)
    with pytest.raises(error):
        load("shop_app")


# -- what may run


def test_a_task_is_found_by_its_name_and_its_former_names() -> None:
    jobs = PgJobs()

    @jobs.task(name="mail.send", aliases=["mail.post", "old:send"])
    def send(to: str) -> None: ...

    registry = Registry(jobs)
    assert [registry.find(name) for name in ("mail.send", "mail.post", "old:send")] == [send] * 3
    assert (registry.find("mail.sent"), len(registry)) == (None, 1)


def test_public_functions_of_loaded_modules_run_by_reference(write: Write) -> None:
    write(shop_app=TASK + "def plain(a, b=2): return a + b\nasync def waiting(): ...\n")
    registry = Registry(*_parts("shop_app"))
    plain = registry.find("shop_app:plain")
    assert plain is not None
    assert (plain.name, plain(1), plain.executor) == ("shop_app:plain", 3, "thread")
    assert registry.find("shop_app:plain") is plain
    waiting, send = registry.find("shop_app:waiting"), registry.find("shop_app:send")
    assert waiting is not None
    assert waiting.executor == "async"
    assert send is registry.find("shop_app.send") is not None


@pytest.mark.parametrize(
    "name",
    [
        *("shop_app:_private", "shop_app:Class", "shop_app:borrowed", "shop_app:number", "shop_app:absent"),
        *("shop_app:path.join", "shop_other:function", "os:system", "shutil:rmtree", "shop_app", "", ":", "shop_app:"),
    ],
)
def test_nothing_else_runs(name: str, write: Write) -> None:
    imports = "from shutil import rmtree as borrowed\nfrom os import path\n"
    own = "def _private(): ...\nclass Class: ...\nnumber = 5\n"
    write(shop_app=imports + own, shop_other="def function(): ...\n")
    assert Registry(*_parts("shop_app")).find(name) is None


def test_no_name_of_a_row_is_imported(write: Write) -> None:
    write(shop_app="", shop_other="def function(): ...\n")
    jobs, modules = _parts("shop_app")
    assert Registry(jobs, modules | {"shop_other"}).find("shop_other:function") is None
    assert "shop_other" not in sys.modules


def test_what_was_loaded_since_is_of_the_packages_that_were_named() -> None:
    before = [name for name in sys.modules if not name.startswith(("json", "logging"))]
    fresh = loaded_since(before, ["json.decoder", "absent"])
    assert {"json", "json.decoder", "json.encoder", "absent"} <= fresh
    assert not any(name.startswith("logging") for name in fresh)


def _parts(name: str) -> tuple[PgJobs, frozenset[str]]:
    found = load(name)
    return found.jobs, found.modules
