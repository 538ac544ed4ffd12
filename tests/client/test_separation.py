"""The SuperNode's folder: what goes there, in which order, and what is refused."""

import itertools
import json
import os
import stat
import sys
from collections.abc import Callable

import pytest

from client import carrier, credentials, link, separation
from client.audit import Record
from client.site import Coordinator, Site, SiteConfig, Supernode
from shared import identity
from shared.errors import BadInput
from shared.files import held


@pytest.fixture
def made(tmp_path) -> Callable[[str], Site]:
    """Makes a site that is ready to be started."""
    authority = identity.new_authority("test")

    def make(name: str) -> Site:
        site = Site.create(tmp_path / name, SiteConfig(name="north"))
        credentials.equip(site)
        return credentials.trust(site, Coordinator(address="there:8443"), ca=authority.certificate_pem)

    return make


@pytest.fixture
def site(made) -> Site:
    return made("north")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "carried"


def _again(site: Site) -> Site:
    return Site.open(site.home)


def _public(pem) -> identity.PublicKey:
    return identity.read_private(pem).public_key()


def test_the_key_is_moved_and_what_the_supernode_needs_lies_in_its_folder(site, folder):
    key = _public(site.home / "keys" / "site.pem")
    assert separation.separate(site, folder)
    assert not (site.home / "keys" / "site.pem").exists()
    assert identity.read_public(site.home / "keys" / "site.pub") == key == _public(folder / "keys" / "site.pem")
    assert carrier.configured(folder).coordinator.address == "there:8443"
    assert (folder / "ca.pem").read_bytes() == (site.home / "ca.pem").read_bytes()
    assert len(link.secret(folder)) == 32
    assert _again(site).config.supernode == Supernode(folder=str(folder))


def test_the_group_may_look_at_what_it_has_to_and_not_at_the_key(site, folder):
    previous = os.umask(0o077)
    try:
        separation.separate(site, folder)
    finally:
        os.umask(previous)
    modes = {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert modes == {
        "supernode.toml": 0o640,
        "ca.pem": 0o640,
        "secret": 0o640,
        "state": 0o750,
        "log": 0o700,
        "keys": 0o700,
        "keys/site.pem": 0o600,
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_what_the_operator_wrote_into_site_toml_stays(site, folder):
    file = site.home / "site.toml"
    file.write_text(file.read_text() + '# asked the board, 3 March\n[datasets.liver]\njobs = ["liver-*"] # these')
    before = file.read_text()
    separation.separate(_again(site), folder)
    assert file.read_text().startswith(before)
    assert "liver" in _again(site).config.datasets


def test_it_is_in_the_record_whose_key_the_sites_key_has_signed_before(site, folder):
    separation.separate(site, folder)
    lines = [json.loads(line)["body"] for line in (site.home / "record.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["began", "decided"]
    assert lines[0]["endorsement"]
    assert lines[1]["what"] == "separated"


def test_separating_again_changes_nothing(site, folder):
    separation.separate(site, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    toml = (site.home / "site.toml").read_bytes()
    assert not separation.separate(_again(site), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (site.home / "site.toml").read_bytes() == toml


# What changes something on the disk, of what Python says before it does it. `open` stands for the writes in between.
CHANGES = {"os.rename", "os.mkdir", "os.chmod", "os.remove", "os.truncate", "open"}


def _killed(at: int, work: Callable[[], object]) -> bool:
    """Do it in another process, which is killed just before the change with this number; whether it was."""
    if (child := os.fork()) == 0:
        changes = itertools.count()

        def hook(event: str, _: object) -> None:
            if event in CHANGES and next(changes) == at:
                os._exit(9)

        sys.addaudithook(hook)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_killed_at_any_point_there_is_a_key_that_works_and_the_same_command_does_the_rest(made, tmp_path):
    for at in itertools.count():
        site, folder = made(f"{at}/north"), tmp_path / str(at) / "carried"
        public = identity.read_public(site.home / "keys" / "site.pub")
        killed = _killed(at, lambda site=site, folder=folder: separation.separate(site, folder))
        mine, theirs = site.home / "keys" / "site.pem", folder / "keys" / "site.pem"
        if _again(site).config.supernode is None:
            assert _public(mine) == public  # `start` is as it was
        else:
            assert _public(theirs) == public
            assert (folder / "secret").exists()
        separation.separate(_again(site), folder)
        assert not mine.exists()
        assert _public(theirs) == public
        assert (site.home / "site.toml").read_text().count("[supernode]") == 1
        assert Record(site).troubles() == []
        if not killed:
            break
    assert at > 30


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda site, folder: folder.mkdir() or (folder / "file").touch(), "already in use"),
        (lambda site, folder: (site.home / "keys" / "site.pem").unlink(), "no such file"),
        (lambda site, folder: (site.home / "ca.pem").unlink(), "no such file"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_key_stays(site, folder, wrong, said):
    wrong(site, folder)
    there = (site.home / "keys" / "site.pem").exists()
    with pytest.raises(BadInput, match=said):
        separation.separate(site, folder)
    assert (site.home / "keys" / "site.pem").exists() == there
    assert _again(site).config.supernode is None


def test_a_folder_in_the_home_or_around_it_is_refused(site, tmp_path):
    for folder in (site.home / "carried", site.home, tmp_path):
        with pytest.raises(BadInput, match="neither in the home nor around it"):
            separation.separate(site, folder)


def test_a_second_folder_is_refused(site, folder, tmp_path):
    separation.separate(site, folder)
    with pytest.raises(BadInput, match="names another folder already"):
        separation.separate(_again(site), tmp_path / "other")


def test_another_sites_key_is_not_overwritten(site, folder, made):
    separation.separate(site, folder)
    namesake = made("again")
    key = (folder / "keys" / "site.pem").read_bytes()
    with pytest.raises(BadInput, match="another key, which would be lost"):
        separation.separate(namesake, folder)
    assert (folder / "keys" / "site.pem").read_bytes() == key
    assert (namesake.home / "keys" / "site.pem").exists()


def test_a_home_whose_daemon_runs_is_refused(site, folder):
    with held(site.home, "daemon"), pytest.raises(BadInput, match="already running"):
        separation.separate(site, folder)
