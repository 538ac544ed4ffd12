"""Sites kept open between messages: configuration, log, datasets and cohorts, as long as nothing under them changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import torch

from client import device, logs
from client.audit import Record
from client.data.loading import Cohort
from client.data.records import Split
from client.data.registry import Registry
from client.egress import Door
from client.jobs import Inbox
from client.ledger import Ledger
from client.replies import Replies
from client.site import Site
from shared.files import stamp
from shared.job import Job

_SITES = 128
_PER_SITE = 16

_T = TypeVar("_T")


class Recent(Generic[_T]):
    """The values made last, so many of them; one that is there is not made again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, _T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The value of this key, made now if it is not there."""
        if key not in self._values:
            self._values[key] = make()
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]


class Opened:
    """One site, open.

    Attributes:
        site: as its site.toml was when it was opened.
        ledger: of the site.
        replies: of the site.
        inbox: of the site.
        door: the one way out.
        log: `log/site.log`, in the site's home and nowhere else.
    """

    def __init__(self, home: Path) -> None:
        self.site = Site.open(home)
        self.ledger = Ledger(self.site)
        self.replies = Replies(self.site)
        self.inbox = Inbox(self.site)
        self.door = Door(self.site.config.policy, Record(self.site))
        self.log = logs.of_site(self.site.home)
        self._datasets: Recent[str] = Recent(_PER_SITE)
        self._cohorts: Recent[Cohort] = Recent(_PER_SITE)
        self._said: Recent[list[Hashable]] = Recent(_PER_SITE)

    @cached_property
    def device(self) -> torch.device:
        """Where this site computes."""
        return device.choose(self.site.config)

    def dataset(self, job: Job) -> str:
        """The dataset that this job trains on.

        Raises:
            Refused: `no_dataset`, `ambiguous_dataset` or `labels`.
        """
        return self._datasets.get((job.digest, self._registered), lambda: Registry(self.site).select(job))

    def cohort(self, job: Job, split: Split) -> Cohort:
        """The patients of one split of that dataset.

        Raises:
            Refused: as `dataset`.
        """
        dataset = self.dataset(job)
        key = (dataset, job.digest, split, self._registered)
        return self._cohorts.get(key, lambda: Cohort(self.site, dataset, job, split))

    def news(self, kind: type, digest: str, *what: Hashable) -> bool:
        """Whether this was not what was last said of such a message about this job: the log says it once."""
        last = self._said.get((kind, digest), list)
        if last == list(what):
            return False
        last[:] = what
        return True

    @property
    def _registered(self) -> Hashable:
        """Changes whenever a dataset is added or read again."""
        return stamp(self.site.home / "registry.sqlite")


_sites: Recent[Opened] = Recent(_SITES)


def at(home: Path) -> Opened:
    """The site of this home, opened anew if its site.toml has changed.

    Raises:
        BadInput: if there is no site, or its site.toml is wrong.
    """
    return _sites.get((str(home), stamp(home / "site.toml")), lambda: Opened(home))
