"""The coordinator's certificate: renewed in its last days for the same key, and never replaced by a wrong one."""

import datetime as dt

import pytest
from cryptography import x509

from server import certificates
from server.certificates import Certificate
from server.home import Home, ServerConfig
from shared import identity
from shared.errors import BadInput, InsituError


@pytest.fixture
def home(tmp_path):
    return Home.create(tmp_path / "home", ServerConfig(host="coordinator.example.org"))


def _ends_in(home: Home, **days: float) -> bytes:
    authority = identity.authority(home.ca.read_bytes(), identity.read_private(home.path / "keys" / "ca.key"))
    made = identity.new_server_certificate(
        authority, home.config.host, key=identity.read_private(home.key), valid=dt.timedelta(**days)
    )
    home.certificate.write_bytes(made.certificate_pem)
    return made.certificate_pem


def test_a_certificate_is_left_alone_until_its_last_thirty_days_and_then_renewed_for_the_same_key(home):
    before = _ends_in(home, days=31)
    Certificate(home)
    assert home.certificate.read_bytes() == before
    before = _ends_in(home, days=29)
    Certificate(home)
    after = home.certificate.read_bytes()
    assert identity.expires(after) > dt.datetime.now(dt.UTC) + dt.timedelta(days=800)
    old, new = x509.load_pem_x509_certificate(before), x509.load_pem_x509_certificate(after)
    assert old.public_key() == new.public_key()
    assert old.serial_number != new.serial_number
    names = x509.SubjectAlternativeName
    assert old.extensions.get_extension_for_class(names) == new.extensions.get_extension_for_class(names)
    new.verify_directly_issued_by(x509.load_pem_x509_certificate(home.ca.read_bytes()))
    certificates.fits(home)


def test_without_the_cas_key_it_is_only_warned_of_and_one_that_has_expired_is_refused(home, capsys):
    _ends_in(home, days=10)
    key = (home.path / "keys" / "ca.key").read_bytes()
    (home.path / "keys" / "ca.key").unlink()
    Certificate(home)
    said = capsys.readouterr().err
    assert "expires in 9 days, and cannot be renewed" in said
    assert "ca.key" in said
    identity.write_private(home.path / "keys" / "ca.key", key)
    _ends_in(home, seconds=-5)
    (home.path / "keys" / "ca.key").unlink()
    with pytest.raises(InsituError, match="has expired"):
        Certificate(home)


def test_a_ca_of_another_key_signs_nothing(home):
    identity.write_private(home.path / "keys" / "ca.key", identity.private_pem(identity.new_key()))
    with pytest.raises(BadInput, match="not that of its key"):
        certificates.renew(home)


def test_a_certificate_that_does_not_fit_is_not_taken_up(home, monkeypatch, capsys):
    monkeypatch.setattr(certificates, "_LOOK_EVERY_SECONDS", 0.0)
    certificate, taken = Certificate(home), []
    certificate.look(lambda: taken.append(1))
    assert not taken
    good = home.certificate.read_bytes()
    other = identity.new_authority("other")
    wrong = identity.new_server_certificate(other, "coordinator.example.org").certificate_pem
    for content in (wrong, b"nonsense"):
        home.certificate.write_bytes(content)
        certificate.look(lambda: taken.append(1))
        assert not taken
        assert "cannot be used" in capsys.readouterr().err
    home.certificate.write_bytes(good)
    certificate.look(lambda: taken.append(1))
    assert taken == [1]


def test_a_certificate_does_not_outlive_its_ca(home):
    authority = identity.authority(home.ca.read_bytes(), identity.read_private(home.path / "keys" / "ca.key"))
    made = identity.new_server_certificate(authority, "x.org", valid=dt.timedelta(days=365 * 20))
    assert identity.expires(made.certificate_pem) <= authority.certificate.not_valid_after_utc
