"""A site joins with one file and one command; nobody else does. Everything is tried over the real service."""

import json
import socket
import ssl
import stat
import time
from pathlib import Path

import grpc
import pytest
from enrolling import HOST, coordinating
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness import listening, until

from client import credentials
from client.enrolment.channel import Denied, Service
from client.enrolment.checks import reach
from client.site import Site, SiteConfig
from server import admission
from server.enrolment.decisions import MOST_REFUSED
from server.enrolment.register import MOST_WRONG_PROOFS, Register
from server.enrolment.service import MOST_CONNECTIONS
from server.home import Home, ServerConfig
from shared import identity, tickets
from shared.enrolment_pb2 import BeginRequest, JoinRequest, RotateRequest
from shared.errors import InsituError

pytestmark = pytest.mark.federation


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    with coordinating(tmp_path_factory.mktemp("enrolment")) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(request):
    if "there" in request.fixturenames:
        request.getfixturevalue("there").forget_tries()


# What goes right


def test_one_file_and_one_command_each_and_two_hospitals_train(there, any_job):
    began = time.monotonic()
    made = there.join("north")
    seconds = time.monotonic() - began
    there.join("south")
    print(f"invited and joined in {seconds:.1f} s")
    assert stat.S_IMODE(there.file("north").stat().st_mode) == 0o600
    for private in ("site.pem", "secret", "record.pem"):
        assert stat.S_IMODE((made.home / "keys" / private).stat().st_mode) == 0o600
    assert stat.S_IMODE(made.home.stat().st_mode) == 0o700
    assert not [one.name for one in made.home.iterdir() if one.name.startswith(".join")]
    assert made.config.coordinator.address == f"{HOST}:{there.home.config.port}"
    assert identity.read_certificate(made.home / "ca.pem") == there.home.ca.read_bytes()
    for name in ("north", "south"):
        there.start_site(name)
        there.connected(name)
    there.plan(rounds=2, sites=2)
    run = there.submit(any_job)
    assert there.wait(run).status == "completed", there.logs()
    assert len(there.report(run)["replies"][0]) == 2
    there.command("client", "audit", "verify", "--home", made.home)
    entries = json.loads(there.command("client", "audit", "--json", "--home", made.home).stdout)
    assert [(entry["kind"], entry.get("what")) for entry in entries] == [("began", None), ("decided", "joined")]


def test_a_home_made_before_joins_with_its_key_and_keeps_what_the_operator_wrote(there):
    home = there.folder / "early"
    there.command("client", "init", "early", "--home", home)
    file = home / "site.toml"
    file.write_text(file.read_text().replace("min_patients = 5", "min_patients = 20  # ethics board, 3 March"))
    key = (home / "keys" / "site.pem").read_bytes()
    there.invite("early-birds")
    said = there.command("client", "join", there.file("early-birds"), "--home", home).stderr
    assert "early has joined, where it is early-birds" in said
    assert (home / "keys" / "site.pem").read_bytes() == key
    assert "# ethics board, 3 March" in file.read_text()
    assert Site.open(home).config.policy.min_patients == 20
    public = there.home.store.sites.admitted()["early-birds"].public_key
    assert public.encode() == (home / "keys" / "site.pub").read_bytes()


def test_the_same_command_again_gives_the_same_answer_and_changes_nothing(there):
    site = there.join("again")
    before = {file: file.read_bytes() for file in site.home.rglob("*") if file.is_file()}
    node = there.home.store.sites.admitted()["again"].node_id
    there.command("client", "join", there.file("again"), "--home", site.home)
    assert {file: file.read_bytes() for file in site.home.rglob("*") if file.is_file()} == before
    assert there.home.store.sites.admitted()["again"].node_id == node


def test_a_home_of_another_coordinator_and_a_folder_in_use_are_left_alone(there, tmp_path):
    there.invite("loyal")
    site = Site.create(tmp_path / "loyal", SiteConfig(name="loyal"))
    credentials.equip(site)
    other = identity.new_authority("other").certificate_pem
    credentials.trust(site, credentials.Coordinator(address="elsewhere:8443"), ca=other)
    said = there.command("client", "join", there.file("loyal"), "--home", site.home, code=2).stderr
    assert "names another coordinator already (elsewhere:8443)" in said
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("precious")
    said = there.command("client", "join", there.file("loyal"), "--home", tmp_path / "used", code=2).stderr
    assert "choose a folder that is empty" in said
    assert [file.name for file in (tmp_path / "used").iterdir()] == ["thesis.txt"]
    assert "loyal" not in there.home.store.sites.admitted()


