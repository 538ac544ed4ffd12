"""The witness: a ledger that was put back, lost or exchanged is noticed, and a process that was killed is not."""

import os
import random
import shutil
import signal
import sqlite3
import time

import pytest
from spending import CHARGE, of, refused, reserve, site_at, untrusted

from client.ledger import Ledger, witness
from client.site import Site
from shared.errors import RefusalCode

COPIES = {
    "in its place": lambda old, home: (shutil.rmtree(home), shutil.copytree(old, home)),
    "over it": lambda old, home: shutil.copytree(old, home, dirs_exist_ok=True),
    "the ledger alone": lambda old, home: shutil.copy2(old / "ledger.sqlite", home / "ledger.sqlite"),
    "all but the witness": lambda old, home: (
        shutil.copy2(old / "ledger.sqlite", home / "ledger.sqlite"),
        shutil.rmtree(home / "replies"),
        shutil.copytree(old / "replies", home / "replies"),
    ),
}


def names(ledger) -> list[str]:
    return sorted(path.name for path in ledger.site.witness.glob("*.json"))


def test_a_new_home_works_without_ceremony(ledger):
    assert ledger.spent("data") == 0
    reserve(ledger)
    assert ledger.history("data") == [CHARGE]


def test_there_is_one_witness_and_it_follows_the_ledger(ledger):
    for number in (1, 2, 3):
        reserve(ledger, number=number)
        ledger.settle(of(number))
        assert names(ledger) == [f"{ledger.read().last:09d}.json"]
    said = witness.read(ledger.site.witness).said
    books = ledger.read()
    assert (said.number, said.link) == (books.last, books.links[books.last])
    assert list(said.entries) == books.condensed()
    assert witness.read(ledger.site.witness).file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("how", ["in its place", "over it"])
def test_a_home_from_before_its_first_charge_that_was_put_back_is_noticed(ledger, tmp_path, how):
    shutil.copytree(ledger.site.home, tmp_path / "old")
    reserve(ledger)
    COPIES[how](tmp_path / "old", ledger.site.home)
    ledger.file.unlink(missing_ok=True)
    untrusted(ledger)


@pytest.mark.parametrize("how", COPIES)
def test_an_older_ledger_that_was_put_back_is_noticed(ledger, tmp_path, how):
    reserve(ledger)
    shutil.copytree(ledger.site.home, tmp_path / "old")
    reserve(ledger, number=2)
    COPIES[how](tmp_path / "old", ledger.site.home)
    said = untrusted(ledger)
    assert ("is a copy" in said) == (how == "in its place")


def test_a_copy_of_a_home_may_not_spend_beside_it(ledger, tmp_path):
    reserve(ledger)
    shutil.copytree(ledger.site.home, tmp_path / "copy")
    untrusted(Ledger(Site.open(tmp_path / "copy")))
    reserve(ledger, number=2)


def test_a_home_that_is_renamed_is_the_same_home(ledger, tmp_path):
    reserve(ledger)
    ledger.site.home.rename(tmp_path / "elsewhere")
    reserve(Ledger(Site.open(tmp_path / "elsewhere")), number=2)


def test_a_ledger_that_was_deleted_is_noticed(ledger):
    reserve(ledger)
    ledger.file.unlink()
    assert "it ends with entry 0" in untrusted(ledger)
    untrusted(ledger)  # and again, whatever the first time left


def test_the_newest_ledger_put_back_is_trusted_again(ledger, tmp_path):
    reserve(ledger)
    shutil.copy2(ledger.file, tmp_path / "kept")
    ledger.file.unlink()
    untrusted(ledger)
    shutil.copy2(tmp_path / "kept", ledger.file)
    reserve(ledger, number=2)


def test_another_sites_ledger_is_noticed(ledger, tmp_path):
    other = Ledger(site_at(tmp_path / "other", data={"epsilon": 6.0}))
    for number in (1, 2):
        reserve(other, number=number)
        reserve(ledger, number=number, run="ours")
    shutil.copy2(other.file, ledger.file)
    assert "is another ledger" in untrusted(ledger)


