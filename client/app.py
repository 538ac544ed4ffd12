"""The Flower ClientApp: one handler per message type, over code that knows nothing of Flower.

The site is the one that the process running this says (`node_config`), never one that a message names.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import egress, work
from shared.errors import RefusalCode
from shared.messages import EvaluateRequest, Offer, TrainRequest


class _Closed(ClientApp):
    """A ClientApp out of which no exception comes: Flower would send its text to the coordinator."""

    def __call__(self, message: Message, context: Context) -> Message:
        try:
            return super().__call__(message, context)
        except Exception:
            return Message(egress.packed(egress.refusal(RefusalCode.MALFORMED)), reply_to=message)


app = _Closed()


@app.query("offer")
def offer(message: Message, context: Context) -> Message:
    """Would this site take part?"""
    return _answer(Offer, message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one round."""
    return _answer(TrainRequest, message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """The figures of the final model."""
    return _answer(EvaluateRequest, message, context)


def _answer(kind: type[work.Request], message: Message, context: Context) -> Message:
    home = Path(str(context.node_config.get("home", "")))
    return Message(egress.packed(work.answer(home, kind, message.content)), reply_to=message)
