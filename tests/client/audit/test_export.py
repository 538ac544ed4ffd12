"""What is filed: true, self-contained, without scripts, and safe in a spreadsheet whatever the operator typed."""

import csv
import io
from html.parser import HTMLParser

import pytest
from recording import JOB, OTHER, decided, filled, head, lines, refusal, rewrite, update

from client.audit import Record, export, overview
from client.audit.verification import verify
from client.ledger import Ledger, Round
from shared import accounting
from shared.accounting import CLAIM

HOSTILE = "\"><script>alert('x')</script><img src=http://example.org/x onerror=alert(1)>"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Every element with its attributes, the text, and whether everything that opens closes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def busy(site):
    """Two jobs: one trained under privacy, the other refused."""
    ledger, record = Ledger(site), Record(site)
    for number in (1, 2):
        of = Round(job=JOB, name="lesions", run="run-1", number=number, model="m" * 64)
        charge = ledger.reserve("data", (20.0, 0.1, 10), of=of, planned=20)
        link = ledger.read().links[charge]
        facts = {"private": True, "numbers": {}, "epsilon": 0.4321, "charges": ((charge, link),)}
        record.append(update(number, **facts, time=1e9))
        ledger.settle(of)
    record.append(update(1, again=True, private=True, norm=0.0, time=1e9))
    for number in range(5):
        record.append(refusal("epsilon_limit", job=OTHER, name="livers", time=1e9 + number))
    record.append(decided("revoked", reason=f"=cmd|' /C calc'!A0 {HOSTILE}", time=1e9 + 9000))
    return site


def page(site) -> Page:
    return Page(export.page(site, verify(site)))


def test_the_page_says_whose_it_is_how_far_it_goes_and_who_signs(busy):
    text = page(busy).text
    for words in ("north", str(head(busy)), verify(busy).key, "Verified when it was exported"):
        assert words in text
    assert f"audit verify --home HOME --head {head(busy)}" in text
    assert " ".join(CLAIM.split()) in text


def test_the_page_has_the_sums_of_every_job_and_every_entry(busy):
    text = page(busy).text
    assert f"lesions {JOB} 2 3 12,288 0 0.44" in text
    assert f"livers {OTHER} 0 0 0 5 –" in text
    assert "4 × TrainRequest refused (epsilon_limit) of livers" in text
    for line in lines(busy):
        assert line.link[:12] in text
    rows = [attributes for tag, attributes in page(busy).elements if tag == "tr"]
    assert len(rows) >= len(lines(busy))


def test_the_page_has_the_budgets_by_the_ledger(busy):
    spent = accounting.epsilon([(20.0, 0.1, 20)], delta=1e-4)
    assert f"data train {export._epsilon(spent)} 0.00 10.00 0.0001" in page(busy).text
    busy.home.joinpath("ledger.sqlite").unlink()
    assert "ledger is not trusted" in page(busy).text


def test_the_page_has_no_script_and_loads_nothing(busy):
    found = page(busy)
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "img", "link", "iframe", "object", "form", "a"})
    for _, attributes in found.elements:
        assert not any(name.startswith("on") or name in ("src", "href", "style") for name in attributes)
    policies = [one["content"] for tag, one in found.elements if one.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    html = export.page(busy, verify(busy))
    assert "http:" not in html.replace("http://example.org/x onerror", "")
    assert "@import" not in html
    assert HOSTILE in found.text


def test_a_record_that_is_not_whole_says_so_on_the_page(site):
    filled(site, 6)
    rewrite(site, [line.encoded()[:-1] for line in lines(site) if line.number != 4])
    text = page(site).text
    assert "This record is not as it was left" in text
    assert "Entry 4" in text
    assert "Verified when" not in text


def test_a_record_without_entries_is_a_page_too(site):
    assert "No entry yet" in page(site).text


def test_the_table_has_every_entry_and_no_formula(busy):
    rows = list(csv.reader(io.StringIO(export.table(busy, verify(busy)))))
    assert rows[0][: len(overview.COLUMNS)] == list(overview.COLUMNS)
    assert len(rows) == 1 + len(lines(busy))
    assert [row[-1] for row in rows[1:]] == [line.link for line in lines(busy)]
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
    assert any(cell.startswith("'=cmd|") for cell in rows[-1])


def test_epsilon_is_never_rounded_down():
    assert [export._epsilon(value) for value in (None, 0.4301, 2.0, float("inf"))] == ["–", "0.44", "2.00", "no bound"]
