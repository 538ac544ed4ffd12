"""Receipts: what a coordinator says of a round, in a form that a site can check against its own record."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Contribution(_Strict):
    """What one site contributed.

    Attributes:
        content: digest of its reply, as the site's record has it (`shared.messages.content_digest`).
        weight: with which it was added up.
    """

    content: Digest
    weight: Annotated[float, Field(ge=0)]


class Receipt(_Strict):
    """One round.

    Attributes:
        job, run, round: which; the job by its digest.
        ended: when, ISO 8601 in UTC.
        quorum: how many sites the job asks for.
        contributed: by site; their updates, and no others, are in the model.
        missing: the other sites that were asked, each with the code of why.
        model: digest of the new global model.
    """

    job: Digest
    run: str
    round: Annotated[int, Field(ge=1)]
    ended: str
    quorum: int
    contributed: dict[str, Contribution]
    missing: dict[str, str]
    model: Digest


class Line(_Strict):
    """A receipt as it is kept.

    Attributes:
        receipt: of a round.
        link: SHA-256 over the link of the line before and the receipt.
        certificate: of the coordinator (PEM); empty where nothing is signed.
        signature: over the link, with the certificate's key (ECDSA, SHA-384), base64.
    """

    receipt: Receipt
    link: Digest
    certificate: str = ""
    signature: str = ""


def linked(before: str, receipt: Receipt) -> str:
    """The link of a receipt."""
    text = json.dumps(receipt.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()
