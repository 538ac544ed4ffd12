"""The exceptions that mean something to a person, and the codes that may cross the wire.

Every message names the file and the field, says what was expected and what to do, and never carries
anything of a patient. The commands turn these into one line on stderr and an exit code; everything else
that is raised is a defect.
"""

from __future__ import annotations

from enum import StrEnum


class InsituError(Exception):
    """Something failed that a person can act on. The command exits with 1."""

    exit_code = 1


class BadInput(InsituError):
    """A file, field or argument is wrong. The command exits with 2.

    >>> raise BadInput("[images] size: got 0, expected whole numbers above 0", file="job.toml")
    Traceback (most recent call last):
    ...
    shared.errors.BadInput: job.toml: [images] size: got 0, expected whole numbers above 0
    """

    exit_code = 2

    def __init__(self, message: str, *, file: object = None) -> None:
        super().__init__(f"{file}: {message}" if file is not None else message)


class RefusalCode(StrEnum):
    """Why a site did not do what it was asked: all that may leave the site about it."""

    MALFORMED = "malformed"  # the message is not one of ours, or its fields are wrong
    PROTOCOL = "protocol"  # another version of the message protocol
    PENDING = "pending"  # the site's operator has not said yes to this run of the job yet
    REVOKED = "revoked"  # the site's operator said no, or no longer
    INBOX_FULL = "inbox_full"  # too many jobs wait for the site's operator: this one was not even noted
    TASK = "task"  # the site's policy does not allow this task
    NETWORK = "network"  # the site's policy does not allow this network
    PARAMETERS = "parameters"  # the job's network has more parameters than the site's policy allows
    ROUNDS = "rounds"  # the job has more rounds than the site's policy allows
    PRIVACY_REQUIRED = "privacy_required"  # the site's policy requires privacy, the job has none
    EPSILON_LIMIT = "epsilon_limit"  # the job's ε is above what the policy allows one job
    SECURE_AGGREGATION = "secure_aggregation"  # asked for or required, and not to be had
    HOURS = "hours"  # not at this time of the day, says the site's policy
    TIME = "time"  # the work took longer than the site's policy allows
    MEMORY = "memory"  # the work needs more memory than there is, or than the site's policy allows
    MIN_SITES = "min_sites"  # the job wants fewer sites than the policy's minimum
    NO_DATASET = "no_dataset"  # no dataset is open to this job, or none fits it
    AMBIGUOUS_DATASET = "ambiguous_dataset"  # more than one dataset fits: the operator has to say which
    LABELS = "labels"  # the dataset's labels disagree with the job's classes
    FEW_PATIENTS = "few_patients"  # below the minimum number of patients
    OVER_BUDGET = "over_budget"  # this round would exceed the dataset's privacy budget
    LEDGER = "ledger"  # the ledger cannot be written or trusted: nothing is trained
    RECORD = "record"  # the record cannot be written or trusted: nothing leaves
    EGRESS = "egress"  # the reply did not pass the one door out
    FAILED = "failed"  # the site could not do it; its own log says why


class Refused(InsituError):
    """The site's policy, budget or door said no. The command exits with 3.

    Attributes:
        code: what the coordinator may know.
        detail: what the hospital's own log says; it never leaves the site.
    """

    exit_code = 3

    def __init__(self, code: RefusalCode, detail: str = "") -> None:
        super().__init__(f"refused ({code}){': ' + detail if detail else ''}")
        self.code = code
        self.detail = detail
