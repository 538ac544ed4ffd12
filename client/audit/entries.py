"""What the record holds. No patient can be in it: texts are names, digests and codes of a fixed form.

The one free text is the operator's own: the reason of a decision.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from shared.declared import SITE_NAME
from shared.errors import RefusalCode

_LONGEST = 2000
_NO_BOUND = 1e6


def _plain(text: object) -> object:
    """One line, without what a terminal would act on; what is too long ends with an ellipsis."""
    if not isinstance(text, str):
        return text
    said = text.encode("utf-8", "replace").decode()
    said = " ".join("".join(sign if sign.isprintable() else " " for sign in said).split())
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"


def _finite(epsilon: object) -> object:
    return min(epsilon, _NO_BOUND) if isinstance(epsilon, float) else epsilon


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MaybeDigest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Hexadecimal = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$", max_length=512)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")]
Run = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,128}$")]
Number = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}(\.[0-9]{1,3})?$")]
Request = Annotated[str, Field(pattern=r"^(Offer|TrainRequest|EvaluateRequest)$")]
Answer = Annotated[str, Field(pattern=r"^(Accepted|Update|Figures)$")]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,31}$")]
Said = Annotated[str, BeforeValidator(_plain)]
Epsilon = Annotated[float, BeforeValidator(_finite), Field(ge=0)]
Whole = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Head(_Strict):
    """How far a record has got: the number of its last entry and that entry's link; 0 and no link before the first.

    Whoever keeps one elsewhere can prove later that nothing before it was changed since.
    """

    number: Whole
    link: MaybeDigest

    def __str__(self) -> str:
        return f"{self.number}:{self.link}"


class _Entry(_Strict):
    """What every entry says.

    Attributes:
        time: when it was written (seconds since 1970).
        policy: SHA-256 of site.toml as it was in force; `Record.append` fills it in.
    """

    time: float = Field(default_factory=time.time)
    policy: MaybeDigest = ""


class Began(_Entry):
    """The first entry of a record.

    Attributes:
        site: its name.
        key: the public key (Ed25519, raw) that the record is signed with.
        site_key, endorsement: the public half (DER) of the site's own key, keys/site.pem, and its signature over `key`:
            the coordinator knows the site by that key. Empty where the site had none yet.
        settled: charges of the ledger up to this number were answered before there was this record.
        after: how far the record before it had got, as far as known; None for a site's first.
        found, reason: what was wrong with that one, and what the operator said of it.
    """

    kind: Literal["began"] = "began"
    version: Literal[1] = 1
    site: Annotated[str, Field(pattern=SITE_NAME)]
    key: Digest
    site_key: Hexadecimal = ""
    endorsement: Hexadecimal = ""
    settled: Whole = 0
    after: Head | None = None
    found: Said = ""
    reason: Said = ""


class Released(_Entry):
    """A reply that left, written before it did: it may not have arrived.

    Attributes:
        message: what kind of reply.
        job, name, run, round: what it was asked for.
        dataset: whose patients.
        private: whether the job promises privacy.
        arrays, structure: how many there are in it, and SHA-256 over their names, shapes and dtypes.
        bytes: of the arrays and the numbers.
        content: SHA-256 over both.
        norm: L2 norm of what training here changed in the model that came.
        numbers: the figures that left.
        epsilon: what the dataset has spent after it, at most; None where it cost none; 1,000,000 where there is no
            bound.
        charges: number and link of each entry of the ledger that pays for it.
        again: whether it is a stored reply, sent again; what it cost is where it was sent first.
    """

    kind: Literal["released"] = "released"
    message: Answer
    job: Digest
    name: Name
    run: Run = ""
    round: Whole = 0
    dataset: Name = ""
    private: bool
    arrays: Whole = 0
    structure: MaybeDigest = ""
    bytes: Whole = 0
    content: Digest
    norm: Annotated[float, Field(ge=0)] = 0.0
    numbers: dict[Number, float] = {}
    epsilon: Epsilon | None = None
    charges: tuple[tuple[int, Digest], ...] = ()
    again: bool = False


class Refused(_Entry):
    """A message that was refused. Empty texts are what could not be read of it.

    Attributes:
        code: all that left.
        message: the kind of message.
        job, name, run, round: what it asked for.
    """

    kind: Literal["refused"] = "refused"
    code: RefusalCode
    message: Request
    job: MaybeDigest = ""
    name: Name = ""
    run: Run = ""
    round: Whole = 0


class Decided(_Entry):
    """A decision of the operator, or of a rule of theirs.

    Attributes:
        what: `approved`, `revoked`, `declined`, `admitted` and the like.
        job, name, dataset: about which.
        by: `operator`, or `rule` and which.
        reason: in the operator's words.
    """

    kind: Literal["decided"] = "decided"
    what: Word
    job: MaybeDigest = ""
    name: Name = ""
    dataset: Name = ""
    by: Annotated[str, Field(pattern=r"^(operator|rule [A-Za-z0-9._-]{1,64})$")]
    reason: Said = ""


class Rekeyed(_Entry):
    """Another key in the place of the site's own, by which the coordinator knows it; see `succession`.

    Attributes:
        site, key: as in `Began`.
        old_key, new_key: the public halves (DER).
        by_old: the old key's signature over the new one.
        endorsement: the new key's signature over the record's.
    """

    kind: Literal["rekeyed"] = "rekeyed"
    site: Annotated[str, Field(pattern=SITE_NAME)]
    key: Digest
    old_key: Hexadecimal
    new_key: Hexadecimal
    by_old: Hexadecimal
    endorsement: Hexadecimal


class Count(_Strict):
    """So many answers of one kind: a refusal has a code, a stored reply that was sent again has none.

    Attributes:
        message, code, job, name: as in `Refused` or `Released`; the job is empty where there were too many to tell.
        times: how many.
    """

    message: Annotated[str, Field(pattern=r"^(Offer|TrainRequest|EvaluateRequest|Update|Figures)$")]
    code: RefusalCode | None
    job: MaybeDigest
    name: Name
    times: Annotated[int, Field(ge=1)]


class Counted(_Entry):
    """Answers that have no entry of their own: the same ones again, or too many within an hour (see `counts`).

    Attributes:
        since: when the first of them was given; the last was before this entry.
        answers: all of them.
    """

    kind: Literal["counted"] = "counted"
    since: float
    answers: tuple[Count, ...]


class Mended(_Entry):
    """A last line that was never finished was cut off: a crash, or a power cut, while it was being written.

    Attributes:
        bytes: its length.
        digest: its SHA-256.
    """

    kind: Literal["mended"] = "mended"
    bytes: Annotated[int, Field(ge=1)]
    digest: Digest


AnyEntry = Began | Released | Refused | Decided | Rekeyed | Counted | Mended
parsed: TypeAdapter[AnyEntry] = TypeAdapter(Annotated[AnyEntry, Field(discriminator="kind")])
