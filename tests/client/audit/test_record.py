"""The record: what is in it, in which order, and that nothing leaves where it cannot be written or trusted."""

import hashlib
import multiprocessing
import os
import resource
import shutil
import time

import pytest
from pydantic import ValidationError
from recording import JOB, decided, faults, filled, head, lines, refusal, rewrite, site_at, untrusted, update

from client import credentials
from client.audit import Record, heads, keys
from client.audit.entries import Began, Mended, parsed
from client.audit.verification import verify
from client.site import Site
from shared.errors import BadInput

SPAWN = multiprocessing.get_context("fork")


def entries(site):
    return [parsed.validate_json(line.body) for line in lines(site)]


def test_a_new_home_has_a_key_and_a_head_and_no_entry(site):
    assert (site.home / "keys" / "record.pem").stat().st_mode & 0o777 == 0o600
    assert head(site) == heads.NOTHING
    assert not (site.home / "record.jsonl").exists()
    assert Record(site).troubles() == []
    assert faults(site) == {}


def test_an_entry_is_numbered_chained_signed_and_says_which_policy_was_in_force(site):
    record = Record(site)
    assert [record.append(update()), record.append(refusal()), record.append(decided())] == [2, 3, 4]
    assert (site.home / "record.jsonl").stat().st_mode & 0o777 == 0o600
    found = lines(site)
    assert [line.number for line in found] == [1, 2, 3, 4]
    assert [line.before for line in found] == ["", *(line.link for line in found[:-1])]
    assert all(line.genuine(keys.read(site).public_key()) for line in found)
    policy = hashlib.sha256((site.home / "site.toml").read_bytes()).hexdigest()
    assert {entry.policy for entry in entries(site)} == {policy}
    assert head(site) == record.head == found[-1].head
    assert entries(site)[1].model_copy(update={"policy": ""}) == update(time=entries(site)[1].time)


def test_the_first_entry_says_the_key_and_the_sites_own_key_vouches_for_it(tmp_path):
    site = site_at(tmp_path / "home")
    credentials.equip(site)
    Record(site).append(update())
    began = entries(site)[0]
    assert isinstance(began, Began)
    assert began.site == "north"
    assert began.key == keys.text(keys.read(site).public_key())
    assert keys.is_endorsed(began)
    assert not keys.is_endorsed(began.model_copy(update={"key": "0" * 64}))
    assert not keys.is_endorsed(began.model_copy(update={"endorsement": "00"}))
    assert faults(site) == {}


def test_several_records_of_one_home_go_on_from_each_other(site):
    one, other = Record(site), Record(Site.open(site.home))
    assert [one.append(update()), other.append(update(2)), one.append(update(3)), other.append(decided())] == [
        2,
        3,
        4,
        5,
    ]
    assert faults(site) == {}


def test_two_processes_that_write_at_once_leave_every_entry_in_one_chain(site):
    def write(which: int) -> None:
        record = Record(Site.open(site.home))
        for number in range(100):
            record.append(update(number, run=f"run-{which}"))

    writers = [SPAWN.Process(target=write, args=(which,)) for which in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert faults(site) == {}
    assert len(lines(site)) == 401
    for which in range(4):  # each in its own order
        rounds = [entry.round for entry in entries(site)[1:] if entry.run == f"run-{which}"]
        assert rounds == list(range(100))


def test_durable_entries_wait_for_the_disk_and_others_do_not(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), fsync(handle)))
    for durable in (True, False):
        record = filled(site_at(tmp_path / str(durable), durable=durable))
        synced.clear()
        record.append(update())
        assert bool(synced) == durable


def test_a_line_that_was_never_finished_is_cut_off_and_that_is_said(site):
    record = filled(site, 4)
    with record.file.open("ab") as stream:
        stream.write(b'{"number":5,"before":"')
    assert Record(site).troubles() == []
    assert "never finished" in verify(site).notes[0]
    assert faults(site) == {}
    assert record.append(update()) == 6
    mended = entries(site)[4]
    assert isinstance(mended, Mended)
    assert (mended.bytes, mended.digest) == (22, hashlib.sha256(b'{"number":5,"before":"').hexdigest())
    assert faults(site) == {}


def test_a_power_cut_that_leaves_zeros_is_a_line_never_finished(site):
    filled(site, 4)
    with (site.home / "record.jsonl").open("ab") as stream:
        stream.write(bytes(4096))
    assert Record(site).append(update()) == 6
    assert faults(site) == {}


@pytest.mark.parametrize("behind", [1, 3, 5])
def test_a_record_that_is_ahead_of_its_head_is_gone_on_with(site, behind):
    filled(site, 6)
    earlier = lines(site)[-1 - behind].head
    heads.write(site.witness, earlier, durable=False)
    assert faults(site) == {}
    assert "killed" in verify(site).notes[0]
    assert Record(site).append(update()) == 7
    assert head(site).number == 7
    assert verify(site).notes == []


def test_a_record_that_was_cut_short_is_not_written_to(site):
    filled(site, 6)
    whole = (site.home / "record.jsonl").read_bytes().splitlines()
    rewrite(site, whole[:-1])
    assert "entry 5, and its head has seen entry 6" in untrusted(Record(site).append, update())
    assert "is missing at the end" in faults(site)[6]
    rewrite(site, [])
    assert "it ends with entry 0" in untrusted(Record(site).append, update())
    (site.home / "record.jsonl").unlink()
    assert "it is gone" in untrusted(Record(site).append, update())
    assert not (site.home / "record.jsonl").exists()
    assert Record(site).troubles()
    rewrite(site, whole)
    assert Record(site).append(update()) == 7


