"""`insitu-client audit`, as the hospital's engineer or data protection officer types it."""

import json

import pytest
from recording import JOB, OTHER, decided, filled, head, lines, refusal, rewrite, site_at, update

from client.audit import Record
from client.audit.cli import parse_head, parse_time
from client.cli import app
from shared.console import run
from shared.errors import BadInput


@pytest.fixture
def insitu(site, monkeypatch, capsys):
    """Run `insitu-client …` on a home: exit code, stdout, stderr."""
    monkeypatch.setenv("INSITU_HOME", str(site.home))
    monkeypatch.setenv("COLUMNS", "220")

    def command(*arguments):
        with pytest.raises(SystemExit) as end:
            run(app, list(map(str, arguments)))
        said = capsys.readouterr()
        return end.value.code, said.out, " ".join(said.err.split())

    return command


@pytest.fixture
def busy(site):
    """A record with something of every kind."""
    record = Record(site)
    record.append(decided(time=1e9))
    record.append(update(1, epsilon=2.345, private=True, norm=0.0, numbers={}, time=1.1e9))
    record.append(refusal("over_budget", job=OTHER, name="livers", run="run-9", round=3, time=1.2e9))
    record.append(refusal("over_budget", job=OTHER, name="livers", run="run-9", round=4, time=1.2e9))
    return record


def test_a_new_home_has_nothing_to_show_and_nothing_wrong(insitu):
    assert insitu("audit")[:2] == (0, "")
    assert insitu("audit", "--json")[:2] == (0, "[]\n")
    code, out, _ = insitu("audit", "verify")
    assert code == 0
    assert "0 entries, each as it was written" in out


def test_the_table_says_what_left_for_whom_how_much_and_why_not(insitu, busy):
    code, out, err = insitu("audit")
    assert code == 0
    for words in ("Update left", "refused (over_budget)", "approved, by operator", "lesions", "run-1", "4096", "2.345"):
        assert words in out
    assert "the record began" in out
    assert "counted, and not yet an entry: 1 × TrainRequest refused (over_budget) of livers bbbbbbbbbbbb" in err


def test_as_json_every_entry_is_there_whole(insitu, busy, site):
    code, out, _ = insitu("audit", "--json")
    assert code == 0
    shown = json.loads(out)
    assert [entry["kind"] for entry in shown] == ["began", "decided", "released", "refused"]
    assert [entry["link"] for entry in shown] == [line.link for line in lines(site)]
    assert shown[2]["epsilon"] == 2.345
    assert shown[3]["code"] == "over_budget"


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["--job", "livers"], [4]),
        (["--job", JOB[:6]], [2, 3]),
        (["--job", "aa"], []),
        (["--last", 2], [3, 4]),
        (["--job", "lesions", "--last", 1], [3]),
        (["--since", "2006-01-01", "--job", "livers"], [4]),
        (["--since", "2003-01-01", "--job", "lesions"], [3]),
        (["--since", "2099-01-01"], []),
    ],
)
def test_entries_are_chosen_by_job_time_and_number(insitu, busy, arguments, numbers):
    assert [entry["number"] for entry in json.loads(insitu("audit", *arguments, "--json")[1])] == numbers


def test_verify_says_the_head_and_holds_an_earlier_one_against_the_record(insitu, busy, site):
    code, out, _ = insitu("audit", "verify")
    assert code == 0
    assert str(head(site)) in out
    assert insitu("audit", "verify", "--head", head(site))[0] == 0
    code, out, _ = insitu("audit", "verify", "--head", f"2:{'0' * 64}")
    assert code == 1
    assert "WRONG: entry 2 is another one than the earlier head has seen" in out


def test_verify_names_what_is_wrong_and_what_to_do_and_exits_with_1(insitu, site):
    filled(site, 6)
    rewrite(site, [line.encoded()[:-1] for line in lines(site) if line.number != 4])
    code, out, _ = insitu("audit", "verify")
    assert code == 1
    assert "WRONG: entry 4 is missing: taken out." in out
    assert "What to do:" in out
    code, out, _ = insitu("audit", "verify", "--json")
    assert code == 1
    facts = json.loads(out)
    [fault] = facts["faults"]
    assert fault["number"] == 4
    assert fault["do"]
    assert facts["entries"] == 5
    assert facts["site"] == "north"
    assert "wrong with this record" in insitu("audit")[2]


def test_verify_as_json_says_nothing_is_wrong(insitu, site):
    filled(site, 6)
    code, out, _ = insitu("audit", "verify", "--json")
    assert code == 0
    assert json.loads(out) == {
        "site": "north",
        "key": json.loads(lines(site)[0].body)["key"],
        "entries": 6,
        "head": head(site).model_dump(),
        "faults": [],
        "notes": [],
        "pending": [],
    }


def test_a_record_that_is_not_trusted_is_set_aside_with_a_reason_and_not_beside_a_daemon(insitu, site):
    filled(site, 6)
    assert "nothing to accept" in insitu("audit", "accept", "--reason", "x")[2]
    (site.home / "record.jsonl").unlink()
    assert insitu("audit", "accept", "--reason", " ")[0] == 2
    assert insitu("audit", "accept")[0] == 2
    with site.claimed():
        assert insitu("audit", "accept", "--reason", "x")[0] == 2
    assert insitu("audit", "verify")[0] == 1
    code, _, err = insitu("audit", "accept", "--reason", "the disk failed")
    assert code == 0
    assert "entry 7" in err
    code, out, _ = insitu("audit", "verify")
    assert code == 0
    assert "the operator said: the disk failed" in out


def test_an_export_is_a_page_or_a_table(insitu, busy, site, tmp_path):
    for name, words in (("record.html", "<!doctype html>"), ("record.csv", "number,time,what")):
        code, _, err = insitu("audit", "export", "--out", tmp_path / name)
        assert code == 0
        assert str(head(site)) in err
        assert (tmp_path / name).read_text().startswith(words)
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert insitu("audit", "export", "--out", tmp_path / "record.pdf")[0] == 2
    assert insitu("audit", "export", "--out", tmp_path / "nowhere" / "record.csv")[0] == 2
    assert insitu("audit", "export")[0] == 2


def test_a_home_has_to_be_named_and_to_be_one(insitu, monkeypatch, tmp_path):
    assert insitu("audit", "verify", "--home", tmp_path / "nowhere")[0] == 2
    monkeypatch.delenv("INSITU_HOME")
    assert insitu("audit")[0] == 2
    assert insitu("audit", "verify")[0] == 2


@pytest.mark.parametrize("text", ["", "5", "5:", "x:" + "0" * 64, "0:" + "0" * 64, "-1:" + "0" * 64, "5:xyz"])
def test_what_is_no_head_is_wrong_usage(text):
    with pytest.raises(BadInput, match="expected NUMBER:LINK"):
        parse_head(text)


def test_a_head_may_be_copied_in_capitals_or_with_blanks():
    assert parse_head(f" 12:{'AB' * 32} ").link == "ab" * 32


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "99999-01-01"])
def test_what_is_no_time_is_wrong_usage(text):
    with pytest.raises(BadInput, match="expected a day or a time"):
        parse_time(text)


def test_another_daemon_home_is_left_alone(tmp_path, insitu):
    other = site_at(tmp_path / "other")
    assert insitu("audit", "--home", other.home)[0] == 0
    assert not (other.home / "record.jsonl").exists()