def test_the_last_entries_taken_out_are_noticed(ledger):
    for number in (1, 2, 3):
        reserve(ledger, number=number)
    database = sqlite3.connect(ledger.file)
    database.execute("DELETE FROM entries WHERE number = 4")
    database.commit()
    database.close()
    assert "it ends with entry 3" in untrusted(ledger)


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b""), lambda file: file.write_bytes(b"{}")])
def test_a_witness_that_cannot_be_read_is_no_witness(ledger, spoil):
    reserve(ledger)
    spoil(witness.read(ledger.site.witness).file)
    assert "is damaged" in untrusted(ledger)


def test_a_witness_that_is_gone_is_noticed(ledger):
    reserve(ledger)
    (ledger.site.witness / names(ledger)[0]).unlink()
    assert "is gone" in untrusted(ledger)
    ledger.file.unlink()
    assert "is gone" in untrusted(ledger)  # a home without either is no new one


def test_the_folder_of_the_witness_is_not_made_again(ledger):
    shutil.rmtree(ledger.site.witness)
    untrusted(ledger)
    assert not ledger.site.witness.exists()


def test_other_files_beside_the_witness_are_not_looked_at(ledger):
    reserve(ledger)
    for name in (".DS_Store", "notes.json", "0000.json", "000000009.json.bak"):
        (ledger.site.witness / name).write_text("x")
    reserve(ledger, number=2)


def test_a_witness_on_another_disk_notices_that_the_home_was_put_back(tmp_path):
    first = site_at(tmp_path / "first", data={"epsilon": 6.0})
    config = first.config.model_copy(update={"witness": str(tmp_path / "disk" / "north")})
    ledger = Ledger(Site.create(tmp_path / "home", config))
    assert Site.open(tmp_path / "home").witness == tmp_path / "disk" / "north"
    reserve(ledger)
    shutil.copytree(ledger.site.home, tmp_path / "snapshot")
    reserve(ledger, number=2)
    COPIES["in its place"](tmp_path / "snapshot", ledger.site.home)
    assert "it ends with entry 2" in untrusted(Ledger(Site.open(tmp_path / "home")))


def test_a_disk_that_is_full_charges_nothing(ledger, monkeypatch):
    """As far as that is known before the ledger is written."""
    reserve(ledger)
    full = OSError(28, "No space left on device")

    def fsync(handle: int) -> None:
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        assert "No space left" in refused(RefusalCode.LEDGER, reserve, ledger, number=2)
    assert ledger.history("data") == [CHARGE]
    assert len(names(ledger)) == 1


def test_a_file_system_that_does_not_tell_when_a_file_was_made_notices_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(witness, "_born", lambda file: None)
    ledger = Ledger(site_at(tmp_path / "home", data={"epsilon": 6.0}))
    reserve(ledger)
    shutil.copytree(ledger.site.home, tmp_path / "old")
    reserve(ledger, number=2)
    COPIES["over it"](tmp_path / "old", ledger.site.home)
    untrusted(ledger)


def test_processes_that_are_killed_at_any_time_leave_a_ledger_that_is_trusted_and_forgets_nothing(tmp_path):
    """A child reserves again and again, and says so whenever it may act."""
    ledger = Ledger(site_at(tmp_path / "home", data={"epsilon": 1e6, "delta": 1e-5}))
    delays, acted, lives = random.Random(7), 0, 25
    for _ in range(lives):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            while True:
                reserve(ledger)
                os.write(write, b".")
        os.close(write)
        acted += len(os.read(read, 1))
        time.sleep(delays.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acted += len(os.read(read, 1 << 20))
        os.close(read)
        charged = sum(steps for *_, steps in ledger.history("data")) // CHARGE[2]
        assert lives >= charged - acted >= 0
    assert acted >= lives
