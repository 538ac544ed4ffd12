"""The only room on this side that knows Flower's internals, checked against the pinned release by a contract test.

superlink   Flower's SuperLink inside the coordinator's process: two listeners, sites' keys, runs, tasks
serverapp   one process a run: the ServerApp that is installed here, over a grid that waits well
"""
