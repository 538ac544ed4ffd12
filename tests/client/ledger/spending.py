"""What the tests of the ledger do with one."""

from pathlib import Path

import pytest

from client.ledger import Ledger, Round
from client.site import DatasetRules, Site, SiteConfig
from shared.errors import RefusalCode, Refused

CHARGE = (1.0, 0.1, 10)  # ε = 2.86 at δ = 1e-5, .90 at 1e-2; seven of them 5.98 at 1e-5


def site_at(home: Path, **datasets: dict) -> Site:
    rules = {name: DatasetRules(**given) for name, given in datasets.items()}
    return Site.create(home, SiteConfig(name="north", datasets=rules))


def rewrite(ledger: Ledger, **datasets: dict) -> Ledger:
    """The same ledger, after the operator has changed site.toml."""
    rules = {name: DatasetRules(**given) for name, given in datasets.items()}
    site = Site(ledger.site.home, ledger.site.config.model_copy(update={"datasets": rules}))
    site.write_config()
    return Ledger(Site.open(site.home))


def of(number=1, job="a" * 64, run="run") -> Round:
    return Round(job=job, name="lesions", run=run, number=number, model="m" * 64)


def reserve(ledger, charge=CHARGE, dataset="data", planned=0, split="train", **which) -> int:
    return ledger.reserve(dataset, charge, of=of(**which), planned=planned, split=split)


def refused(code: RefusalCode, what, *args, **kwargs) -> str:
    """What is said when this is refused."""
    with pytest.raises(Refused) as found:
        what(*args, **kwargs)
    assert found.value.code == code
    return found.value.detail


def over_budget(*args, **kwargs) -> str:
    return refused(RefusalCode.OVER_BUDGET, reserve, *args, **kwargs)


def untrusted(ledger) -> str:
    """What is said of a ledger that is not trusted; nothing can be done with it."""
    said = {
        refused(RefusalCode.LEDGER, ask) for ask in (lambda: reserve(ledger), ledger.read, lambda: ledger.spent("data"))
    }
    return " ".join(sorted(said))
