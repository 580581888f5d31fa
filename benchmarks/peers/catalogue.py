"""The queues that a Python programmer may pick instead, each tuned as its own documentation says.

A row says what is installed, how many jobs a drain has (so that it takes seconds), and the settings with their source.
Versions are pinned: a figure belongs to a version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Peer:
    """One queue, and how it is run.

    Attributes:
        name: of the module in ``apps``, without ``_noop``.
        unfinished: SQL that finds a job not recorded as done; empty where the peer keeps no record.
        starts_all: whether its own command starts several worker processes.
        tuned: environment by number of worker processes, where one setting is not the best for both.
    """

    name: str
    needs: tuple[str, ...]
    jobs: int
    settings: str
    source: str
    unfinished: str = ""
    starts_all: bool = False
    python: str = "3.11"
    tuned: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])

    @property
    def on_redis(self) -> bool:
        return not self.unfinished


OURS: Final = Peer(
    "pgjobs",
    (),
    100_000,
    "as it comes; coroutines, 16 slots",
    "its own defaults",
    "SELECT FROM pgjobs.jobs WHERE position IS NOT NULL OR status = 'running' LIMIT 1",
    starts_all=True,
)

PEERS: Final = (
    Peer(
        "pgqueuer",
        ("pgqueuer==1.6.0", "asyncpg", "uvloop"),
        100_000,
        "asyncpg, uvloop, durable, `pgq autovac`; one consumer a process, batch_size 100 with one, 500 with two",
        "its performance guide: larger batches for short jobs; the better of several was taken",
        "SELECT FROM pgqueuer LIMIT 1",
        tuned={1: {"PEERS_BATCH": "100"}, 2: {"PEERS_BATCH": "500"}},
    ),
    Peer(
        "awa",
        ("awa-pg==0.6.9",),
        20_000,
        "256 workers, poll 50 ms, claim_batch_size 512 (default), enqueue_many_copy",
        "README and the author's own benchmark",
        "SELECT FROM awa.jobs WHERE state NOT IN ('completed', 'failed', 'cancelled') LIMIT 1",
    ),
    Peer(
        "chancy",
        ("chancy==0.26.0", "psycopg[binary]", "uvloop"),
        30_000,
        "AsyncExecutor, concurrency 1000, eager_polling, polling_interval 1 s",
        "documentation of Queue: eager polling, async executor for many short jobs",
        "SELECT FROM chancy_jobs WHERE state <> 'succeeded' LIMIT 1",
    ),
    Peer(
        "oban",
        ("oban==0.7.0", "uvloop"),
        30_000,
        "queue limit 100, pool as create_pool makes it, uvloop",
        "documentation of queues; Python 3.12, which it needs",
        "SELECT FROM oban_jobs WHERE state <> 'completed' LIMIT 1",
        python="3.12",
    ),
    Peer(
        "procrastinate",
        ("procrastinate==3.10.0", "psycopg[binary]", "uvloop"),
        5_000,
        "concurrency 10, LISTEN/NOTIFY on, async tasks",
        "how-to on concurrency",
        "SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1",
    ),
    Peer(
        "taskiq",
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", "uvloop"),
        20_000,
        "RedisStreamBroker, max-async-tasks 100, max-prefetch 100",
        "documentation of its command line",
        starts_all=True,
    ),
    Peer(
        "dramatiq",
        ("dramatiq[redis]==2.2.1",),
        20_000,
        "8 threads (default), dramatiq_queue_prefetch=256",
        "advanced topics: prefetch",
        starts_all=True,
    ),
    Peer(
        "huey",
        ("huey==3.5.4", "redis"),
        20_000,
        "RedisHuey (blocking pop), -k process, results off",
        "documentation of the consumer: processes for CPU-bound work",
        starts_all=True,
    ),
    Peer(
        "bullmq",
        ("bullmq==3.4.4", "uvloop"),
        20_000,
        "concurrency 100, removeOnComplete, addBulk",
        "its guides: concurrency, adding jobs in bulk",
    ),
    Peer(
        "arq",
        ("arq==0.28.0", "uvloop"),
        10_000,
        "max_jobs 100, poll_delay 20 ms, keep_result 0",
        "reference of Worker",
    ),
    Peer(
        "celery",
        ("celery[redis]==5.7.0",),
        8_000,
        "prefork, prefetch_multiplier 128, ignore_result, no gossip, mingle, heartbeat",
        "user guide, Optimizing",
        starts_all=True,
    ),
    Peer(
        "rq",
        ("rq==3.0.0",),
        3_000,
        "SimpleWorker (no fork per job)",
        "documentation, Performance notes on workers",
    ),
)
