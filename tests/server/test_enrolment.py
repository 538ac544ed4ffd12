"""What the enrolment service rests on: nonces that are good once, addresses, and a register that forgets nothing."""

import sqlite3
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.enrolment import limits
from server.enrolment.limits import Calls, Nonces, address
from server.enrolment.register import MOST_WRONG_PROOFS, Register, Try
from server.home import Home, ServerConfig


@pytest.fixture
def register(tmp_path):
    return Register(tmp_path / "store.sqlite")


def test_a_nonce_is_good_once_and_only_where_it_was_given():
    nonces = Nonces()
    nonce = nonces.give()
    assert not Nonces().take(nonce)
    assert nonces.take(nonce)
    assert not nonces.take(nonce)


def test_a_nonce_ends_by_itself_and_cannot_be_made_to_last(monkeypatch):
    nonces, now = Nonces(), time.monotonic()
    nonce, other = nonces.give(), nonces.give()
    later = nonce[:16] + other[16:24] + nonce[24:]
    assert later == nonce or not nonces.take(later)
    monkeypatch.setattr(limits.time, "monotonic", lambda: now + 2 * limits.NONCE_SECONDS)
    assert not nonces.take(nonce)


def test_of_nonces_only_those_are_remembered_that_were_used_within_their_minute(monkeypatch):
    nonces, now = Nonces(), time.monotonic()
    for _ in range(50):
        assert nonces.take(nonces.give())
    assert len(nonces._used) == 50
    monkeypatch.setattr(limits.time, "monotonic", lambda: now + 3 * limits.NONCE_SECONDS)
    assert nonces.take(nonces.give())
    assert len(nonces._used) == 1


@given(st.binary(max_size=80))
def test_no_bytes_are_a_nonce_that_was_not_given(data):
    assert not Nonces().take(data)


def test_an_address_may_ask_so_often_within_a_minute_and_another_is_not_held_up(monkeypatch):
    calls, now = Calls(most=3), time.monotonic()
    assert [calls.admits("192.0.2.1") for _ in range(4)] == [True, True, True, False]
    assert calls.admits("192.0.2.2")
    monkeypatch.setattr(limits.time, "monotonic", lambda: now + 61)
    assert calls.admits("192.0.2.1")


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:50000", "192.0.2.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::1]:50000", "2001:db8:1:2::/64"),
        ("unix:/run/socket", "unix"),
        ("", "unknown"),
    ],
)
def test_the_address_is_read_from_what_grpc_says(peer, found):
    assert address(peer) == found


def test_a_ticket_belongs_to_the_first_key_whoever_comes_at_the_same_time(register):
    register.invite("t", "north", expires=time.time() + 60)
    bound = []
    threads = [threading.Thread(target=lambda key=key: bound.append(register.bind("t", key))) for key in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bound) == [False] * 7 + [True]
    assert register.bind("t", register.find("t").public_key)
    assert not register.bind("unknown", "a")


def test_an_invitation_says_how_it_stands(register):
    now = time.time()
    register.invite("a", "north", expires=now + 60)
    assert register.find("a").standing(now) == "open"
    assert register.find("a").standing(now + 61) == "expired"
    register.invite("b", "north", expires=now + 60)
    assert register.find("a").standing(now) == "withdrawn"
    for _ in range(MOST_WRONG_PROOFS):
        register.refuse(Try(now, "192.0.2.1", "north", "a wrong proof"), ticket="b")
    assert register.find("b").standing(now).startswith("dead")
    register.invite("c", "south", expires=now + 60)
    assert register.bind("c", "key")
    assert register.find("c").standing(now + 61) == "open"  # a site that was cut off may come back
    register.use("c")
    assert register.find("c").standing(now) == "used"
    assert not register.withdraw("south")


def test_refused_tries_are_counted_by_address_and_cannot_fill_the_disk(register, monkeypatch):
    monkeypatch.setattr("server.enrolment.register._KEPT_TRIES", 20)
    now = time.time()
    for number in range(50):
        register.refuse(Try(now + number / 100, f"192.0.2.{number % 2}", "", "guessed"))
    assert register.refused("192.0.2.1", now - 1) == 10
    assert register.refused("192.0.2.1", now + 1) == 0
    with sqlite3.connect(register.path) as db:
        assert db.execute("SELECT COUNT(*) FROM refused_tries").fetchone() == (20,)


def test_sites_join_at_the_port_after_the_fleets_unless_the_operator_says_another(tmp_path):
    assert ServerConfig(host="x.org").enrols_at == 8444
    assert ServerConfig(host="x.org", port=0).enrols_at == 0
    assert ServerConfig(host="x.org", port=443, enrolment_port=444).enrols_at == 444
    home = Home.create(tmp_path / "home", ServerConfig(host="x.org", port=9000))
    assert Home.open(home.path).config.enrols_at == 9001
