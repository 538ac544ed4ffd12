"""A record goes on when the site's key is changed, and no change goes unnoticed that the keys have not signed."""

import pytest

from client import credentials
from client.audit import Decided, Record, succession, verification
from client.site import Site, SiteConfig
from shared import identity
from shared.files import write_atomically


@pytest.fixture
def site(tmp_path):
    made = Site.create(tmp_path / "north", SiteConfig(name="north"))
    credentials.equip(made)
    Record(made).append(Decided(what="joined", by="operator"))
    return made


def _key(site: Site) -> identity.PrivateKey:
    return identity.read_private(site.home / "keys" / "site.pem")


def _change(site: Site, *, old=None, entry=True, **forged) -> None:
    new = identity.new_key()
    made = succession.rekeyed(site, old or _key(site), new)
    if entry:
        Record(site).append(made.model_copy(update=forged))
    identity.write_private(site.home / "keys" / "site.pem", identity.private_pem(new))
    write_atomically(site.home / "keys" / "site.pub", identity.public_pem(new.public_key()))


def _faults(site: Site) -> list[str]:
    return [fault.what for fault in verification.verify(site).faults]


def test_a_key_that_was_changed_again_and_again_still_vouches_for_the_record(site):
    for _ in range(3):
        _change(site)
    findings = verification.verify(site)
    assert not findings.faults
    assert any("changed 3 times, each time signed by the one before" in note for note in findings.notes)
    assert not Record(site).troubles()


def test_a_key_that_was_changed_without_a_word_is_noticed(site):
    _change(site, entry=False)
    assert _faults(site) == ["is vouched for by another site key than keys/site.pub"]


def test_a_change_that_another_key_signed_is_noticed(site):
    _change(site, old=identity.new_key())
    assert "changes another key than the site had then" in _faults(site)


@pytest.mark.parametrize("field", ["by_old", "endorsement"])
def test_a_change_without_a_signature_is_noticed(site, field):
    _change(site, **{field: "00" * 70})
    assert "is a change of the site's key that the keys have not signed" in _faults(site)


def test_a_change_of_another_records_key_is_noticed(site):
    _change(site, key="ab" * 32)
    assert "is a change of the site's key that the keys have not signed" in _faults(site)


def test_a_change_that_is_under_way_is_no_fault(site):
    Record(site).append(succession.rekeyed(site, _key(site), identity.new_key()))
    findings = verification.verify(site)
    assert not findings.faults
    assert any("`insitu-client rotate` does what is left to do" in note for note in findings.notes)
