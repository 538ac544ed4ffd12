"""The real ClientApp, in a process that is killed once: when a reply to a round is stored, before any of it is sent."""

import os
import signal
from pathlib import Path

from client.app import app as real


def app(message, context):
    """Answer, and die of it the first time."""
    reply = real(message, context)
    died = Path(context.node_config["home"]) / "died"
    if message.metadata.message_type == "train" and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return reply
