"""One question to the sites of a run, and their answers as they come.

A site whose trouble may pass (its process was started anew, its line is down, it is not the hour) is asked again, the
longer it lasts the more rarely: a hospital that reboots loses nothing, for it answers from its stored reply, or begins
anew. What will not pass by itself (no budget left, a policy that says no) is not asked twice.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from shared.errors import RefusalCode, Refused
from shared.messages import Accepted, Figures, Refusal, TrainRequest, Update, read_reply

log = logging.getLogger(__name__)

# Why a site is missing, beside the codes of its own refusals.
LATE = "late"
UNAVAILABLE = "unavailable"
REJECTED = "rejected"

_PASSING = frozenset(
    {UNAVAILABLE}
    | {str(code) for code in (RefusalCode.FAILED, RefusalCode.HOURS, RefusalCode.LEDGER, RefusalCode.RECORD)}
)
# How often a site is asked again that failed: under privacy each try may cost it a round's ε.
_MOST_FAILURES = 3
_POLL_SECONDS = 0.02
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 15.0

_R = TypeVar("_R", Update, Figures)
_Reply = TypeVar("_Reply", Accepted, Update, Figures)


class Asking(Generic[_R]):
    """A request on its way.

    Args:
        grid: over which.
        request: the same for all.
        expected: the reply that is hoped for.
        group: Flower's name of the exchange.

    Attributes:
        missing: name of a site → code of why there is no answer of it that counts, as it stands.
    """

    def __init__(self, grid: Grid, request: TrainRequest, expected: type[_R], *, group: str) -> None:
        self._grid, self._group = grid, group
        self._expected: type[_R] = expected
        self._type, self._content = request.flower_type, request.pack()
        self._names: dict[int, str] = {}
        self._waiting: dict[str, int] = {}  # message → node
        self._again: dict[int, float] = {}  # node → when to ask it again
        self._waits: dict[int, float] = {}  # node → seconds of the last wait
        self._failures: Counter[int] = Counter()  # node → how often it failed
        self.missing: dict[str, str] = {}

    def ask(self, sites: Mapping[int, str]) -> None:
        """Send the request to those of these sites (node id → name) that it was not sent to yet."""
        new = [node for node in sites if node not in self._names]
        self._names |= {node: sites[node] for node in new}
        self._send(new)

    @property
    def open(self) -> bool:
        """Whether anybody has still to answer."""
        return bool(self._waiting)

    @property
    def hopeful(self) -> bool:
        """Whether anybody has still to answer, now or when asked again."""
        return bool(self._waiting or self._again)

    def answers(self) -> Iterator[tuple[int, _R]]:
        """Those that are there now, or come within a moment: node id and reply.

        A reply is forgotten once the next one is asked for: memory does not grow with the number of sites.
        """
        due = [node for node, at in self._again.items() if at <= time.monotonic()]
        for node in due:
            del self._again[node]
        self._send(due)
        arrived = list(self._grid.pull_messages(list(self._waiting))) if self._waiting else []
        if not arrived:
            time.sleep(_POLL_SECONDS)
        while arrived:
            message = arrived.pop()
            if (answered := message.metadata.reply_to_message_id) not in self._waiting:  # an earlier question
                continue
            node = self._waiting.pop(answered)
            reply = read(message, self._expected, self._names[node])
            if isinstance(reply, str):
                self._trouble(node, reply)
                continue
            self.missing.pop(self._names[node], None)
            yield node, reply

    def reject(self, node: int) -> None:
        """The answer of this site does not count after all."""
        self.missing[self._names[node]] = REJECTED

    def close(self) -> dict[str, str]:
        """Wait for nobody any more; who is missing, and why."""
        for node in self._waiting.values():
            self.missing[self._names[node]] = LATE
        self._waiting.clear()
        self._again.clear()
        return self.missing

    def _send(self, nodes: list[int]) -> None:
        if nodes:
            messages = [
                Message(self._content, dst_node_id=node, message_type=self._type, group_id=self._group)
                for node in nodes
            ]
            self._waiting |= dict(zip(self._grid.push_messages(messages), nodes, strict=True))

    def _trouble(self, node: int, code: str) -> None:
        self.missing[self._names[node]] = code
        self._failures[node] += code == RefusalCode.FAILED
        if code in _PASSING and self._failures[node] <= _MOST_FAILURES:
            wait = min(2 * self._waits.get(node, _FIRST_WAIT_SECONDS / 2), _LONGEST_WAIT_SECONDS)
            self._waits[node] = wait
            self._again[node] = time.monotonic() + wait


def read(message: Message, expected: type[_Reply], site: str) -> _Reply | str:
    """What a site answered: the reply that was hoped for, or the code of why it is none."""
    if message.has_error():
        log.warning("%s cannot be reached (code %s)", site, message.error.code)
        return UNAVAILABLE
    try:
        reply = read_reply(message.content, expected)
    except Refused as error:
        log.warning("the reply of %s does not count: %s", site, error)
        return REJECTED
    return str(reply.code) if isinstance(reply, Refusal) else reply


def reasons(missing: Mapping[str, str]) -> str:
    """Who is missing and why, in brackets; nothing where nobody is."""
    return f" ({', '.join(f'{site}: {code}' for site, code in sorted(missing.items()))})" if missing else ""
