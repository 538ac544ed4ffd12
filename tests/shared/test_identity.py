"""Certificates that TLS accepts for the right host only, and keys that stay where they are."""

import datetime as dt
import socket
import ssl
import threading

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from shared import identity
from shared.errors import BadInput


@pytest.fixture(scope="module")
def authority():
    return identity.new_authority("test")


def _handshake(folder, server: identity.Certificate, ca_pem: bytes, host: str) -> str:
    """Connect over loopback as a hospital would; the TLS version, or the error."""
    (folder / "server.pem").write_bytes(server.certificate_pem)
    identity.write_private(folder / "server.key", server.key_pem)
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    listening.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_verify_locations(cadata=ca_pem.decode())
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)

    def serve():
        try:
            with listening.wrap_socket(theirs, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=host) as connection:
            connection.send(b"x")
            return connection.version()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("host", ["coordinator.example.org", "localhost", "127.0.0.1", "::1"])
def test_tls_accepts_the_certificate_for_its_host_and_for_this_machine(tmp_path, authority, host):
    server = identity.new_server_certificate(authority, "coordinator.example.org")
    assert _handshake(tmp_path, server, authority.certificate_pem, host) in ("TLSv1.2", "TLSv1.3")


def test_tls_refuses_the_certificate_for_another_host(tmp_path, authority):
    server = identity.new_server_certificate(authority, "coordinator.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(tmp_path, server, authority.certificate_pem, "other.example.org")


def test_tls_refuses_the_certificate_of_another_authority(tmp_path, authority):
    server = identity.new_server_certificate(identity.new_authority("imposter"), "coordinator.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(tmp_path, server, authority.certificate_pem, "coordinator.example.org")


def test_a_certificate_says_when_it_ends(authority):
    server = identity.new_server_certificate(authority, "10.1.2.3")
    left = identity.expires(server.certificate_pem) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=identity.CERTIFICATE_DAYS - 1) < left < dt.timedelta(days=identity.CERTIFICATE_DAYS + 1)


@pytest.mark.parametrize("host", ["", "two words", "-dash.org", "a..b", "http://host", "host:80", "x" * 254, "ä.org"])
def test_a_host_that_is_none_is_refused(authority, host):
    with pytest.raises(BadInput, match="neither a host name nor an IP address"):
        identity.new_server_certificate(authority, host)


def test_a_key_is_readable_by_its_owner_only(tmp_path):
    key = identity.new_key()
    identity.write_private(tmp_path / "site.pem", identity.private_pem(key))
    assert (tmp_path / "site.pem").stat().st_mode & 0o777 == 0o600
    assert identity.private_pem(identity.read_private(tmp_path / "site.pem")) == identity.private_pem(key)


def test_a_private_key_others_can_read_is_refused(tmp_path):
    file = tmp_path / "site.pem"
    identity.write_private(file, identity.private_pem(identity.new_key()))
    file.chmod(0o640)
    with pytest.raises(BadInput, match="chmod 600"):
        identity.read_private(file)


def test_a_public_key_survives_its_file_and_keeps_its_fingerprint(tmp_path):
    key = identity.new_key().public_key()
    (tmp_path / "site.pub").write_bytes(identity.public_pem(key))
    again = identity.read_public(tmp_path / "site.pub")
    assert identity.fingerprint(again) == identity.fingerprint(key)
    assert len(identity.fingerprint(key).replace(" ", "")) == 64


def test_a_private_key_given_for_a_public_one_is_refused_as_such(tmp_path):
    file = tmp_path / "site.pub"
    identity.write_private(file, identity.private_pem(identity.new_key()))
    with pytest.raises(BadInput, match="must never leave the site"):
        identity.read_public(file)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()])
def test_keys_of_another_kind_are_refused(tmp_path, key):
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    identity.write_private(tmp_path / "key.pem", private)
    (tmp_path / "key.pub").write_bytes(public)
    with pytest.raises(BadInput, match="P-384"):
        identity.read_private(tmp_path / "key.pem")
    with pytest.raises(BadInput, match="P-384"):
        identity.read_public(tmp_path / "key.pub")


@given(st.binary(max_size=400))
def test_damaged_files_are_bad_input(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("damaged") / "file"
    file.write_bytes(data)
    file.chmod(0o600)
    for read in (identity.read_private, identity.read_public, identity.read_certificate):
        with pytest.raises(BadInput):
            read(file)


def test_missing_files_are_bad_input(tmp_path):
    for read in (identity.read_private, identity.read_public, identity.read_certificate):
        with pytest.raises(BadInput, match="no such file"):
            read(tmp_path / "nothing")
