"""What an adversary would try, against the real code."""
