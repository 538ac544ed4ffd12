"""The record: what left this site, what was refused and what the operator decided, for who has to answer for it.

Every entry is chained to the one before and signed with the site's own key, and is on the disk before anything leaves:
what cannot be recorded does not leave. No patient is in it, by the types of its entries.

    entries.py         what is written
    chain.py           one line of record.jsonl: number, text, link, signature
    keys.py            the key that signs, and the site's word that it is its own
    heads.py           outside that file: how far it had got, so that a shorter one is noticed
    files.py           record.jsonl: locked, read from its end, written to
    counts.py          what is only counted, so that nobody can make the record grow without end
    succession.py      another key in the place of the site's own
    beginning.py       the first entry
    journal.py         the record: `append`
    renewal.py         what becomes of a record that is not trusted: the operator's decision
    reading.py         every line by itself, and their order, whatever is in the file
    findings.py        what was found
    verification.py    that nothing was changed, taken out or put in another order
    reconciliation.py  that it agrees with the ledger and with the replies that are kept
    overview.py        who was told what, for `insitu-client audit` (cli.py)
    export.py          the same as one page of HTML, or as a table
"""

from client.audit.beginning import begin
from client.audit.entries import Decided, Head, Refused, Released
from client.audit.journal import Record

__all__ = ["Decided", "Head", "Record", "Refused", "Released", "begin"]
