"""Whatever is done to a record, `verify` finds it and names the entry; whatever is in the file, it does not fail."""

import shutil
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from recording import decided, faults, filled, head, lines, refusal, rewrite, site_at, update

from client import credentials
from client.audit import Head, Record, chain, heads, keys
from client.audit.verification import verify

COUNT = 8


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A record of eight entries that the tests change; its lines as they were written."""
    site = site_at(tmp_path_factory.mktemp("audit") / "home")
    credentials.equip(site)
    record = filled(site, COUNT - 1)
    record.append(refusal())
    assert faults(site) == {}
    return site, (site.home / "record.jsonl").read_bytes().splitlines()


def changed(home, raws: list[bytes]) -> dict[int | None, str]:
    site, _ = home
    rewrite(site, raws)
    return faults(site)


def test_a_record_that_nobody_has_touched_is_as_it_was_written(home):
    site, raws = home
    rewrite(site, raws)
    findings = verify(site)
    assert (findings.faults, findings.notes, findings.lines) == ([], [], COUNT)
    assert findings.head == head(site)
    assert findings.key == keys.text(keys.read(site).public_key())


@settings(max_examples=150, deadline=None)
@given(st.integers(1, COUNT), st.data())
def test_any_byte_of_an_entry_that_is_changed_is_found_and_named(home, number, data):
    raw = home[1][number - 1]
    at = data.draw(st.integers(0, len(raw) - 1))
    value = data.draw(st.integers(0, 255))
    assume(value not in (raw[at], 10))
    found = changed(home, [*home[1][: number - 1], raw[:at] + bytes([value]) + raw[at + 1 :], *home[1][number:]])
    assert number in found
    assert set(found) <= {number, None}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, COUNT), st.data())
def test_any_bytes_that_are_put_in_or_taken_out_are_found_and_named(home, number, data):
    raw = home[1][number - 1]
    at = data.draw(st.integers(0, len(raw)))
    taken = data.draw(st.integers(0, 40))
    put = data.draw(st.binary(max_size=40))
    new = raw[:at] + put + raw[at + taken :]
    assume(new != raw and b"\n" not in new)
    assert number in changed(home, [*home[1][: number - 1], new, *home[1][number:]])


@pytest.mark.parametrize("number", range(1, COUNT + 1))
def test_an_entry_that_is_taken_out_is_named(home, number):
    found = changed(home, [raw for at, raw in enumerate(home[1], 1) if at != number])
    assert list(found) == [number]
    assert "missing" in found[number]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(1, COUNT), min_size=1))
def test_whichever_entries_are_taken_out_each_is_named(home, taken):
    found = changed(home, [raw for at, raw in enumerate(home[1], 1) if at not in taken])
    if len(taken) == COUNT:
        assert "to 8 are missing" in found[1]
        return
    spans = " ".join(found.values())
    for number in taken - {other + 1 for other in taken}:
        assert number in found, spans


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(COUNT)))
def test_entries_in_another_order_are_found(home, order):
    assume(list(order) != list(range(COUNT)))
    found = changed(home, [home[1][at] for at in order])
    assert any("order was changed" in what for what in found.values())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, COUNT - 1), st.integers(0, COUNT))
def test_an_entry_that_stands_there_twice_is_named(home, which, at):
    found = changed(home, [*home[1][:at], home[1][which], *home[1][at:]])
    assert "second time" in found[which + 1]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_file_that_is_cut_short_anywhere_is_found(home, data):
    site, raws = home
    whole = b"".join(raw + b"\n" for raw in raws)
    size = data.draw(st.integers(0, len(whole) - 1))
    (site.home / "record.jsonl").write_bytes(whole[:size])
    last = whole[:size].count(b"\n")
    found = faults(site)
    assert list(found) == [last + 1]
    assert "missing at the end" in found[last + 1]


def test_a_file_that_is_gone_is_found(home):
    site, raws = home
    rewrite(site, raws)
    (site.home / "record.jsonl").unlink()
    found = faults(site)
    assert "is gone" in found[None]
    assert "to 8 are missing" in found[1]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["alone", "before", "after", "between"]))
@example(b"", "alone")
@example(b"\n\n\n", "between")
@example(b'{"number":1,"before":"","body":{},"link":"' + b"0" * 64 + b'","signature":"' + b"0" * 128 + b'"}', "alone")
def test_whatever_is_in_the_file_verify_says_so_and_does_not_fail(home, garbage, where):
    site, raws = home
    whole = b"".join(raw + b"\n" for raw in raws)
    middle = len(whole) // 2
    data = {
        "alone": garbage,
        "before": garbage + whole,
        "after": whole + garbage,
        "between": whole[:middle] + garbage + whole[middle:],
    }[where]
    (site.home / "record.jsonl").write_bytes(data)
    findings = verify(site)
    assert findings.faults or data == whole or (where == "after" and b"\n" not in garbage and findings.notes)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=600))
def test_whatever_is_in_the_head_or_the_counts_verify_does_not_fail(home, garbage):
    site, raws = home
    rewrite(site, raws)
    kept = (site.witness / "record").read_bytes()
    try:
        (site.witness / "record").write_bytes(garbage)
        (site.home / "record.counts").write_bytes(garbage)
        assert "head" in faults(site)[None]
    finally:
        (site.witness / "record").write_bytes(kept)
        (site.home / "record.counts").unlink()


def resigned(raws: list[bytes], key, at: int) -> list[bytes]:
    """The lines from `at` on, chained anew to one that was changed, and signed with a key."""
    parsed = [chain.parse(raw) for raw in raws]
    kept = parsed[:at]
    for line in parsed[at:]:
        body = line.body.replace('"north"', '"north"').replace("lesions", "harmless")
        before = kept[-1].link if kept else ""
        kept.append(chain.signed(key, before=before, number=line.number, body=body))
    return [line.encoded()[:-1] for line in kept]


def test_a_chain_that_is_made_anew_without_the_sites_key_is_found(home, tmp_path):
    site, raws = home
    other = keys.read(site_at(tmp_path / "other"))
    rewrite(site, resigned(raws, other, 4))
    found = faults(site)
    assert {5, 6, 7, 8} <= set(found)
    assert all("is not what was written" in found[number] for number in (5, 6, 7, 8))


def test_a_whole_record_that_another_key_has_signed_is_found_once(home, tmp_path):
    site, raws = home
    other = keys.read(site_at(tmp_path / "other"))
    ours, theirs = keys.text(keys.read(site).public_key()), keys.text(other.public_key())
    rewrite(site, resigned([raws[0].replace(ours.encode(), theirs.encode()), *raws[1:]], other, 0))
    found = faults(site)
    assert "another key" in found[1]
    assert "not valid" in found[1]  # what the site's own key has signed is another key
    assert set(found) == {1, 8}
    assert "another record" in found[8]


def test_whoever_has_the_key_can_write_another_record_and_an_earlier_head_finds_it(home):
    site, raws = home
    rewrite(site, raws)
    noted, kept = verify(site).head, (site.witness / "record").read_bytes()
    assert faults(site, earlier=noted) == {}
    try:
        rewrite(site, resigned(raws, keys.read(site), 2))
        heads.write(site.witness, lines(site)[-1].head, durable=False)
        assert faults(site) == {}  # as the documents say
        assert "written anew" in faults(site, earlier=noted)[8]
        assert faults(site, earlier=chain.parse(raws[1]).head) == {}
    finally:
        (site.witness / "record").write_bytes(kept)


def test_an_earlier_head_has_to_lie_on_the_chain(home):
    site, raws = home
    rewrite(site, raws)
    for raw in raws:
        assert faults(site, earlier=chain.parse(raw).head) == {}
    assert "is not here" in faults(site, earlier=Head(number=9, link="0" * 64))[9]
    assert "written anew" in faults(site, earlier=Head(number=3, link="0" * 64))[3]


def test_two_homes_that_went_on_with_one_record_are_found(site, tmp_path):
    filled(site, 4)
    shutil.copytree(site.home, tmp_path / "copy")
    Record(site).append(update(7))
    other = type(site).open(tmp_path / "copy")
    Record(other).append(update(8))
    Record(other).append(update(9))
    raws = (site.home / "record.jsonl").read_bytes().splitlines()
    rewrite(site, [*raws, (other.home / "record.jsonl").read_bytes().splitlines()[-1]])
    assert "follows on another entry 5" in faults(site)[6]


def test_what_another_version_has_signed_is_named_and_not_taken_for_a_forgery(site):
    filled(site, 3)
    last = lines(site)[-1]
    line = chain.signed(keys.read(site), before=last.link, number=4, body='{"kind":"dreamt","time":1.0}')
    with (site.home / "record.jsonl").open("ab") as stream:
        stream.write(line.encoded())
    assert "none of this version" in faults(site)[4]


def test_a_key_that_the_site_does_not_vouch_for_is_found(site):
    filled(site, 3)
    assert verify(site).notes == []
    credentials.equip(site)
    assert "has not signed it" in verify(site).notes[0]


def test_another_site_key_than_the_one_that_vouched_is_found(tmp_path):
    site = site_at(tmp_path / "home")
    credentials.equip(site)
    filled(site, 3)
    credentials.equip(site)
    assert "another site key" in faults(site)[1]


def test_a_record_of_another_site_is_found(home, tmp_path):
    site, raws = home
    rewrite(site, raws)
    shutil.copytree(site.home, tmp_path / "copy")
    file = Path(tmp_path / "copy" / "site.toml")
    file.write_text(file.read_text().replace('"north"', '"lake"'))
    assert "is of site north" in faults(type(site).open(tmp_path / "copy"))[1]


def test_verify_changes_nothing(home):
    site, raws = home
    rewrite(site, [*raws[:3], *raws[4:]])
    before = {path: path.read_bytes() for path in site.home.rglob("*") if path.is_file()}
    verify(site)
    assert {path: path.read_bytes() for path in site.home.rglob("*") if path.is_file()} == before


def test_a_record_may_be_verified_while_it_is_written(site):
    record = filled(site, 3)
    with pytest.MonkeyPatch.context() as patch:
        from client.audit import reconciliation

        kept = reconciliation.kept
        patch.setattr(reconciliation, "kept", lambda site: (verify_again(site), kept(site))[1])
        assert faults(site) == {}
    record.append(decided())


def verify_again(site) -> None:
    """Readers do not wait for each other."""
    from client.audit import files

    with files.locked(site.home / "record.jsonl", write=False) as handle:
        assert files.contents(handle)
