"""The only room on this side that knows Flower's internals, checked against the pinned release by a contract test.

supernode   Flower's SuperNode in a process of its own, which has no business with scans: it carries messages
executor    hands each message to the ClientApp that is installed here, and never touches the bundle it came with
"""
