"""The report of a run: true, self-contained, and safe whatever the names in it."""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from server import report
from server.summary import MEANINGS, Summary
from shared.errors import RefusalCode
from shared.job import Job

HOSPITALS = ("north", "lake", "valley")
VOID = {"meta", "img", "br", "line", "circle", "rect", "path", "link", "input"}
HOSTILE = "\"><script>alert('x')</script><img src=http://example.org/x onerror=alert(1)>"


def job(*, private: bool = True, rounds: int = 6) -> Job:
    return Job.from_dict(
        {
            "name": "liver-lesions",
            "task": "segmentation",
            "classes": ["background", "organ", "lesion"],
            "images": {"size": [96, 96]},
            "network": {"name": "UNet"},
            "privacy": {"epsilon": 8.0} if private else {"mode": "none"},
            "federation": {"rounds": rounds},
        }
    )


def summary(*, private: bool = True, hospitals: tuple[str, ...] = HOSPITALS) -> dict[str, Any]:
    """A finished run: the last hospital is late in round 3, the first is over budget in the last round."""
    declared = job(private=private)
    missing = {3: {hospitals[-1]: "late"}, 6: {hospitals[0]: "over_budget"}}
    spent = {"epsilon": 7.9631, "delta": 1e-5, "noise_multiplier": 1.1, "sample_rate": 0.05, "steps": 150}
    rounds = [
        {
            "round": number,
            "seconds": 1.5,
            "contributed": [name for name in hospitals if name not in missing.get(number, {})],
            "missing": missing.get(number, {}),
            "sites": {name: {"dice": 0.8 - math.exp(-number) + 0.01 * at} for at, name in enumerate(hospitals)},
        }
        for number in range(1, 7)
    ]
    after = {name: 0.80 + 0.01 * at for at, name in enumerate(hospitals)}
    arms = {f"alone:{own}": {name: 0.77 if name == own else 0.6 for name in hospitals} for own in hospitals}
    arms |= {"pooled": dict.fromkeys(hospitals, 0.86), "federated-private": after}
    return {
        "job": declared.model_dump(mode="json", exclude_none=True),
        "digest": declared.digest,
        "engine": "process",
        "algorithm": "fedavg",
        "seconds": 95.2,
        "versions": {"torch": "2.13.0"},
        "figures": "exact, as only a simulation may",
        "sites": {
            name: {
                "patients": {"train": 40 + at, "validation": 8, "test": 12},
                "before": {"dice": 0.1},
                "after": {"dice": after[name], "dice.2": 0.71, "hausdorff95": 4.25, "patients": 12.0},
                "privacy": spent if private else None,
            }
            for at, name in enumerate(hospitals)
        },
        "mean": {"dice": 0.81},
        "worst": {"dice": 0.80},
        "rounds": rounds,
        "arms": {
            arm: {
                "sites": {name: {"dice": value} for name, value in row.items()},
                "mean": {"dice": sum(row.values()) / 3},
            }
            for arm, row in arms.items()
        },
    }


def failed() -> dict[str, Any]:
    """A run that ended in round 3."""
    whole = summary()
    return {
        **{key: whole[key] for key in ("job", "digest", "engine", "algorithm", "seconds", "versions")},
        "status": "failed",
        "message": "round 3: 1 of 3 sites contributed, 2 needed",
        "sites": {},
        "rounds": whole["rounds"][:2],
    }


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 40, 40)).save(file, "PNG")
    return file.getvalue()


