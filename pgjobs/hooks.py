"""What an application puts around its enqueues and runs, and who it has told of what happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from pgjobs.errors import OptionError
from pgjobs.events import Audience, Event, Listener
from pgjobs.producer import Producer
from pgjobs.task import Task
from pgjobs.wording import given

if TYPE_CHECKING:
    from pgjobs.running.middleware import Middleware

Wrapper: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


class Hooks:
    """Where ``PgJobs`` is given middleware, wrappers of functions and listeners."""

    tasks: dict[str, Task[..., Any, Any]]
    _producer: Producer

    def __init__(self) -> None:
        super().__init__()
        self._wrappers: list[Wrapper] = []

    def use(self, *middleware: Middleware) -> None:
        """Puts middleware around every enqueue and every run from now on; the first one is the outermost.

        Say so before workers start. It is compiled into the tasks, so that what nobody uses costs nothing.

        Raises:
            OptionError: it is none, or its class.
        """
        for each in middleware:
            if isinstance(each, type) or not callable(getattr(each, "wrap_run", None)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise OptionError(
                    f"{given(each)} is no middleware; give an object of a class that derives from Middleware"
                )
        self._producer.attend(middleware)
        for task in self.tasks.values():
            task.compiled = False

    def wrap(self, wrapper: Wrapper) -> None:
        """Has the functions of all tasks wrapped: of those that are registered, and of those that will be.

        Args:
            wrapper: takes a function and returns one that calls it, a coroutine function for a coroutine function, with
                functools.wraps. Direct calls of a task go through it too.

        Raises:
            OptionError: it cannot be called.
        """
        if not callable(wrapper):
            raise OptionError(f"{given(wrapper)} wraps nothing; give a function that takes one and returns one")
        self._wrappers.append(wrapper)
        for task in {id(task): task for task in self.tasks.values()}.values():
            task.function = wrapper(task.function)
            task.compiled = False

    def _wrap(self, task: Task[..., Any, Any]) -> None:
        for wrapper in self._wrappers:
            task.function = wrapper(task.function)

    def subscribe(self, listener: Listener, *kinds: type[Event]) -> None:
        """Has a listener told of some kinds of events; a base class such as JobEvent for all that derive from it.

        It is called where the event happens: JobEnqueued in the producer, all others in a worker, on the thread that
        records outcomes. So it should be quick, and hand longer work on. What it raises is logged. Events of a kind
        that nobody listens to are not made; subscribe before workers start.

        Raises:
            OptionError: the listener cannot be called, no kind is named, or one that is none.
        """
        if not callable(listener):
            raise OptionError(f"{given(listener)} hears nothing; give a function that takes an event")
        if not kinds or not all(isinstance(kind, type) and issubclass(kind, Event) for kind in kinds):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(f"kinds are {kinds!r}; name event classes, as in subscribe(listener, JobFailed)")
        self.audience.add(listener, kinds)
        self._producer.attend()

    @property
    def audience(self) -> Audience:
        """Who listens to what happens here."""
        return self._producer.audience
