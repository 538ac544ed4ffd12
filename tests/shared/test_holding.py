"""A question that finds nothing is held, over real HTTP; nothing is taken out for who has gone."""

import asyncio
import contextlib
import threading
import time

import httpx
import pytest
import uvicorn

from shared.holding import Bell, Holding


class Box:
    """An application that gives out what was put into it, once, and says how often it was asked."""

    def __init__(self):
        self.content = []
        self.asked = 0
        self.status = 200

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        self.asked += 1
        found = self.content.pop(0) if self.content and scope["path"] == "/take" else b""
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": found + body if found else b""})


class Level:
    """News while the box has something."""

    def __init__(self, box):
        self.box = box
        self.results = []

    def mark(self):
        return 0

    async def after(self, mark):
        while not self.box.content:
            await asyncio.sleep(0.005)

    def asked(self, *, empty):
        self.results.append(empty)


@contextlib.contextmanager
def serving(application):
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    server.should_exit = True
    thread.join()


@pytest.fixture
def box():
    return Box()


def test_an_answer_that_is_there_comes_at_once_with_the_question_unchanged(box):
    box.content.append(b"answer to ")
    with serving(Holding(box, "/take", Bell())) as client:
        assert client.post("/take", content=b"question").content == b"answer to question"
    assert box.asked == 1


def test_a_question_is_held_until_news_and_then_asked_again(box):
    class Ringing:
        def __init__(self):
            self.bell = Bell()
            self.inner = Holding(box, "/take", self.bell, seconds=5)

        async def __call__(self, scope, receive, send):
            if scope["path"] == "/put":
                box.content.append(b"news for ")
                self.bell.ring()
            await self.inner(scope, receive, send)

    with serving(Ringing()) as client:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(client.post("/take", content=b"me").content))
        began = time.monotonic()
        thread.start()
        time.sleep(0.3)
        client.post("/put")
        thread.join()
    assert answers == [b"news for me"]
    assert time.monotonic() - began < 2
    assert box.asked == 3  # the question twice, and /put


def test_without_news_the_empty_answer_comes_after_the_time_is_over(box):
    with serving(Holding(box, "/take", Bell(), seconds=0.3)) as client:
        began = time.monotonic()
        assert client.post("/take").content == b""
        assert 0.25 < time.monotonic() - began < 2


def test_other_paths_and_refusals_are_not_held(box):
    with serving(Holding(box, "/take", Bell(), seconds=20)) as client:
        began = time.monotonic()
        client.post("/other")
        box.status = 401
        assert client.post("/take").status_code == 401
        assert time.monotonic() - began < 5


def test_nothing_is_taken_out_for_who_has_gone(box):
    with serving(Holding(box, "/take", Level(box), seconds=20)) as client:
        with contextlib.suppress(httpx.TimeoutException):
            client.post("/take", timeout=0.2)
        time.sleep(0.2)
        box.content.append(b"precious")
        time.sleep(0.3)
        assert box.content == [b"precious"]
        assert client.post("/take").content == b"precious"


def test_a_question_for_once_is_held_first_and_asked_once(box):
    level = Level(box)
    with serving(Holding(box, "/take", level, once=True, seconds=5)) as client:
        threading.Timer(0.2, box.content.append, [b"here"]).start()
        assert client.post("/take").content == b"here"
    assert box.asked == 1
    assert level.results == [False]


def test_a_bell_waits_for_a_pause_but_not_for_ever():
    async def ring_every(interval, times):
        bell = Bell(pause=0.05, longest=0.2)
        waiting = asyncio.ensure_future(bell.after(bell.mark()))
        began = asyncio.get_running_loop().time()
        for _ in range(times):
            bell.ring()
            await asyncio.sleep(interval)
            if waiting.done():
                break
        await waiting
        return asyncio.get_running_loop().time() - began

    assert 0.04 < asyncio.run(ring_every(0.2, 1)) < 0.3
    assert 0.15 < asyncio.run(ring_every(0.01, 100)) < 0.5
