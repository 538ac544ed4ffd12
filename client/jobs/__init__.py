"""The jobs that were offered to this site, and the operator's word on each.

    database.py     jobs.sqlite: its tables, and transactions on them
    inbox.py        what was offered, what was answered, and what the operator said
    explanation.py  a job in plain words: what is trained, on whom, what it costs, what leaves
    cli.py          `insitu-client jobs`, `show`, `approve`, `revoke`

Nothing that arrives over the network can say yes.
"""

from client.jobs.inbox import Inbox

__all__ = ["Inbox"]
