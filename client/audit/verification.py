"""That the record is whole: every entry as it was written, in its order, and none missing; each fault named.

**What it proves.** Each line says its number, the link of the line before and its own, and the site's key has signed
it: a line that was changed does not fit its link or its signature, one that was taken out leaves a gap in the numbers,
one that was moved or put in twice has a number that is not its turn. That the last ones were taken out, or the whole
file, the head in the witness's folder knows. The first entry says which key signs, and the site's own key, by which the
coordinator knows it, has signed that; where that key was changed since, each has signed the next
(`succession`). What is counted and not yet an entry (`counts`) is not protected.

**What it cannot notice by itself.** Whoever can write both in the home and in the witness's folder can cut the record
and its head short together, or put an older pair back: of what was charged the ledger still knows that it was
answered, of a job without privacy nothing does. Whoever has the site's keys, too, which are files in the home, can
write another record from the first entry on, and another ledger. Nothing in the home can tell then. A head that was
noted elsewhere can: an export has one, and so has a letter; `--head` holds it against the record, and every entry up
to it is the one that was there then. An entry is written before its reply leaves: that a reply arrived, it does not
say.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from client.audit import counts, files, heads, keys, reading, reconciliation, succession
from client.audit.chain import Untrusted
from client.audit.entries import Head
from client.audit.findings import ASK, PUT_BACK, Findings
from client.site import Site
from shared import identity
from shared.errors import BadInput, InsituError


def verify(site: Site, *, earlier: Head | None = None) -> Findings:
    """Read a record and everything that it has to agree with; nothing is changed.

    Args:
        site: whose record.
        earlier: a head that was noted elsewhere.

    Raises:
        OSError: if a file cannot be read.
        InsituError: if another process keeps it locked.
    """
    findings = Findings(site=site.name)
    file = site.home / "record.jsonl"
    try:
        # Locked, so that the ledger and the replies are of the same moment: what pays is charged before an entry, and
        # settled and kept after it.
        with files.locked(file, write=False) as handle:
            data, kept = files.contents(handle), reconciliation.kept(site)
            head, books = _head(site, findings), reconciliation.books(site, findings)
            hour = counts.read(site.home)
    except TimeoutError as error:
        raise InsituError(f"{error}; try again when it is done") from None
    except FileNotFoundError:
        data, kept, hour = b"", reconciliation.kept(site), counts.read(site.home)
        head, books = _head(site, findings), reconciliation.books(site, findings)
        if head is not None and head.number:
            findings.fault(None, f"the record is gone: {file} is not there", f"{ASK}; {PUT_BACK}")
    findings.pending = hour.answers if hour is not None else []
    reached, torn = reading.read(findings, data, _key(site, findings))
    _hold_against_head(findings, head, reached, torn)
    _hold_against_site(findings, site)
    if earlier is not None:
        _hold_against_earlier(findings, earlier)
    if books is not None:
        reconciliation.with_ledger(findings, books)
    reconciliation.with_replies(findings, kept)
    return findings


def _head(site: Site, findings: Findings) -> Head | None:
    try:
        return heads.read(site.witness)
    except Untrusted as error:
        findings.fault(None, str(error), f"{ASK}; {PUT_BACK}")
        return None


def _key(site: Site, findings: Findings) -> Ed25519PublicKey | None:
    try:
        return keys.read(site).public_key()
    except BadInput as error:
        findings.fault(None, str(error), "restore keys/ from a back-up of the home; without it nothing leaves")
        return None


def _hold_against_head(findings: Findings, head: Head | None, last: int, torn: bytes) -> None:
    at = {one.line.number: one.line.link for one in findings.entries}
    highest = max(at, default=0)
    findings.head = Head(number=highest, link=at.get(highest, ""))
    if torn:
        findings.notes.append(
            f"after entry {last} there are {len(torn)} bytes of an entry that was never finished (a crash, or a power "
            "cut, while it was being written): nothing left for it; the next entry cuts them off and says so"
        )
    if head is None:
        return
    if head.number > last:
        missing = f"{reading.are(last + 1, head.number)} missing at the end"
        what = f"{missing}: the head has seen entry {head.number} ({head.link[:12]})"
        findings.fault(last + 1, what, f"{ASK}; {PUT_BACK}")
    elif head.number and head.number in at and at[head.number] != head.link:
        what = "is another one than the head has seen: another record was put in its place"
        findings.fault(head.number, what, f"{ASK}; {PUT_BACK}")
    elif _is_of_another(findings, head):
        what = "goes on after another record than the head has seen"
        findings.fault(findings.entries[0].line.number, what, f"{ASK}; {PUT_BACK}")
    elif head.number < highest:
        findings.notes.append(
            f"the head has seen entry {head.number} only: a process was killed before it could say more, or the head "
            "is an older one; the next entry brings it up to date"
        )


def _is_of_another(findings: Findings, head: Head) -> bool:
    """Whether the head is of a record before this one, and not of the one that this one goes on after."""
    after = findings.began.after if findings.began is not None else None
    return after is not None and head.number == after.number and head != after


def _hold_against_site(findings: Findings, site: Site) -> None:
    """What the first entry says of the key, and of a record before it."""
    began = findings.began
    if began is None:
        return
    first = findings.entries[0].line.number
    if began.site != site.name:
        findings.fault(first, f"is of site {began.site}, and this is {site.name}", PUT_BACK)
    public = site.home / "keys" / "site.pub"
    if began.endorsement and not keys.is_endorsed(began):
        findings.fault(first, "has a signature of the site's key that is not valid", f"{ASK}; {PUT_BACK}")
    if public.exists():
        try:
            ours = keys.der(identity.read_public(public))
        except BadInput as error:
            findings.fault(None, str(error), "restore keys/ from a back-up of the home")
            return
        if not began.endorsement:
            findings.notes.append("the record began before the site had a key of its own, which has not signed it")
        elif succession.follow(findings, began.site_key, began.key, ours) != ours:
            findings.fault(first, "is vouched for by another site key than keys/site.pub", f"{ASK}; {PUT_BACK}")
    if began.after is not None or began.reason:
        after = f" after entry {began.after.number}" if began.after is not None else ""
        findings.notes.append(
            f"the record was begun anew{after}: {began.found}; the operator said: {began.reason}. What was before is "
            f"in {site.home}/record.jsonl.*.untrusted, if it was there"
        )


def _hold_against_earlier(findings: Findings, earlier: Head) -> None:
    at = {one.line.number: one.line.link for one in findings.entries}
    began = findings.began
    if earlier.number in at:
        if at[earlier.number] != earlier.link:
            what = f"is another one than the earlier head has seen ({earlier.link[:12]}): the record was written anew"
            findings.fault(earlier.number, what, f"{ASK}; whoever noted that head has the proof")
    elif began is not None and began.after == earlier:
        findings.notes.append(f"the earlier head, {earlier.number}, is where the record before this one ended")
    elif began is not None and began.after is not None and earlier.number <= began.after.number:
        what = f"of the earlier head is not here: the record was begun anew after entry {began.after.number}"
        findings.fault(earlier.number, what, f"look for it in {findings.site}'s record.jsonl.*.untrusted")
    else:
        findings.fault(earlier.number, "of the earlier head is not here", f"{ASK}; {PUT_BACK}")
