"""Tickets: read as they were written, refused in words whatever else is in the file, and silent about their secret."""

import datetime as dt
import os
import stat

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from shared import identity, tickets
from shared.errors import BadInput
from shared.tickets import Ticket

AUTHORITY = identity.new_authority("test")
CA = AUTHORITY.certificate_pem.decode()
SECRET = "5e" * 32
TICKET = Ticket(
    site="north",
    coordinator="coordinator.example.org:8443",
    enrolment="coordinator.example.org:8444",
    expires=dt.datetime(2027, 1, 1, tzinfo=dt.UTC),
    secret=SECRET,
    ca=CA,
)
PLAIN = {**TICKET.model_dump(), "expires": TICKET.expires}


def test_a_ticket_is_read_as_it_was_written_and_only_its_owner_may_read_it(tmp_path):
    file = tmp_path / "north.ticket"
    tickets.write(file, TICKET)
    assert tickets.read(file) == TICKET
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes().startswith(b"# Lets one site join, once")


def test_a_ticket_is_never_written_over_a_file_or_through_a_link(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for file in (precious, tmp_path / "link"):
        with pytest.raises(BadInput, match="there already"):
            tickets.write(file, TICKET)
    assert precious.read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "newer insitu"),
        ({"version": 0}, "version"),
        ({"site": "North Pole"}, "site"),
        ({"site": "../north"}, "site"),
        ({"coordinator": "coordinator.example.org"}, "expected host:port"),
        ({"enrolment": "user@there:8444"}, "expected host:port"),
        ({"enrolment": "there:0"}, "expected host:port"),
        ({"enrolment": "there:65536"}, "expected host:port"),
        ({"expires": dt.datetime(2027, 1, 1)}, "expires"),
        ({"expires": "soon"}, "expires"),
        ({"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "not a certificate"),
        ({"ca": identity.private_pem(identity.new_key()).decode()}, "not a certificate"),
        ({"note": "hello"}, "unknown key"),
    ],
)
def test_a_wrong_ticket_is_bad_input_that_names_file_and_field(tmp_path, change, words):
    file = tmp_path / "north.ticket"
    file.write_text(tomli_w.dumps(PLAIN | change))
    with pytest.raises(BadInput, match=words) as wrong:
        tickets.read(file)
    assert str(file) in str(wrong.value)


@pytest.mark.parametrize("secret", [SECRET[:-1], SECRET + "0", SECRET.upper(), 17, ["a"], None])
def test_a_wrong_secret_is_in_no_message(secret):
    plain = {key: value for key, value in (PLAIN | {"secret": secret}).items() if value is not None}
    with pytest.raises(BadInput, match="32 bytes in hexadecimal") as wrong:
        tickets.parse(tomli_w.dumps(plain).encode())
    assert SECRET[:8].upper() not in str(wrong.value).upper()
    assert SECRET not in repr(TICKET)


def test_what_is_no_file_is_said_in_words(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent", "."):
        with pytest.raises(BadInput):
            tickets.read(tmp_path / name)


@given(st.binary(max_size=300))
def test_whatever_a_file_holds_it_is_a_ticket_or_bad_input(data):
    with pytest.raises(BadInput):
        tickets.parse(data)


@given(st.integers(0, len(tickets.encoded(TICKET)) - 1), st.binary(min_size=0, max_size=3))
def test_a_damaged_ticket_is_still_one_or_bad_input(at, put):
    whole = tickets.encoded(TICKET)
    try:
        read = tickets.parse(whole[:at] + put + whole[at + max(1, len(put)) :])
    except BadInput:
        return
    assert isinstance(read, Ticket)


toml = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**60) | st.floats(allow_nan=False) | st.text(max_size=9) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(PLAIN)), toml)
def test_any_value_of_any_field_is_taken_or_bad_input(field, value):
    try:
        read = tickets.parse(tomli_w.dumps(PLAIN | {field: value}).encode())
    except BadInput:
        return
    assert isinstance(read, Ticket)


@pytest.mark.parametrize("data", [b"version = " + b"9" * 5000, b"version = " + b"[" * 5000, b"\xff", b"version"])
def test_what_no_toml_reader_can_read_is_bad_input(data):
    with pytest.raises(BadInput, match="is no ticket"):
        tickets.parse(data)


def test_a_file_too_long_for_a_ticket_is_refused(tmp_path):
    file = tmp_path / "long"
    file.write_bytes(tickets.encoded(TICKET) + b"#" * 2**17)
    with pytest.raises(BadInput, match="too long"):
        tickets.read(file)


def test_a_proof_is_good_for_one_coordinator_nonce_name_ticket_and_key():
    def statement(**change):
        given = {"ca": CA.encode(), "nonce": b"n", "site": "north", "ticket": b"t", "key": b"k"}
        return tickets.joining(**given | change)

    other = identity.new_authority("test").certificate_pem
    changed = [{"ca": other}, {"nonce": b"m"}, {"site": "south"}, {"ticket": b"u"}, {"key": b"l"}]
    statements = [statement(), *(statement(**one) for one in changed), statement(nonce=b"nn", site="orth")]
    statements += [tickets.rotating(ca=CA.encode(), nonce=b"n", old=b"t", new=b"k")]
    assert len(set(statements)) == len(statements)
    assert TICKET.secret.encode() not in b"".join(statements)


def test_only_the_tickets_secret_proves_it_and_what_the_coordinator_keeps_does_not():
    statement = b"statement"
    public = tickets.public_bytes(TICKET)
    assert tickets.is_proven(public, TICKET.key.sign(statement), statement)
    other = TICKET.model_copy(update={"secret": tickets.new_secret()})
    assert not tickets.is_proven(public, other.key.sign(statement), statement)
    assert not tickets.is_proven(public, b"", statement)
    assert not tickets.is_proven(public[:-1], TICKET.key.sign(statement), statement)
    assert SECRET not in tickets.hashed(public)
    assert public.hex() not in tickets.hashed(public)


@given(st.binary(max_size=300))
def test_no_bytes_but_a_p384_key_in_its_one_encoding_are_a_sites_key(data):
    assert identity.from_der(data) is None


def test_a_sites_key_is_read_from_its_one_encoding():
    key = identity.new_key().public_key()
    data = identity.der(key)
    assert identity.from_der(data) == key
    assert identity.from_der(data + b"\0") is None
    assert not identity.is_signed(key, b"no signature", b"statement")