def test_the_coordinator_keeps_only_a_hash_of_the_ticket(there):
    ticket = there.invite("hashed")
    kept = b"".join(file.read_bytes() for file in there.home.path.rglob("*") if file.is_file())
    public = tickets.public_bytes(ticket)
    assert tickets.hashed(public).encode() in kept
    for secret in (ticket.secret.encode(), bytes.fromhex(ticket.secret), public, public.hex().encode()):
        assert secret not in kept


# Who is refused


def _raw(there, ticket, method, request) -> tuple[grpc.StatusCode, str, tuple]:
    """What a stranger hears."""
    with there.calls(ticket) as service, pytest.raises(grpc.RpcError) as refused:
        getattr(service._stub, method)(request, timeout=10)
    error = refused.value
    return error.code(), error.details(), tuple(one for one in error.trailing_metadata() or () if one.key != "date")


def _request(there, ticket, key, *, nonce=None, secret=None, **change) -> JoinRequest:
    """A request that is right, but for what is changed after it was signed."""
    if nonce is None:
        with there.calls(ticket) as service:
            nonce = service.begin().nonce
    public, proof = identity.der(key.public_key()), tickets.public_bytes(ticket)
    site = change.pop("named", ticket.site)
    statement = tickets.joining(ca=ticket.authority, nonce=nonce, site=site, ticket=proof, key=public)
    signer = ticket if secret is None else ticket.model_copy(update={"secret": secret})
    fields = {
        "nonce": nonce,
        "site": site,
        "ticket": proof,
        "public_key": public,
        "proof": signer.key.sign(statement),
        "possession": identity.sign(key, statement),
    }
    return JoinRequest(**fields | change)


REFUSED = (grpc.StatusCode.PERMISSION_DENIED, "refused", ())


def test_a_guessed_ticket_is_refused(there):
    ticket = there.invite("guessed").model_copy(update={"secret": tickets.new_secret()})
    assert _raw(there, ticket, "Join", _request(there, ticket, identity.new_key())) == REFUSED
    there.wait_said("no ticket of this coordinator's")


def test_an_expired_ticket_is_refused_and_its_owner_told_when_it_ended(there):
    ticket = there.invite("slow", seconds=1)
    until(lambda: time.time() > ticket.expires.timestamp(), what="the end")
    assert _raw(there, ticket, "Join", _request(there, ticket, identity.new_key())) == REFUSED
    there.wait_said("(slow): the ticket has expired")
    said = there.command("client", "join", there.file("slow"), "--home", there.folder / "slow", code=1).stderr
    assert "the ticket was good until" in said
    assert "slow" not in there.home.store.sites.admitted()


def test_a_used_ticket_is_refused_to_every_other_key(there):
    site = there.join("first")
    ticket = tickets.read(there.file("first"))
    assert _raw(there, ticket, "Join", _request(there, ticket, identity.new_key())) == REFUSED
    there.wait_said("(first): the ticket was used already, with another key")
    said = there.command("client", "join", there.file("first"), "--home", there.folder / "second", code=1).stderr
    assert "used with another key (if not by you, tell the coordinator)" in said
    assert "coordinator" not in (there.folder / "second" / "site.toml").read_text()
    public = there.home.store.sites.admitted()["first"].public_key
    assert public.encode() == (site.home / "keys" / "site.pub").read_bytes()


def test_wrong_proofs_are_refused_and_kill_the_ticket_over_a_restart_of_the_coordinator(there):
    ticket, key = there.invite("dying"), identity.new_key()
    for number in range(MOST_WRONG_PROOFS):
        wrong = _request(there, ticket, key, secret=tickets.new_secret())
        assert _raw(there, ticket, "Join", wrong) == REFUSED
        if number == 1:
            there.restart()
    there.wait_said("(dying): a wrong proof")
    assert _raw(there, ticket, "Join", _request(there, ticket, key)) == REFUSED
    there.wait_said("(dying): the ticket is dead after 5 wrong proofs")
    listed = json.loads(there.command("server", "sites", "--json", "--home", there.home.path).stdout)
    [row] = [row for row in listed if row["name"] == "dying"]
    assert (row["standing"], row["wrong_proofs"]) == ("invitation dead: too many wrong proofs", MOST_WRONG_PROOFS)
    assert "dying" not in there.home.store.sites.admitted()


