"""Whatever is charged, killed, put back, lost or accepted: a ledger that is trusted knows all that was acted on."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from spending import of, over_budget, reserve, site_at, untrusted

from client.ledger import Ledger, journal
from client.ledger.acceptance import accept, examine
from client.site import Site
from shared import accounting
from shared.errors import Refused

charges = st.tuples(st.sampled_from([0.7, 1.0, 2.0]), st.sampled_from([0.05, 0.2]), st.integers(0, 40))


@settings(max_examples=8, deadline=None)
@given(st.lists(charges, max_size=6))
def test_what_is_spent_never_falls_and_never_exceeds_the_budget(wanted):
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(site_at(Path(folder) / "home", data={"epsilon": 5.0, "delta": 1e-4}))
        history, spent = [], 0.0
        for charge in wanted:
            if accounting.within([*history, charge], delta=1e-4, epsilon=5.0):
                reserve(ledger, charge=charge)
                history.append(charge)
            else:
                over_budget(ledger, charge=charge)
            now = ledger.spent("data")
            assert spent - 2e-3 <= now <= 5.0  # the numerical bound's grid moves a little
            spent = now
        assert accounting.epsilon(history, delta=1e-4) == spent


class AHome(RuleBasedStateMachine):
    """`acted` counts what a ledger said yes to, in steps of each job; it is never told what becomes of the files."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.home = site_at(self.folder / "home", data={"epsilon": 1e6, "delta": 1e-4}).home
        self.acted = {"a" * 64: 0, "b" * 64: 0}
        self.copies: list[Path] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def ledger(self) -> Ledger:
        return Ledger(Site.open(self.home))

    @rule(job=st.sampled_from("ab"), steps=st.integers(1, 9), number=st.integers(1, 3))
    def reserve(self, job: str, steps: int, number: int) -> None:
        try:
            reserve(self.ledger, charge=(50.0, 0.01, steps), job=job * 64, number=number)
        except Refused:
            return
        self.acted[job * 64] += steps

    @rule(job=st.sampled_from("ab"), number=st.integers(1, 3))
    def settle(self, job: str, number: int) -> None:
        with suppress(Refused):
            self.ledger.settle(of(number, job * 64))

    @rule()
    def die_between_the_ledger_and_its_witness(self) -> None:
        class Killed(BaseException):
            pass

        def save(*args) -> None:
            saved(*args)
            raise Killed

        saved, journal.save = journal.save, save
        try:
            reserve(self.ledger, charge=(50.0, 0.01, 1))
        except (Killed, Refused):
            pass
        finally:
            journal.save = saved

    @rule()
    def back_up(self) -> None:
        self.copies.append(Path(shutil.copytree(self.home, self.folder / f"copy-{len(self.copies)}")))

    @precondition(lambda self: self.copies)
    @rule(which=st.integers(0, 99))
    def put_the_ledger_back(self, which: int) -> None:
        file = self.copies[which % len(self.copies)] / "ledger.sqlite"
        self.ledger.file.unlink(missing_ok=True)
        if file.exists():
            shutil.copy2(file, self.ledger.file)

    @precondition(lambda self: self.copies)
    @rule(which=st.integers(0, 99))
    def put_the_home_back_over_it(self, which: int) -> None:
        shutil.copytree(self.copies[which % len(self.copies)], self.home, dirs_exist_ok=True)

    @precondition(lambda self: self.copies)
    @rule(which=st.integers(0, 99))
    def put_the_home_back_in_its_place(self, which: int) -> None:
        shutil.rmtree(self.home)
        shutil.copytree(self.copies[which % len(self.copies)], self.home)

    @rule()
    def delete_the_ledger(self) -> None:
        self.ledger.file.unlink(missing_ok=True)

    @rule(size=st.integers(0, 9000))
    def cut_the_ledger_off(self, size: int) -> None:
        if self.ledger.file.exists():
            self.ledger.file.write_bytes(self.ledger.file.read_bytes()[:size])

    @rule(folder=st.booleans())
    def lose_the_witness(self, folder: bool) -> None:
        shutil.rmtree(self.ledger.site.witness, ignore_errors=True)
        if not folder:
            self.ledger.site.witness.mkdir()

    @rule()
    def spoil_the_witness(self) -> None:
        for file in self.ledger.site.witness.glob("*.json"):
            file.write_bytes(file.read_bytes()[:-9])

    @rule()
    def decide(self) -> None:
        findings = examine(self.ledger)
        if findings.trouble is not None:
            accept(self.ledger, findings, reason="x", at_least={}, datasets=["data"])
            assert examine(self.ledger).trouble is None

    @invariant()
    def what_was_acted_on_is_known(self) -> None:
        if examine(self.ledger).trouble is not None:
            untrusted(self.ledger)
            return
        books = self.ledger.read()
        if accounting.rdp_epsilon(books.history("data"), delta=1e-4) < 1e6:
            for job, steps in self.acted.items():
                assert sum(count for *_, count in books.history("data", job=job)) >= steps


TestAHome = AHome.TestCase
TestAHome.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
