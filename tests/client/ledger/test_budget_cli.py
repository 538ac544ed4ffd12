"""`insitu-client budget`, as the hospital's engineer types it."""

import json

import pytest
from spending import of, reserve, rewrite, untrusted

from client.cli import app
from client.ledger import Ledger
from client.ledger.cli import parse_presumed
from client.site import Site
from shared import accounting
from shared.console import run
from shared.errors import BadInput


@pytest.fixture
def insitu(ledger, monkeypatch, capsys):
    """Run `insitu-client …` on a home: exit code, stdout, stderr."""
    monkeypatch.setenv("INSITU_HOME", str(ledger.site.home))
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments):
        with pytest.raises(SystemExit) as end:
            run(app, list(map(str, arguments)))
        said = capsys.readouterr()
        return end.value.code, said.out, " ".join(said.err.split())

    return command


def test_a_new_home_has_spent_nothing(insitu):
    code, out, _ = insitu("budget", "--json")
    assert code == 0
    [shown] = json.loads(out)["datasets"]
    assert shown == {
        "dataset": "data",
        "split": "train",
        "epsilon": 6.0,
        "delta": 1e-5,
        "spent": 0.0,
        "reserved": 0.0,
        "left": 6.0,
    }


def test_what_is_spent_reserved_and_left_add_up_to_the_budget(insitu, ledger):
    for number in (1, 2):
        reserve(ledger, number=number)
        ledger.settle(of(number))
    reserve(ledger, number=3, job="b" * 64)
    shown = json.loads(insitu("budget", "--json")[1])
    [data] = shown["datasets"]
    assert data["spent"] == accounting.epsilon([(1.0, 0.1, 20)], delta=1e-5)
    assert data["spent"] + data["reserved"] == pytest.approx(ledger.spent("data"))
    assert data["spent"] + data["reserved"] + data["left"] == pytest.approx(6.0)
    assert shown["claim"] == accounting.CLAIM


def test_every_job_says_what_it_spent_and_what_one_more_round_would_cost(insitu, ledger):
    reserve(ledger)
    reserve(ledger)
    reserve(ledger, charge=(2.0, 0.2, 5), job="b" * 64)
    first, second = json.loads(insitu("budget", "--json")[1])["jobs"]
    assert (first["job"], first["digest"], first["rounds"], first["charges"]) == ("lesions", "a" * 64, 1, 2)
    assert first["epsilon"] == accounting.epsilon([(1.0, 0.1, 20)], delta=1e-5)
    assert first["after"] == accounting.epsilon([(1.0, 0.1, 30), (2.0, 0.2, 5)], delta=1e-5)
    assert second["after"] == accounting.epsilon([(1.0, 0.1, 20), (2.0, 0.2, 10)], delta=1e-5)
    assert not first["at_most"]


def test_with_many_jobs_the_next_round_is_bounded_quickly(insitu, ledger, monkeypatch):
    for number in range(5):
        reserve(ledger, charge=(20.0 + number, 0.01, 1), job=str(number) * 64)
    monkeypatch.setattr("shared.accounting.epsilon", accounting.rdp_epsilon)  # the numerical one takes seconds here
    jobs = json.loads(insitu("budget", "--json")[1])["jobs"]
    assert all(job["at_most"] for job in jobs)
    assert "at most" in insitu("budget")[1]


def test_the_claim_stands_beside_every_table(insitu, ledger):
    reserve(ledger)
    code, out, err = insitu("budget")
    assert code == 0
    assert "lesions" in out
    assert "aaaaaaaaaaaa" in out
    assert " ".join(accounting.CLAIM.split()) in err


def test_a_registered_dataset_is_shown_before_anything_is_spent(insitu, ledger, manifest):
    from client.data.registry import Registry

    Registry(ledger.site).add("skin", manifest)
    rows = json.loads(insitu("budget", "--json")[1])["datasets"]
    assert [(shown["dataset"], shown["left"]) for shown in rows] == [("data", 6.0), ("skin", 10.0)]


def test_raising_a_budget_is_shown_with_its_reason(insitu, ledger):
    reserve(ledger)
    rewrite(ledger, data={"epsilon": 20.0, "delta": 1e-5})
    assert "does not count" in insitu("status")[1]
    assert "does not count" in insitu("budget")[2]
    code, _, err = insitu("budget", "raise", "data", "--epsilon", 20, "--reason", "ethics board")
    assert code == 0
    assert "ε = 20" in err
    shown = json.loads(insitu("budget", "--json")[1])
    assert shown["datasets"][0]["epsilon"] == 20.0
    assert [(entry["what"], entry["reason"]) for entry in shown["decisions"]][1:] == [
        ("data: budget ε = 20, δ = 1e-05", "ethics board")
    ]
    assert shown["ignored"] == json.loads(insitu("status", "--json")[1])["budget"] == []


