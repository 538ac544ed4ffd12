"""An in-process Flower Grid: messages go straight to the ClientApp, one site after the other.

Nothing is mocked: the messages are Flower's, the ClientApp and the ServerApp are the ones that real processes run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
COORDINATOR = 1  # Flower's own node id of a ServerApp


class InProcessGrid(Grid):
    """Calls the ClientApp when a reply is pulled, so that one reply is in memory at a time.

    Args:
        client_app: what every site runs.
        homes: node id → the site's home.
    """

    def __init__(self, client_app: ClientApp, homes: Mapping[int, Path]) -> None:
        self._client_app = client_app
        self._contexts = {
            node: Context(
                run_id=RUN_ID, node_id=node, node_config={"home": str(home)}, state=RecordDict(), run_config={}
            )
            for node, home in homes.items()
        }
        self._waiting: dict[str, Message] = {}
        self._sent = 0
        # What Flower sets in a process of its own; messages cannot be made without it.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN_ID, 0, COORDINATOR

    def set_run(self, run: Run) -> None:
        """There is one run."""

    @property
    def run(self) -> Run:
        """The one run."""
        return Run.create_empty(RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """All sites are always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the messages until their replies are pulled."""
        identifiers = []
        for message in messages:
            self._sent += 1
            identifier = str(self._sent)
            message.metadata.__dict__["_message_id"] = identifier
            self._waiting[identifier] = message
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answer the first of the messages that waits for its reply."""
        for identifier in message_ids:
            message = self._waiting.pop(identifier, None)
            if message is not None:
                return [self._client_app(message, self._contexts[message.metadata.dst_node_id])]
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """All replies, in the order of the messages."""
        return [reply for identifier in self.push_messages(messages) for reply in self.pull_messages([identifier])]
