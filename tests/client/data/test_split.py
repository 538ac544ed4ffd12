from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from client.data.split import of

SECRET = st.binary(min_size=32, max_size=32)
PATIENTS = st.sets(st.text("0123456789abcdef", min_size=32, max_size=32), min_size=1)


@given(secret=SECRET, before=PATIENTS, added=PATIENTS)
def test_adding_patients_moves_nobody(secret, before, added):
    first = {patient: of(secret, patient) for patient in sorted(before)}
    second = {patient: of(secret, patient) for patient in sorted(before | added, reverse=True)}
    assert all(second[patient] == split for patient, split in first.items())


@given(secret=SECRET)
def test_the_shares_are_seven_one_and_two_tenths(secret):
    counts = Counter(of(secret, str(number)) for number in range(2000))
    # Five standard deviations of a binomial over 2,000 patients.
    assert abs(counts["train"] - 1400) < 103
    assert abs(counts["validation"] - 200) < 68
    assert abs(counts["test"] - 400) < 90


@given(one=SECRET, other=SECRET)
def test_without_the_secret_a_split_cannot_be_told(one, other):
    patients = [str(number) for number in range(200)]
    same = sum(of(one, patient) == of(other, patient) for patient in patients)
    # Independent splits agree for .7² + .1² + .2² = .54 of the patients.
    assert one == other or 60 < same < 160