class Page(HTMLParser):
    """What is on a page: every element with its attributes, the text, and whether everything that opens closes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_says_what_the_summary_says():
    text = Page(report.render(summary())).text
    assert "liver-lesions" in text
    assert summary()["digest"] in text
    assert "north 40 8 12 7.97 1e-05 0.100 0.800 0.770" in text
    assert "valley 42 8 12 7.97 1e-05 0.100 0.820 0.770" in text
    assert "pooled 0.860 ▲ 0.860 ▲ 0.860 ▲ 0.860 ▲ 0.860 ▲" in text
    assert "north alone 0.770 0.600 0.600 0.657 0.600" in text
    assert "dice, lesion 0.710 0.710 0.710" in text
    assert "patients 12 12 12" in text
    assert 'name = "UNet"' in text
    assert "did not complete" not in text


def test_the_claim_about_privacy_is_the_accountants_own():
    from shared.accounting import CLAIM

    assert " ".join(CLAIM.split()) in Page(report.render(summary())).text


def test_epsilon_is_never_rounded_down():
    data = summary()
    data["sites"]["north"]["privacy"] = {**data["sites"]["north"]["privacy"], "epsilon": 7.9901}
    assert "north 40 8 12 8.00" in Page(report.render(data)).text


def test_it_says_who_was_missing_in_which_round_and_why():
    text = Page(report.render(summary())).text
    assert "north 5 of 6 ● ● ● ● ● ×" in text
    assert "valley 5 of 6 ● ● × ● ● ●" in text
    assert "north : over_budget in round 6 (the round would have exceeded the dataset's privacy budget)" in text
    assert "valley : late in round 3" in text


def test_every_refusal_code_has_a_meaning():
    assert set(RefusalCode) <= set(MEANINGS)


def test_a_job_without_privacy_is_called_unprotected():
    text = Page(report.render(summary(private=False))).text
    assert "This job has no privacy" in text
    assert "north 40 8 12 none: not protected 0.100" in text


def test_a_failed_run_gets_a_truthful_page():
    text = Page(report.render(failed())).text
    assert "This run did not complete 2 of 6 rounds were finished. Its status is failed" in text
    assert "round 3: 1 of 3 sites contributed, 2 needed" in text
    assert "north – – – – – – – –" in text


@pytest.mark.parametrize("key", sorted(summary()))
@pytest.mark.parametrize("lacking", [True, False], ids=["absent", "null"])
def test_any_part_of_the_summary_may_be_lacking(key, lacking):
    data = summary()
    if lacking:
        del data[key]
    else:
        data[key] = None
    Page(report.render(data))


def test_an_empty_summary_is_a_run_that_did_not_complete():
    assert "This run did not complete" in Page(report.render({})).text


@pytest.mark.parametrize(
    "data", [summary(), summary(private=False), failed(), {}], ids=["private", "plain", "failed", "empty"]
)
def test_the_page_needs_nothing_from_anywhere(data):
    html = report.render(data, [report.Overlay("north", "example 1", png())])
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {name for name, _ in page.elements}
    assert "://" not in html
    assert not re.search(r"url\(|@import", html)
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "srcset", "xlink:href")]
        assert (attributes.get("src") or "data:").startswith("data:image/png;base64,") or "src" not in attributes
    policy = [item for item in page.all("meta") if item.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_names_from_outside_are_text_and_nothing_else():
    data = summary(hospitals=("north", HOSTILE, "valley"))
    data["job"] = {**data["job"], "name": HOSTILE, "classes": ["background", HOSTILE]}
    data |= {
        "status": HOSTILE,
        "message": HOSTILE,
        "engine": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "algorithm": HOSTILE,
    }
    data["rounds"][0]["missing"] = {HOSTILE: HOSTILE}
    page = Page(report.render(data, [report.Overlay(HOSTILE, HOSTILE, png())]))
    assert page.all("script") == []
    assert len(page.all("img")) == 1
    assert HOSTILE in "".join(page.words)


def test_every_table_and_picture_is_described():
    html = report.render(summary(), [report.Overlay("north", "example 1", png())])
    page = Page(html)
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(item.get("alt") for item in page.all("img"))
    assert all(item.get("aria-label") for item in page.all("svg") if item.get("role") == "img")
    assert all(item.get("scope") for item in page.all("th"))
    headings = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert headings[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(headings))


def test_many_hospitals_and_rounds_stay_a_small_page():
    data = summary(hospitals=tuple(f"hospital-{number:02d}" for number in range(50)))
    data["rounds"] = [{**data["rounds"][0], "round": number} for number in range(1, 301)]
    html = report.render(data)
    Page(html)
    assert len(html) < 3_000_000


def test_the_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "report.html"
    report.write(path, failed())
    report.write(path, summary())
    assert path.read_text() == report.render(summary())
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


def test_a_mean_needs_all_hospitals():
    data = summary()
    del data["sites"]["lake"]["before"]
    assert Summary(data).mean_of("before") is None
    assert Summary(data).mean_alone == pytest.approx(0.77)


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --window-size=900,1200"
)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("scheme", "bright"), [("0", False), ("1", True)], ids=["dark", "light"])
def test_a_browser_shows_it_in_light_and_dark(tmp_path, scheme, bright):
    path = tmp_path / "report.html"
    report.write(path, summary(), [report.Overlay("north", "example 1", png())])
    picture = browse(path, f"--blink-settings=preferredColorScheme={scheme}", "--screenshot={}", "shot.png")
    with Image.open(picture) as shot:
        assert (sum(shot.convert("RGB").getpixel((2, 2))) > 600) == bright
        colours = shot.convert("RGB").getcolors(maxcolors=2**24)
        assert colours is not None
        assert len(colours) > 50, "the page is empty"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_prints_it(tmp_path):
    path = tmp_path / "report.html"
    report.write(path, summary())
    printed = browse(path, "--no-pdf-header-footer", "--print-to-pdf={}", "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", printed)) < 10


def browse(path: Path, setting: str, output: str, name: str) -> Path:
    made = path.with_name(name)
    profile = path.with_name("profile")
    command = [BROWSER, *QUIET.split(), f"--user-data-dir={profile}", setting, output.format(made), path.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return made
