"""The split by patient: a keyed hash, so that it is stable when patients are added and nobody outside can predict it.

>>> of(b"k" * 32, "b1946ac92492d2347c6235b4d2611184")
'train'
"""

from __future__ import annotations

import hmac

from client.data.records import Split

# The shares of training, validation and test patients. Changing them moves patients between splits,
# which the privacy ledger rests on never happening.
TRAIN = 0.7
VALIDATION = 0.1


def of(secret: bytes, pseudonym: str) -> Split:
    """The split of a patient: .7 train, .1 validation, .2 test, by HMAC-SHA-256.

    Args:
        secret: the site's.
        pseudonym: of the patient, as `Site.pseudonym` gives it.
    """
    digest = hmac.digest(secret, b"split\0" + pseudonym.encode(), "sha256")
    share = int.from_bytes(digest[:8]) / 2**64
    if share < TRAIN:
        return "train"
    return "validation" if share < TRAIN + VALIDATION else "test"
