"""A site that has joined: through a proxy, with another key, with another certificate of the coordinator's, revoked."""

import datetime as dt
import json
import os
import signal
import ssl
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from enrolling import HOST, coordinating
from harness import until
from proxy import proxying

from client.audit import verification
from client.audit.entries import Rekeyed
from client.enrolment.channel import Service
from shared import identity
from shared.errors import InsituError

pytestmark = pytest.mark.federation


@pytest.fixture
def there(tmp_path):
    with coordinating(tmp_path) as running:
        yield running


def _started(there, *names: str) -> None:
    for name in names:
        there.join(name)
        there.start_site(name)
    for name in names:
        there.connected(name)


def _completes(there, job, sites: int) -> dict:
    there.plan(rounds=1, sites=sites)
    run = there.submit(job)
    assert there.wait(run).status == "completed", there.logs()
    return there.report(run)


def test_a_revoked_site_is_refused_from_its_next_call_on_and_the_run_goes_on_without_it(there, any_job):
    _started(there, "north", "south")
    nodes = {name: row.node_id for name, row in there.home.store.sites.admitted().items()}
    there.plan(rounds=4, sites=2, orders="sleep")
    run = there.submit(any_job)
    until(lambda: (there.sites["south"].home / "asleep").exists(), 60, "the first round")
    there.command("server", "revoke", "south", "--home", there.home.path)
    until(lambda: not there.status("south")["connected"], 20, "south refused")
    assert there.wait(run).status == "completed", there.logs()
    replies = there.report(run)["replies"]
    assert len(replies) == 4
    assert str(nodes["north"]) in replies[-1]
    assert str(nodes["south"]) not in replies[-1]
    assert there.status("north")["connected"]
    until(lambda: "does not know this site's key" in (there.status("south")["problem"] or ""), 60, "being told")
    there.command("client", "rotate", "--home", there.sites["south"].home, code=1)  # nor can it get in by another key
    assert list(there.home.store.sites.admitted()) == ["north"]
    # Invited again, it needs another key; its data, its ledger and its record stay.
    assert there.daemons.pop("south").stop() == 0
    there.invite("south")
    home = there.sites["south"].home
    join = ("client", "join", there.file("south"), "--home", home)
    there.command(*join, code=1)
    there.command(*join, "--new-key")
    there.command("client", "audit", "verify", "--home", home)
    there.start_site("south")
    there.connected("south")


def test_another_key_takes_the_old_ones_place_while_the_site_is_connected(there, any_job):
    _started(there, "north")
    site = there.sites["north"]
    node, old = (
        there.home.store.sites.admitted()["north"].node_id,
        identity.read_private(site.home / "keys" / "site.pem"),
    )
    executor = there.status("north")["executor"]["pid"]
    said = there.command("client", "rotate", "--home", site.home).stderr
    new = identity.read_private(site.home / "keys" / "site.pem")
    assert new.public_key() != old.public_key()
    assert identity.fingerprint(new.public_key()) in said
    assert (site.home / "keys" / "site.pem").stat().st_mode & 0o777 == 0o600
    row = there.home.store.sites.admitted()["north"]
    assert (row.node_id, row.public_key.encode()) == (node, identity.public_pem(new.public_key()))
    until(lambda: there.status("north")["supernode"].get("restarts"), 30, "the SuperNode's end")
    there.connected("north", 30)
    assert there.status("north")["executor"]["pid"] == executor
    assert len(_completes(there, any_job, 1)["replies"][0]) == 1
    there.command("client", "rotate", "--home", site.home)
    there.command("client", "audit", "verify", "--home", site.home)
    findings = verification.verify(site)
    assert any("changed 2 times" in note for note in findings.notes)
    entries = json.loads(there.command("client", "audit", "--json", "--home", site.home).stdout)
    assert [entry["kind"] for entry in entries].count("rekeyed") == 2
    # The old key opens nothing any more.
    with Service(site.config.coordinator.enrols_at, there.home.ca.read_bytes()) as service, pytest.raises(InsituError):
        service.rotate(service.begin(), old, identity.new_key())


