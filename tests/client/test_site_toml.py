"""A site.toml is read, or it is said what is wrong with it, whatever it is."""

import contextlib
import tempfile
from pathlib import Path

import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from client.site import Site, SiteConfig
from shared.errors import BadInput

sections = st.sampled_from([*SiteConfig.model_fields, "other"])
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8)
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["jobs", "epsilon", "tasks", "address", "hours", "x", "min_sites"]), inner)
    ),
    max_leaves=6,
)


def opened(content: bytes) -> Site:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "site.toml").write_bytes(content)
        return Site.open(Path(folder))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace")))
def test_whatever_is_in_the_file_it_is_a_site_or_bad_input(content):
    with contextlib.suppress(BadInput):
        opened(content)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(sections, nested, max_size=4))
def test_whatever_it_says_is_a_site_or_bad_input(data):
    with contextlib.suppress(BadInput):
        opened(tomli_w.dumps({"name": "north", **data}).encode())


def test_a_rule_can_be_added_at_the_end_of_the_file_that_was_written(tmp_path):
    Site.create(tmp_path / "home", SiteConfig(name="north"))
    with (tmp_path / "home" / "site.toml").open("a") as file:
        file.write("\n[[approve]]\njobs = ['liver-*']\n\n[datasets.liver]\nepsilon = 3.0\n")
    config = Site.open(tmp_path / "home").config
    assert [rule.jobs for rule in config.approve] == [("liver-*",)]
    assert config.datasets["liver"].epsilon == 3.0
