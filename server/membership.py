"""Who takes part in a run: every site that is there is offered it, and says yes, no, or not yet.

A site that waits for its operator is asked again, the longer it has waited the more rarely; one that comes while the
run is under way is asked then, and takes part from the next round on. A no stands for this run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.asking import UNAVAILABLE, read
from server.store import ACCEPTED
from shared.errors import RefusalCode
from shared.messages import Accepted, Offer

# Codes after which a site is asked again: what they say may change without the coordinator's doing.
_MAY_CHANGE = frozenset({RefusalCode.PENDING, RefusalCode.INBOX_FULL, RefusalCode.LEDGER, RefusalCode.RECORD})
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 30.0
_UNANSWERED_SECONDS = 120.0  # an offer unanswered for so long was lost with the site it was sent to


@dataclass
class _Offered:
    """One site and what it said."""

    standing: str | None = None
    since: float = 0.0  # of the standing
    asked: float = 0.0  # last
    message: str | None = None  # not answered yet
    slow: bool = False  # has left one unanswered


@dataclass
class Membership:
    """The sites of one run.

    Attributes:
        grid: over which they are asked.
        offer: what they are asked.
        sites: Flower's node id of each site that may be asked → its name.
        told: is told the standing of every site (name → `accepted`, or a refusal's code) whenever one changes.
    """

    grid: Grid
    offer: Offer
    sites: Mapping[int, str]
    told: Callable[[Mapping[str, str]], None] = lambda _: None
    _offered: dict[int, _Offered] = field(default_factory=dict)
    _content: RecordDict | None = None

    @property
    def accepted(self) -> dict[int, str]:
        """Node id → name of the sites that take part."""
        return {node: self.sites[node] for node, one in self._offered.items() if one.standing == ACCEPTED}

    @property
    def standings(self) -> dict[str, str]:
        """Name → `accepted`, or the code of the refusal, of every site that has answered."""
        return {self.sites[node]: one.standing for node, one in sorted(self._offered.items()) if one.standing}

    @property
    def refused(self) -> dict[str, str]:
        """Name → code of the sites that will not take part, whatever happens."""
        return {name: code for name, code in self.standings.items() if code != ACCEPTED and code not in _MAY_CHANGE}

    @property
    def asking(self) -> bool:
        """Whether a site that is worth waiting for has been offered the run and has said nothing yet."""
        return any(one.standing is None and one.message and not one.slow for one in self._offered.values())

    def look(self) -> None:
        """Offer the run to whom it is time to offer it, and hear who has answered."""
        self._ask([node for node in self.grid.get_node_ids() if node in self.sites and self._due(node)])
        self.hear()

    def hear(self) -> None:
        """Take in the answers that are there."""
        waiting = {one.message: (node, one) for node, one in self._offered.items() if one.message}
        before = self.standings
        while waiting:
            replies = list(self.grid.pull_messages(list(waiting)))
            for reply in replies:
                if (answered := reply.metadata.reply_to_message_id) not in waiting:  # an earlier question
                    continue
                node, one = waiting.pop(answered)
                one.message = None
                said = read(reply, Accepted, self.sites[node])
                standing = said if isinstance(said, str) else ACCEPTED
                if standing not in (UNAVAILABLE, one.standing):  # who cannot be reached is asked again
                    one.standing, one.since = standing, time.monotonic()
            if not replies:
                break
        if self.standings != before:
            self.told(self.standings)

    def _due(self, node: int) -> bool:
        one, now = self._offered.get(node), time.monotonic()
        if one is None:
            return True
        if one.message is not None and now - one.asked < _UNANSWERED_SECONDS:
            return False
        if one.standing is None:
            return now - one.asked >= _FIRST_WAIT_SECONDS
        wait = min(max((now - one.since) / 10, _FIRST_WAIT_SECONDS), _LONGEST_WAIT_SECONDS)
        return one.standing in _MAY_CHANGE and now - one.asked >= wait

    def _ask(self, nodes: list[int]) -> None:
        if not nodes:
            return
        content = self._content = self._content or self.offer.pack()
        offers = [
            Message(content, dst_node_id=node, message_type=Offer.flower_type, group_id="offer") for node in nodes
        ]
        for node, message in zip(nodes, self.grid.push_messages(offers), strict=True):
            one = self._offered.setdefault(node, _Offered())
            one.slow = one.message is not None
            one.message, one.asked = message, time.monotonic()