@pytest.mark.parametrize("after", ["write_private", "rotate", "append", "write_atomically"])
def test_a_change_of_key_that_is_killed_half_way_is_finished_by_the_same_command(there, after):
    site = there.join("north")
    program = f"""
import os, signal, sys
from pathlib import Path
from client.enrolment import channel, rotation
from client.audit import Record
from client.site import Site
from shared import identity
def dying(call):
    def die(*given, **named):
        call(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return die
owners = {{"write_private": identity, "rotate": channel.Service, "append": Record, "write_atomically": rotation}}
owner = owners[{after!r}]
setattr(owner, {after!r}, dying(getattr(owner, {after!r})))
rotation.rotate(Site.open(Path({str(site.home)!r})))
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    assert not verification.verify(site).faults
    there.command("client", "rotate", "--home", site.home)
    assert not (site.home / "keys" / "site.next.pem").exists()
    key = identity.read_private(site.home / "keys" / "site.pem").public_key()
    assert (site.home / "keys" / "site.pub").read_bytes() == identity.public_pem(key)
    assert there.home.store.sites.admitted()["north"].public_key.encode() == identity.public_pem(key)
    findings = verification.verify(site)
    assert not findings.faults
    assert len([one for one in findings.entries if isinstance(one.entry, Rekeyed)]) == 1


def test_a_certificate_that_ends_soon_is_renewed_while_a_site_trains_and_nothing_is_dropped(there, any_job):
    _started(there, "north")
    pids = there.processes()
    authority = identity.authority(
        there.home.ca.read_bytes(), identity.read_private(there.home.path / "keys" / "ca.key")
    )
    soon = identity.new_server_certificate(
        authority, HOST, key=identity.read_private(there.home.key), valid=dt.timedelta(days=20)
    )
    there.plan(rounds=8, sites=1, orders="sleep")
    run = there.submit(any_job)
    until(lambda: (there.sites["north"].home / "asleep").exists(), 60, "the run")
    there.home.certificate.write_bytes(soon.certificate_pem)
    until(lambda: "renewed" in there.coordinator.said, 20, "the renewal")
    until(lambda: "serving with another certificate" in there.coordinator.said, 20, "taking it up")
    served = {port: _served(port) for port in (there.home.config.port, there.home.running()["enrolment"])}
    for found in served.values():
        assert found.not_valid_after_utc > dt.datetime.now(dt.UTC) + dt.timedelta(days=800)
        assert found.public_bytes(serialization.Encoding.PEM) == there.home.certificate.read_bytes()
    assert there.wait(run).status == "completed", there.logs()
    assert all(len(replies) == 1 and "error" not in str(replies) for replies in there.report(run)["replies"])
    assert there.processes() == pids
    there.join("south")


def _served(port: int) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((HOST, port)).encode())


def test_a_certificate_that_has_expired_is_renewed_when_the_coordinator_starts(there):
    assert there.coordinator.stop() == 0
    key = identity.read_private(there.home.path / "keys" / "ca.key")
    authority = identity.authority(there.home.ca.read_bytes(), key)
    made = identity.new_server_certificate(
        authority, HOST, valid=dt.timedelta(seconds=-5), key=identity.read_private(there.home.key)
    )
    there.home.certificate.write_bytes(made.certificate_pem)
    there.start_coordinator()
    assert "renewed" in there.coordinator.said
    assert identity.expires(there.home.certificate.read_bytes()) > dt.datetime.now(dt.UTC)


def test_a_site_behind_a_proxy_joins_and_trains_through_it_which_sees_host_and_port_only(there, any_job, monkeypatch):
    with proxying() as proxy:
        there.join("north", HTTPS_PROXY=proxy.url)
        ports = {there.home.config.port, there.home.running()["enrolment"]}
        tunnels = {f"CONNECT {HOST}:{port} HTTP/1.1" for port in ports}
        assert set(proxy.asked) == tunnels
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        there.start_site("north")
        before = proxy.sent
        there.connected("north")
        assert len(_completes(there, any_job, 1)["replies"][0]) == 1
        assert proxy.sent > before + 4000  # the model went that way
        # The executor, which speaks to the SuperNode on loopback, asked it for nothing; what went through is TLS.
        assert set(proxy.asked) == tunnels
        assert set(proxy.first) <= {b"\x16\x03\x01", b"\x16\x03\x03"}
        there.command("client", "rotate", "--home", there.sites["north"].home, HTTPS_PROXY=proxy.url)
        assert set(proxy.asked) == tunnels


def test_a_proxy_that_refuses_is_named_and_one_for_other_hosts_is_not_asked(there):
    with proxying() as proxy:
        proxy.refuses = True
        there.invite("north")
        join = ("client", "join", there.file("north"), "--home", there.folder / "north")
        said = there.command(*join, code=1, HTTPS_PROXY=proxy.url.replace("://", "://user:geheim@")).stderr
        assert f"the proxy {proxy.url}" in said
        assert "geheim" not in said
        assert "coordinator" not in (there.folder / "north" / "site.toml").read_text()
        asked = len(proxy.asked)
        assert asked > 0
        there.command(*join, HTTPS_PROXY=proxy.url, NO_PROXY=HOST)
        assert len(proxy.asked) == asked
    said = there.command(*join, code=2, HTTPS_PROXY="https://proxy.example.org:3128").stderr
    assert "expected http://host:port" in said
