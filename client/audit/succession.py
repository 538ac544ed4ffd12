"""Another key in the place of the site's own (`insitu-client rotate`): the record goes on, and stays vouched for.

The first entry has the site's key of that day and its signature over the record's key. Each change of the site's key
is an entry with the old key's signature over the new one, and the new one's over the record's: from the key that the
coordinator knows today back to the first entry, each link can be checked, though the old private keys are gone.
"""

from __future__ import annotations

from client.audit import keys
from client.audit.entries import Rekeyed
from client.audit.findings import ASK, PUT_BACK, Findings
from client.site import Site
from shared import identity

_HANDED_OVER = "insitu site key\n"


def rekeyed(site: Site, old: identity.PrivateKey, new: identity.PrivateKey) -> Rekeyed:
    """The entry of a change.

    Raises:
        BadInput: if the record's key cannot be used.
    """
    ours = keys.text(keys.read(site).public_key())
    after = keys.der(new.public_key())
    return Rekeyed(
        site=site.name,
        key=ours,
        old_key=keys.der(old.public_key()),
        new_key=after,
        by_old=identity.sign(old, _statement(site.name, after)).hex(),
        endorsement=keys.endorse(new, site.name, ours),
    )


def is_signed(entry: Rekeyed) -> bool:
    """Whether the old key signed the new one, and the new one the record's."""
    if not keys.is_signed(entry.old_key, entry.by_old, _statement(entry.site, entry.new_key)):
        return False
    return keys.is_vouched(entry.new_key, entry.endorsement, entry.site, entry.key)


def follow(findings: Findings, first: str, record_key: str, today: str) -> str:
    """From the key in the first entry to the site's key now, change by change.

    Args:
        findings: what is in the record; what is wrong is noted there.
        first: the site's key in the first entry (DER, hexadecimal); empty where it had none.
        record_key: the record's own, which every change has to name.
        today: the site's key as it is in the home.

    Returns:
        The key that it comes to; `today` where the last change is under way.
    """
    key, count, last = first, 0, None
    for one in findings.entries:
        entry = one.entry
        if not isinstance(entry, Rekeyed):
            continue
        number = one.line.number
        if not is_signed(entry) or entry.key != record_key:
            findings.fault(number, "is a change of the site's key that the keys have not signed", f"{ASK}; {PUT_BACK}")
        elif key and entry.old_key != key:
            findings.fault(number, "changes another key than the site had then", f"{ASK}; {PUT_BACK}")
        key, count, last = entry.new_key, count + 1, entry
    if last is not None and today == last.old_key:
        findings.notes.append("the site's key is being changed: `insitu-client rotate` does what is left to do")
        return today
    if count:
        times = "once" if count == 1 else f"{count} times"
        findings.notes.append(f"the site's key was changed {times}, each time signed by the one before")
    return key


def _statement(site: str, new_key: str) -> bytes:
    return f"{_HANDED_OVER}{site}\n{new_key}".encode()
