"""`join` against a real service in this process, whose clock and fleet port are not as they should be."""

import datetime as dt
import socket
import ssl
import threading
import time

import pytest

from client.enrolment import checks, joining
from client.site import Site
from server.enrolment import invitations, service
from server.home import Home, ServerConfig
from shared import identity
from shared.errors import BadInput


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def home(tmp_path):
    ports = {"port": _closed_port(), "enrolment_port": _closed_port()}
    return Home.create(tmp_path / "coordinator", ServerConfig(host="127.0.0.1", listen="127.0.0.1", **ports))


def _joined(home: Home, folder, *, ahead: float) -> joining.Joined:
    ticket = invitations.invite(home, "north", valid=dt.timedelta(hours=1), out=folder / "north.ticket")
    fleet = f"127.0.0.1:{home.config.port}"
    with service.serving(home, fleet=fleet, clock=lambda: time.time() - ahead):
        return joining.join(ticket, folder / "north")


def test_a_clock_that_is_wrong_is_told_in_seconds_and_the_site_is_enrolled_all_the_same(home, tmp_path):
    joined = _joined(home, tmp_path, ahead=60.0)
    clock, reach = joined.problems
    assert "this machine's clock is 60.0 s ahead of the coordinator's" in clock
    assert "timedatectl set-ntp true" in clock
    assert f"127.0.0.1:{home.config.port} cannot be reached: does a firewall" in reach
    assert (
        home.store.sites.admitted()["north"].public_key.encode()
        == (tmp_path / "north" / "keys" / "site.pub").read_bytes()
    )
    assert Site.open(tmp_path / "north").config.coordinator.enrolment == f"127.0.0.1:{home.config.enrols_at}"


def test_a_clock_that_is_behind_but_not_too_far_is_only_worth_saying(home, tmp_path):
    joined = _joined(home, tmp_path, ahead=-100.0)
    assert len(joined.problems) == 1  # the fleet port, where nobody listens here
    assert "100.0 s behind the coordinator's" in joined.notes[0]


def test_a_coordinator_that_nobody_can_dial_gets_no_ticket(tmp_path):
    home = Home.create(tmp_path / "six", ServerConfig(host="::1", listen="::1"))
    with pytest.raises(BadInput, match="expected host:port"):
        invitations.invite(home, "north", valid=dt.timedelta(hours=1), out=tmp_path / "ticket")
    assert not (tmp_path / "ticket").exists()


def test_somebody_else_at_the_fleet_port_is_told_from_nobody(tmp_path):

    authority = identity.new_authority("other")
    server = identity.new_server_certificate(authority, "127.0.0.1")
    (tmp_path / "server.pem").write_bytes(server.certificate_pem)
    identity.write_private(tmp_path / "server.key", server.key_pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            try:
                with context.wrap_socket(listening.accept()[0], server_side=True) as connection:
                    connection.recv(100)
            except OSError:
                pass

        thread = threading.Thread(target=answer)
        thread.start()
        ours = identity.new_authority("ours").certificate_pem
        said = checks.reach(f"127.0.0.1:{listening.getsockname()[1]}", ours)
        thread.join()
    assert "shows a certificate that is not this coordinator's" in said