def test_a_key_that_did_not_sign_is_refused(there):
    ticket, key, other = there.invite("posing"), identity.new_key(), identity.new_key()
    theirs = identity.der(other.public_key())
    assert _raw(there, ticket, "Join", _request(there, ticket, key, public_key=theirs)) == REFUSED
    nonce = _request(there, ticket, key).nonce
    statement = tickets.joining(
        ca=ticket.authority, nonce=nonce, site="posing", ticket=tickets.public_bytes(ticket), key=theirs
    )
    stolen = _request(there, ticket, other, nonce=nonce, possession=identity.sign(key, statement))
    assert _raw(there, ticket, "Join", stolen) == REFUSED
    there.wait_said("(posing): the ticket is right, and the site's key has not signed")


def test_a_request_that_was_seen_is_refused_when_it_is_sent_again(there):
    ticket, key = there.invite("replayed"), identity.new_key()
    request = _request(there, ticket, key)
    with there.calls(ticket) as service:
        assert service._stub.Join(request, timeout=10).site == "replayed"
    assert _raw(there, ticket, "Join", request) == REFUSED
    there.wait_said("replayed, too late, or from before the coordinator was started")
    forged = _request(there, ticket, key, nonce=bytes(56))
    assert _raw(there, ticket, "Join", forged) == REFUSED
    assert _raw(there, ticket, "Join", JoinRequest()) == REFUSED


def test_a_nonce_of_another_coordinator_is_refused(there):
    ticket, key = there.invite("elsewhere"), identity.new_key()
    before = _request(there, ticket, key)
    there.restart()
    assert _raw(there, ticket, "Join", before) == REFUSED


def test_a_ticket_that_was_replaced_or_taken_back_is_refused(there):
    old = there.invite("changed")
    new = there.invite("changed")
    assert _raw(there, old, "Join", _request(there, old, identity.new_key())) == REFUSED
    assert "took back" in there.command("server", "revoke", "changed", "--home", there.home.path).stderr
    assert _raw(there, new, "Join", _request(there, new, identity.new_key())) == REFUSED
    there.wait_said("(changed): the ticket was taken back, or replaced by a newer one")


def test_another_name_than_the_tickets_is_refused(there):
    ticket = there.invite("humble")
    assert _raw(there, ticket, "Join", _request(there, ticket, identity.new_key(), named="grand")) == REFUSED
    assert not {"humble", "grand"} & set(there.home.store.sites.admitted())


@pytest.mark.parametrize("public_key", [b"", b"x" * 120, b"x" * 2000])
def test_what_is_no_key_is_refused(there, public_key):
    ticket = there.invite("odd")
    request = _request(there, ticket, identity.new_key(), public_key=public_key)
    assert _raw(there, ticket, "Join", request) == REFUSED


def test_a_name_or_a_key_that_is_taken_by_then_is_refused(there):
    ticket, key = there.invite("taken"), identity.new_key()
    admission.admit(there.home, "taken", identity.new_key().public_key())
    assert _raw(there, ticket, "Join", _request(there, ticket, key)) == REFUSED
    there.wait_said("(taken): the site has another key by now")
    admission.admit(there.home, "holder", key.public_key())
    ticket = there.invite("borrower")
    assert _raw(there, ticket, "Join", _request(there, ticket, key)) == REFUSED
    there.wait_said("(borrower): this key is already admitted under another name")


def test_a_site_that_was_revoked_is_refused_with_its_ticket_and_with_a_new_one(there):
    ticket, key = there.invite("banned"), identity.new_key()
    with there.calls(ticket) as service:
        service.join(service.begin(), ticket, key)
    there.command("server", "revoke", "banned", "--home", there.home.path)
    assert _raw(there, ticket, "Join", _request(there, ticket, key)) == REFUSED
    there.wait_said("(banned): the site was revoked")
    ticket = there.invite("banned")
    assert _raw(there, ticket, "Join", _request(there, ticket, key)) == REFUSED
    there.wait_said("(banned): this key was revoked, and is not admitted again")
    ticket = there.invite("banned")
    with there.calls(ticket) as service:
        assert service.join(service.begin(), ticket, identity.new_key()).site == "banned"


