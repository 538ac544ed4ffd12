"""Holds a question that finds nothing until there is an answer, or a moment has passed.

Flower's processes ask each other over and over whether there is anything for them, and every question costs some ten
milliseconds of processor at whoever answers. Held at the door for a second, one question does for twenty, and the
answer comes at once. This wraps an ASGI application from outside: Flower notices nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

Event = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class News(Protocol):
    """Says when it is worth asking again."""

    def mark(self) -> int:
        """How much news there has been so far."""

    async def after(self, mark: int) -> None:
        """Return once there has been more."""

    def asked(self, *, empty: bool) -> None:
        """A question was asked, and what came of it."""


class Bell:
    """News within one event loop, which wait for a pause: what comes in several parts is asked for once, whole.

    Args:
        pause: seconds without a further part.
        longest: seconds to wait for such a pause.
    """

    def __init__(self, *, pause: float = 0.015, longest: float = 0.1) -> None:
        self._pause = pause
        self._longest = longest
        self._count = 0
        self._rung = asyncio.Event()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def mark(self) -> int:
        """How often it has rung."""
        return self._count

    async def after(self, mark: int) -> None:
        """Return once it has rung again."""
        while self._count <= mark:
            await self._rung.wait()

    def asked(self, *, empty: bool) -> None:
        """It stays as it is: there may be more, for others."""

    def ring(self) -> None:
        """Wake whoever waits, after a pause."""
        loop = asyncio.get_running_loop()
        if self._since is None:
            self._since = loop.time()
        if self._timer is not None:
            self._timer.cancel()
        left = self._since + self._longest - loop.time()
        self._timer = loop.call_later(max(0.0, min(self._pause, left)), self._now)

    def _now(self) -> None:
        self._since = self._timer = None
        self._count += 1
        self._rung.set()  # those who wait are woken by this; the next wait for the next
        self._rung = asyncio.Event()


class Holding:
    """Passes everything on, but holds the questions to one path while their answer is empty.

    Args:
        application: the one that answers.
        path: of the questions.
        news: when to ask.
        once: the question may be asked once only (it carries a number that is taken once): it is held first and then
            asked. Otherwise it is asked at once, and again after news.
        seconds: how long to hold at most. While a question is held the asker may be cut off without a sign, and
            what is then handed to it is lost: hence not long.
    """

    def __init__(
        self, application: Application, path: str, news: News, *, once: bool = False, seconds: float = 1.0
    ) -> None:
        self._application = application
        self._path = path
        self._news = news
        self._once = once
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or hold."""
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._application(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            return
        deadline = asyncio.get_running_loop().time() + self._seconds
        # Read on, to learn at once when the asker has gone: nothing may be taken out for it then.
        gone = asyncio.ensure_future(_gone(receive))
        try:
            answer = await (self._asked_once if self._once else self._asked_again)(scope, body, gone, deadline)
        finally:
            gone.cancel()
        for event in answer:
            await send(event)

    async def _asked_again(self, scope: Scope, body: bytes, gone: asyncio.Future[None], deadline: float) -> list[Event]:
        while True:
            mark = self._news.mark()
            answer = await self._ask(scope, body)
            left = deadline - asyncio.get_running_loop().time()
            if not _is_empty(answer) or left <= 0:
                return answer
            await self._wait(mark, gone, left)
            if gone.done():
                return []

    async def _asked_once(self, scope: Scope, body: bytes, gone: asyncio.Future[None], deadline: float) -> list[Event]:
        await self._wait(self._news.mark(), gone, deadline - asyncio.get_running_loop().time())
        if gone.done():
            return []
        answer = await self._ask(scope, body)
        self._news.asked(empty=_is_empty(answer))
        return answer

    async def _ask(self, scope: Scope, body: bytes) -> list[Event]:
        answer: list[Event] = []
        asked = False

        async def receive() -> Event:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(event: Event) -> None:
            answer.append(event)

        # A copy: the application may leave things behind in its scope.
        await self._application({**scope, "state": dict(scope.get("state", {}))}, receive, send)
        return answer

    async def _wait(self, mark: int, gone: asyncio.Future[None], seconds: float) -> None:
        """Wait for news, until the asker has gone, or the time is over."""
        news = asyncio.ensure_future(self._news.after(mark))
        await asyncio.wait({news, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await news


def _is_empty(answer: list[Event]) -> bool:
    """Whether an answer says that there is nothing: a protocol buffer without any field is no bytes."""
    return answer[0]["status"] == 200 and not any(event.get("body") for event in answer)


async def _body(receive: Receive) -> bytes | None:
    parts = []
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        parts.append(event.get("body", b""))
        if not event.get("more_body"):
            return b"".join(parts)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
