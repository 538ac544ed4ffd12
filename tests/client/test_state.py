"""What `status` says of a daemon's processes as they come and go."""

from client import state
from shared.files import held


def test_why_a_supernode_was_not_let_in_is_said_until_one_is(tmp_path):
    with held(tmp_path, "daemon"):
        state.write(tmp_path, "supernode", {"pid": 1, "contact": None, "problem": "not admitted"})
        state.write(tmp_path, "daemon", {"supernode": {"pid": 2}, "executor": {"pid": 3}})  # it ended, and came back
        facts = state.summary(tmp_path)
        assert facts["problem"] == "not admitted"
        assert not facts["connected"]
        state.write(tmp_path, "supernode", {"pid": 2, "contact": 1e12, "problem": None})
        facts = state.summary(tmp_path)
        assert facts["problem"] is None
        assert facts["connected"]


def test_that_an_earlier_supernode_had_contact_says_nothing_of_this_one(tmp_path):
    with held(tmp_path, "daemon"):
        state.write(tmp_path, "supernode", {"pid": 1, "contact": 1e12, "problem": None})
        state.write(tmp_path, "daemon", {"supernode": {"pid": 2}, "executor": {"pid": 3}})
        assert not state.summary(tmp_path)["connected"]
