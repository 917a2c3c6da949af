"""A thread with an event loop that drives one core: events in, effects out, the timer re-armed.

Nothing is decided here. After each step the timer is set for the core's next deadline. The loop
reads sockets before it fires timers, so after a pause of this process what has arrived is heard
before any deadline is.

If a core raises, that is our own bug: it is logged with what the core was told last (kinds of
events, never their contents), and this peer's part ends; other peers are not harmed.
"""

import asyncio
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from grid.errors import Bug
from peers.forking import loop_filenos
from peers.trace import CoreName, Trace

log = logging.getLogger(__name__)

JOIN_SECONDS = 5.0

MAIL_AT_ONCE = 100
"""Read before sockets are looked at again: what comes of one thing, and milliseconds at most."""

STORY_EVENTS = 30
"""How many of the last events a bug report names."""


class CoreThread:
    """Runs ``step(event)`` for every event posted, on a thread of its own.

    Subclasses give ``_step`` (performs the core's effects) and ``_next_deadline``, and close what
    they opened in ``_shut``, which runs on the thread.
    """

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
        self.trace: Trace | None = None
        """Where the core's steps are written down, if anywhere. Set before the start."""
        self._timer: asyncio.TimerHandle | None = None
        self._mail: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._reading = False
        # The loop has a pair of its own, but what it does when that is used costs more than a step.
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self.loop.add_reader(self._bell, self._on_bell)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._story: deque[tuple[type, type]] = deque(maxlen=STORY_EVENTS)
        self._broken = False

    # -- for other threads -------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def post(self, event: Any) -> None:
        """Tell the core a fact, from any thread. Nothing happens once the thread has ended."""
        self.call(self._take, event)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Run a function on the thread, soon, in the order of the calls. Nothing happens once the
        thread has ended."""
        self._mail.append((function, args))
        self.wake()

    def leave(self, event: Any) -> None:
        """As ``post``, for an event that can wait: it is read with whatever comes next, or when
        somebody calls ``wake``."""
        self._mail.append((self._take, (event,)))

    def wake(self) -> None:
        """Have the mail read, from any thread. Waking a loop costs more than most steps: it is done
        once for all that comes until the loop has read its mail."""
        if self._reading or not self._mail:
            return
        self._reading = True
        try:
            if threading.get_ident() == self._thread.ident:
                self.loop.call_soon(self._read_mail)
            else:
                self._ringer.send(b"!")
        except (RuntimeError, OSError):  # the loop is closed: whatever this was about is over
            self._mail.clear()
            self._reading = False

    def stop(self) -> None:
        """End the thread, from another one."""
        self.call(self.loop.stop)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

    def filenos(self) -> list[int]:
        """The open descriptors, for a forked child to close."""
        return [*loop_filenos(self.loop), self._bell.fileno(), self._ringer.fileno()]

    # -- on the thread -----------------------------------------------------------------

    def take(self, event: Any) -> None:
        """Take one step and re-arm the timer."""
        self._take(event)
        self._arm()

    def _take(self, event: Any) -> None:
        if self._broken:
            return
        self._story.append((type(event), type(getattr(event, "message", None))))
        try:
            self._step(event)
        except Exception as error:
            self._break_down(error)

    def decide(self, name: CoreName, core: Any, event: Any) -> list[Any]:
        """Have a core take in an event; return what it orders."""
        now = self.loop.time()
        if self.trace is not None:
            return self.trace.step(name, core, event, now)
        effects: list[Any] = core.step(event, now)
        return effects

    def _break_down(self, error: Exception) -> None:
        self._broken = True
        bug = Bug(
            f"{self._thread.name} failed: {type(error).__name__}: {error}. It was last told: "
            f"{', '.join(map(_told, self._story))}. Please report this with the log."
        )
        log.critical("%s", bug, exc_info=error)
        self._on_bug(bug)

    def _on_bug(self, bug: Bug) -> None:
        """Let go of everything; the core is not to be trusted any more."""
        raise NotImplementedError

    def _on_bell(self) -> None:
        self._bell.recv(1)
        self._read_mail()

    def _read_mail(self) -> None:
        """Read what is there and what comes of it, and only then re-arm the timer."""
        for _ in range(MAIL_AT_ONCE):
            if not self._mail:
                break
            function, args = self._mail.popleft()
            try:
                function(*args)
            except Exception as error:
                self.loop.call_exception_handler({"message": "in a call", "exception": error})
        self._arm()
        self._reading = False
        if self._mail:  # it came a moment ago, or there is much; sockets are looked at first
            self._reading = True
            self.loop.call_soon(self._read_mail)

    def _step(self, event: Any) -> None:
        raise NotImplementedError

    def _next_deadline(self) -> float | None:
        raise NotImplementedError

    def _on_deadline(self) -> None:
        raise NotImplementedError

    async def _shut(self) -> None:
        raise NotImplementedError

    def _arm(self) -> None:
        """See to it that the timer fires no later than the next deadline. Deadlines move on with
        almost every step: one that fires too soon costs less than to set it every time."""
        deadline = None if self._broken else self._next_deadline()
        if self._timer is not None:
            if deadline is not None and self._timer.when() <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self.loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._timer = None
        deadline = self._next_deadline()
        if deadline is not None and deadline <= self.loop.time():
            self._on_deadline()
        else:
            self._arm()

    def do_later(self, work: Any) -> None:
        """Run a coroutine on the loop, kept until it ends."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                gathered = asyncio.gather(*self._tasks, return_exceptions=True)
                self.loop.run_until_complete(gathered)
            self.loop.run_until_complete(self._shut())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self._ringer.close()  # first: whoever rings for nobody shall notice
            self.loop.close()
            self._bell.close()


def _told(kinds: tuple[type, type]) -> str:
    """An event, and the message it brought, for a bug report."""
    event, message = kinds
    return event.__name__ if message is type(None) else f"{event.__name__} {message.__name__}"
