"""The privacy ledger: what every dataset of this site has spent, over all jobs for ever, on disk.

A charge is written, and is on the disk, before the first gradient of its round is computed. Whatever happens after
that (the process killed, the reply lost, the training failed) it counts as spent, for the site cannot know what has
left. Asked again for a round whose reply is stored, a site answers with the stored bytes and charges nothing; where
there is none it draws new noise, and that is a new charge.

    entries.py      what is written: charges, budgets, the operator's decisions, each chained to the one before
    journal.py      ledger.sqlite, where they are
    witness.py      outside that file: how far it had got, so that an older one is noticed
    ledger.py       reserve, settle, refuse; the budget in force
    acceptance.py   what becomes of a ledger that is not trusted: the operator's decision
    overview.py     who has spent what, for `insitu-client budget` (cli.py)
"""

from client.ledger.entries import Paid, Round
from client.ledger.ledger import Ledger

__all__ = ["Ledger", "Paid", "Round"]