def test_a_raise_that_site_toml_lowers_says_so(insitu, ledger):
    reserve(ledger)
    code, _, err = insitu("budget", "raise", "data", "--epsilon", 20, "--reason", "ethics board")
    assert code == 0
    assert "site.toml lowers it to ε = 6" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "--epsilon", 3, "--reason", "x"],
        ["data", "--epsilon", "nan", "--reason", "x"],
        ["data", "--epsilon", 9, "--delta", 2, "--reason", "x"],
        ["data", "--epsilon", 9, "--reason", " "],
        ["data", "--epsilon", 9],
        ["other", "--epsilon", 9, "--reason", "x"],
    ],
)
def test_what_is_no_raise_is_wrong_usage(insitu, ledger, arguments):
    reserve(ledger)
    assert insitu("budget", "raise", *arguments)[0] == 2
    assert ledger.rules("data").epsilon == 6.0


def test_a_home_has_to_be_named(insitu, monkeypatch):
    monkeypatch.delenv("INSITU_HOME")
    code, _, err = insitu("budget")
    assert code == 2
    assert "--home" in err


def test_a_ledger_that_is_not_trusted_is_shown_and_accepted_only_with_a_reason(insitu, ledger):
    reserve(ledger)
    spent = ledger.spent("data")
    ledger.file.unlink()
    assert insitu("budget")[0] == 3
    assert "is not trusted" in insitu("status")[1]
    code, out, err = insitu("budget", "accept")
    assert code == 3
    assert f"{spent:.3f}" in out
    assert "nothing that was spent is missing" in err
    assert " ".join(accounting.CLAIM.split()) in err
    untrusted(ledger)
    assert insitu("budget", "accept", "--reason", " ")[0] == 2
    assert insitu("budget", "accept", "--reason", "x", "--spent-at-least", "dada=1")[0] == 2
    untrusted(ledger)
    assert insitu("budget", "accept", "--reason", "the disk failed")[0] == 0
    shown = json.loads(insitu("budget", "--json")[1])
    assert shown["datasets"][0]["spent"] == spent
    assert shown["decisions"][0]["reason"] == "the disk failed"
    assert "nothing to accept" in insitu("budget", "accept")[2]


def test_what_is_not_known_is_shown_as_spent_in_full(insitu, ledger):
    reserve(ledger)
    next(ledger.site.witness.glob("*.json")).unlink()
    code, out, err = insitu("budget", "accept")
    assert code == 3
    assert "6.000" in out
    assert "counts as spent in full" in err
    assert insitu("budget", "accept", "--reason", "x", "--spent-at-least", "data=4")[0] == 0
    shown = json.loads(insitu("budget", "--json")[1])
    assert {entry["dataset"]: 1.9 < entry["left"] <= 2.0 for entry in shown["datasets"]} == {"data": True}
    assert "data: ε = 4" in shown["decisions"][-1]["what"]


def test_nothing_is_decided_beside_a_running_daemon(insitu, ledger):
    reserve(ledger)
    ledger.file.unlink()
    with ledger.site.claimed():
        code, _, err = insitu("budget", "accept", "--reason", "x")
    assert code == 2
    assert "already running" in err
    untrusted(ledger)


@pytest.mark.parametrize("pair", ["data", "=3", "data=", "data=x", "data=-1", "data=nan", "data=inf"])
def test_what_is_presumed_is_a_dataset_and_a_number(pair):
    with pytest.raises(BadInput, match="expected DATASET=ε"):
        parse_presumed([pair])


def test_a_home_is_made_with_its_witness_on_another_disk(insitu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert insitu("init", "south", "--home", "south", "--witness", "disk")[0] == 0
    ledger = Ledger(Site.open(tmp_path / "south"))
    reserve(ledger)
    assert ledger.site.witness == tmp_path / "disk"
    assert not (tmp_path / "south" / "witness").exists()
    code, _, err = insitu("init", "west", "--home", "west", "--witness", "disk")
    assert code == 2
    assert "witness of another home" in err
    assert not (tmp_path / "west").exists()