def test_a_change_of_key_that_either_key_has_not_signed_is_refused(there):
    ticket, key = there.invite("turning"), identity.new_key()
    with there.calls(ticket) as service:
        service.join(service.begin(), ticket, key)

    def request(old, new, by_old, by_new) -> RotateRequest:
        with there.calls(ticket) as service:
            nonce = service.begin().nonce
        olds, news = identity.der(old.public_key()), identity.der(new.public_key())
        statement = tickets.rotating(ca=ticket.authority, nonce=nonce, old=olds, new=news)
        signed = {"by_old": identity.sign(by_old, statement), "by_new": identity.sign(by_new, statement)}
        return RotateRequest(nonce=nonce, old_key=olds, new_key=news, **signed)

    new, thief = identity.new_key(), identity.new_key()
    other = identity.new_key()
    admission.admit(there.home, "bystander", other.public_key())
    for wrong in (
        request(key, thief, thief, thief),
        request(key, new, key, thief),
        request(thief, new, thief, new),
        request(key, other, key, other),
    ):
        before = {name: row.public_key for name, row in there.home.store.sites.admitted().items()}
        assert _raw(there, ticket, "Rotate", wrong) == REFUSED
        assert {name: row.public_key for name, row in there.home.store.sites.admitted().items()} == before
    assert _raw(there, ticket, "Rotate", RotateRequest()) == REFUSED
    there.wait_said("the old one is no admitted site's")
    there.wait_said("(turning): a change of key that one of the keys has not signed")


def test_nobody_joins_where_nobody_was_invited_and_whoever_goes_on_trying_is_not_looked_at(tmp_path):
    with coordinating(tmp_path) as there:
        ticket = there.invite("invited").model_copy(update={"secret": tickets.new_secret()})
        Register(there.home.store.path).withdraw("invited")
        key = identity.new_key()
        heard = [_raw(there, ticket, "Join", _request(there, ticket, key)) for _ in range(MOST_REFUSED)]
        assert set(heard) == {REFUSED}
        there.restart()  # which forgets nothing
        with there.calls(ticket) as service, pytest.raises(InsituError, match="too many tries from this address"):
            service.begin()
        assert there.home.store.sites.admitted() == {}
        said = there.command("server", "sites", "--home", there.home.path).stderr
        assert f"refused in the last 7 days: {MOST_REFUSED} tries; the last from 127.0.0.1" in said


# The listeners


def test_the_enrolment_port_answers_nothing_else(there):
    ticket = there.invite("curious")
    channel = grpc.secure_channel(ticket.enrolment, grpc.ssl_channel_credentials(ticket.authority))
    with channel:
        for method in (
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/flwr.proto.Control/ListNodes",
            "/insitu.enrolment.v1.Enrolment/Admit",
        ):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(method)(b"", timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/insitu.enrolment.v1.Enrolment/Join")(bytes(10**6), timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/insitu.enrolment.v1.Enrolment/Join")(b"\xff" * 100, timeout=10)
        assert refused.value.code() is grpc.StatusCode.INTERNAL
        assert "Traceback" not in (refused.value.details() or "")