def test_a_record_that_is_cut_short_while_it_is_open_is_noticed(site):
    record = filled(site, 6)
    whole = record.file.read_bytes().splitlines()
    rewrite(site, whole[:-2])
    assert "its head has seen entry 6" in untrusted(record.append, update())
    rewrite(site, [*whole[:-1], whole[-1].replace(b"board", b"Board")])
    assert "is not what was written" in untrusted(record.append, update())
    rewrite(site, whole)
    assert record.append(update()) == 7


@pytest.mark.parametrize("garbage", [b"\n", b"{}\n", b"\xff\xfe\n", b'{"number":7}\n'])
def test_what_is_no_entry_at_the_end_is_not_written_behind(site, garbage):
    filled(site, 6)
    with (site.home / "record.jsonl").open("ab") as stream:
        stream.write(garbage)
    assert "cannot be read" in untrusted(Record(site).append, update())


def test_another_homes_record_is_not_gone_on_with(site, tmp_path):
    filled(site, 6)
    other = site_at(tmp_path / "other")
    filled(other, 6)
    shutil.copy2(other.home / "record.jsonl", site.home / "record.jsonl")
    assert "another record" in untrusted(Record(site).append, update())
    heads.write(site.witness, head(other), durable=False)
    assert "is not what was written" in untrusted(Record(site).append, update())


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"{}")])
def test_without_its_head_a_record_is_not_trusted(site, spoil):
    filled(site, 3)
    spoil(site.witness / "record")
    untrusted(Record(site).append, update())
    assert None in faults(site)


def test_a_home_from_before_there_was_a_record_says_what_to_do(site):
    (site.witness / "record").unlink()
    (site.home / "keys" / "record.pem").unlink()
    assert "insitu-client audit verify" in untrusted(Record(site).append, update())


@pytest.mark.parametrize(
    "spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"x"), lambda file: file.chmod(0o644)]
)
def test_without_its_key_nothing_is_recorded(site, spoil):
    filled(site, 3)
    spoil(site.home / "keys" / "record.pem")
    assert "record.pem" in untrusted(Record(site).append, update())
    assert "record.pem" in faults(site)[None]


def test_another_homes_head_is_not_taken_over(tmp_path):
    witness = tmp_path / "witness"
    heads.put(_folder(witness), heads.NOTHING)
    with pytest.raises(BadInput, match="another home"):
        site_at(tmp_path / "home", witness=str(witness))


def _folder(path):
    path.mkdir()
    return path


def limited(site, size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    record = Record(Site.open(site.home))
    said = untrusted(record.append, update())
    assert "cannot be read or written" in said


@pytest.mark.parametrize("spare", [0, 1, 100, 600])
def test_a_full_disk_lets_nothing_leave_and_leaves_the_record_whole(site, spare):
    filled(site, 6)
    before = (site.home / "record.jsonl").read_bytes()
    child = SPAWN.Process(target=limited, args=(site, len(before) + spare))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert (site.home / "record.jsonl").read_bytes() == before
    assert Record(site).append(update()) == 7
    assert faults(site) == {}


def test_a_record_that_cannot_be_written_lets_nothing_leave(site, monkeypatch):
    record = filled(site, 3)
    opened = os.open

    def denied(path, flags, *mode, **given):
        if str(path).endswith("record.jsonl") and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *mode, **given)

    monkeypatch.setattr(os, "open", denied)
    assert "cannot be read or written" in untrusted(record.append, update())


def test_a_disk_that_fails_after_writing_takes_the_entry_back(tmp_path, monkeypatch):
    site = site_at(tmp_path / "home", durable=True)
    record = filled(site, 3)
    before = record.file.read_bytes()

    def fails(handle):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        untrusted(record.append, update())
    assert record.file.read_bytes() == before
    assert record.append(update()) == 4


def test_an_entry_without_waiting_for_the_disk_is_quick_however_long_the_record_is(site):
    record = filled(site, 1500)
    begin = time.perf_counter()
    for number in range(200):
        record.append(update(number))
    assert (time.perf_counter() - begin) / 200 < 3e-3  # .12 ms where nothing else runs


@pytest.mark.parametrize(
    "wrong",
    [
        {"job": "x"},
        {"name": "Smith, John"},
        {"run": "a b"},
        {"dataset": "../x"},
        {"content": "short"},
        {"numbers": {"Dice of Smith": 1.0}},
        {"numbers": {"dice": float("nan")}},
        {"message": "Scan"},
        {"norm": float("inf")},
        {"patient": "Smith"},
    ],
)
def test_no_text_that_could_name_a_patient_fits_into_an_entry(wrong):
    with pytest.raises(ValidationError):
        update(**wrong)


def test_an_epsilon_without_bound_is_a_number_all_the_same(site):
    Record(site).append(update(private=True, epsilon=float("inf"), norm=0.0, numbers={}))
    assert entries(site)[1].epsilon == 1e6
    assert faults(site) == {}


def test_the_operators_reason_is_one_line_whatever_was_typed(site):
    entry = decided(reason="ethics\nboard\x1b[31m \ud800 " + "x" * 3000)
    assert entry.reason.startswith("ethics board [31m ? xxx")
    assert entry.reason.endswith("…")
    Record(site).append(entry)
    assert entries(site)[1].job == JOB
    assert faults(site) == {}
