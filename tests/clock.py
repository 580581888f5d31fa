"""Processes whose wall clock is wrong, as where nobody has set it. Monotonic time goes on as it does."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

# A library of our own, since libfaketime's processes share a semaphore, which one that is killed may leave locked.
_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift_s;

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("CLOCK_SHIFT_S");
    shift_s = text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (into)
        *into = exact.tv_sec;
    return exact.tv_sec;
}
"""


def missing() -> str | None:
    """Why there can be no wrong clocks here; None where there can."""
    return None if _library() is not None else "wrong clocks need Linux and a C compiler"


def wrong_by(seconds: int) -> dict[str, str]:
    """The environment of a process whose clock is ahead by so much, or behind."""
    return {"LD_PRELOAD": str(_library()), "CLOCK_SHIFT_S": str(seconds)}


@functools.cache
def _library() -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None or not Path("/proc/self").exists():
        return None
    directory = Path(tempfile.mkdtemp(prefix="pgjobs-clock-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    source, library = directory / "clock.c", directory / "clock.so"
    source.write_text(_SOURCE)
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source], check=False)
    return library if done.returncode == 0 else None