def test_the_enrolment_port_speaks_nothing_older_than_tls_1_3(there):
    port = there.home.running()["enrolment"]
    for newest, spoken in ((ssl.TLSVersion.TLSv1_2, None), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        context = ssl.create_default_context(cafile=str(there.home.ca))
        context.set_alpn_protocols(["h2"])
        context.maximum_version = newest
        with socket.create_connection((HOST, port)) as raw:
            try:
                with context.wrap_socket(raw, server_hostname=HOST) as wrapped:
                    assert wrapped.version() == spoken
            except ssl.SSLError:
                assert spoken is None
    with socket.create_connection((HOST, port)) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        raw.settimeout(15)
        assert not raw.recv(100).startswith(b"\x00\x00")  # no frame of HTTP/2 without TLS


def test_whoever_opens_connections_without_end_gets_so_many_and_the_sites_are_served(there):
    ticket, opened = there.invite("patient"), []
    try:
        for _ in range(MOST_CONNECTIONS + 50):
            opened.append(socket.create_connection((HOST, there.home.running()["enrolment"])))
        descriptors = len(list(Path(f"/proc/{there.coordinator.process.pid}/fd").iterdir()))
        assert descriptors < MOST_CONNECTIONS + 100
        assert reach(f"{HOST}:{there.home.config.port}", ticket.authority) is None
    finally:
        for one in opened:
            one.close()
    with there.calls(ticket) as service:
        assert service.join(service.begin(), ticket, identity.new_key()).site == "patient"


def test_a_site_proves_nothing_to_a_coordinator_of_another_authority(there):
    ticket = there.invite("deceived")
    other = ticket.model_copy(update={"ca": identity.new_authority("other").certificate_pem.decode()})
    with (
        Service(other.enrolment, other.authority) as service,
        pytest.raises(InsituError, match="not this coordinator's"),
    ):
        service.begin()


def test_health_is_told_on_loopback_only(there):
    health = there.home.running()["health"]
    found = listening(there.coordinator.process.pid)
    ours = there.home.config
    assert {("127.0.0.1", health), (HOST, ours.port)} <= set(found)
    assert {address for address, _ in found} == {"127.0.0.1", HOST}
    with grpc.insecure_channel(f"127.0.0.1:{health}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "fleet", "enrolment"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_taken_enrolment_port_is_said_in_one_line(there, tmp_path):
    config = ServerConfig(host=HOST, listen=HOST, port=0, enrolment_port=there.home.running()["enrolment"])
    home = Home.create(tmp_path / "h", config)
    said = there.command("server", "start", "--home", home.path, code=1).stderr
    assert "see enrolment_port in server.toml" in said
    assert said.count("\n") == 1


def test_begin_is_answered_with_a_nonce_of_its_own_each_time(there):
    ticket = there.invite("asking")
    with there.calls(ticket) as service:
        nonces = {service._stub.Begin(BeginRequest(), timeout=10).nonce for _ in range(20)}
    assert len(nonces) == 20


# The commands


def test_the_commands_say_what_is_wrong_in_one_line(there, tmp_path):
    coordinator = ("--home", there.home.path)
    for arguments, code, words in (
        (("server", "invite", "North", *coordinator, "--out", tmp_path / "a"), 2, "is no site name"),
        (("server", "invite", "n", *coordinator, "--out", tmp_path / "a", "--expires", "ever"), 2, "--expires"),
        (("server", "invite", "n", *coordinator, "--out", tmp_path / "a", "--expires", "400d"), 2, "--expires"),
        (("server", "revoke", "nobody", *coordinator), 2, "no site 'nobody' is admitted or invited"),
        (("client", "join", tmp_path / "absent", "--home", tmp_path / "s"), 2, "cannot be read"),
        (("client", "join", there.home.ca, "--home", tmp_path / "s"), 2, "is no ticket"),
    ):
        done = there.command(*arguments, code=code)
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "a").exists()


def test_sites_lists_who_is_admitted_invited_and_revoked(there):
    there.invite("waiting")
    ticket, key = there.invite("here"), identity.new_key()
    with there.calls(ticket) as service:
        service.join(service.begin(), ticket, key)
    admission.admit(there.home, "gone", identity.new_key().public_key())
    admission.revoke(there.home, "gone")
    listed = json.loads(there.command("server", "sites", "--json", "--home", there.home.path).stdout)
    rows = {row["name"]: row for row in listed}
    assert rows["waiting"]["standing"] == "invited"
    assert rows["here"]["standing"] == "admitted"
    assert rows["here"]["fingerprint"] == identity.fingerprint(key.public_key())
    assert rows["gone"]["standing"] == "revoked"
    assert rows["gone"]["revoked"]
    table = there.command("server", "sites", "--home", there.home.path).stdout
    assert all(name in table for name in ("waiting", "here", "gone"))
    assert identity.fingerprint(key.public_key()) in table


def test_a_ticket_is_denied_in_words_of_ours(there):
    ticket = there.invite("words").model_copy(update={"secret": tickets.new_secret()})
    with there.calls(ticket) as service, pytest.raises(Denied):
        service.join(service.begin(), ticket, identity.new_key())
