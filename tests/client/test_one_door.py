"""There is one door: the code is walked, and no other way leads to Flower's reply, or out of the process."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "client"
REPLIES = {"Accepted", "Update", "Figures", "Refusal"}
# Who hands a packed reply to Flower, and nothing else: the app, and the process around it.
MESSENGERS = {"app.py", "flower/executor.py"}
# Who may speak to anybody at all: the two processes that carry messages, what binds and opens their socket, and the
# operator's own commands to join and to rotate a key, which open no scan.
SPEAKERS = {"daemon.py", "link.py", "flower/executor.py", "flower/supernode.py"}
SPEAKERS |= {"enrolment/channel.py", "enrolment/checks.py"}
NETWORK = {"aiohttp", "asyncio", "ftplib", "grpc", "http", "httpx", "pynetdicom", "requests", "smtplib", "socket"}
NETWORK |= {"socketserver", "ssl", "telnetlib", "urllib", "urllib3", "uvicorn", "websockets", "xmlrpc", "zmq"}


TREES = {file.relative_to(CLIENT).as_posix(): ast.parse(file.read_text()) for file in sorted(CLIENT.rglob("*.py"))}


def calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def makes_replies(tree: ast.Module) -> bool:
    """Whether a module calls one of the replies of `shared.messages`, under whatever name."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "shared.messages"
        for alias in node.names
        if alias.name in REPLIES
    }
    whole = any(
        alias.name == "messages"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "shared"
        for alias in node.names
    )
    return any(
        (isinstance(call.func, ast.Name) and call.func.id in names)
        or (whole and isinstance(call.func, ast.Attribute) and call.func.attr in REPLIES)
        for call in calls(tree)
    )


def test_replies_are_made_at_the_door_only():
    # What was stored is read back bit by bit, and goes through the door again.
    assert {file for file, tree in TREES.items() if makes_replies(tree)} == {"egress.py", "replies.py"}


def test_a_reply_becomes_a_message_at_the_door_only():
    assert {file for file, tree in TREES.items() for call in calls(tree) if name(call) == "pack"} == {"egress.py"}


def test_records_of_flower_are_made_nowhere_on_this_side_but_for_empty_ones():
    for file, tree in TREES.items():
        for call in calls(tree):
            if name(call) in ("RecordDict", "ConfigRecord", "MetricRecord", "ArrayRecord"):
                assert (file, call.args, call.keywords) == ("flower/executor.py", [], []), call.lineno


def test_what_is_handed_to_flower_comes_from_the_door():
    found = []
    for file, tree in TREES.items():
        for call in calls(tree):
            if name(call) != "Message" or "flwr.app" not in {
                node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
            }:
                continue
            content = ast.unparse(call.args[0])
            found.append((file, content))
            assert [keyword.arg for keyword in call.keywords] == ["reply_to"]
    assert {file for file, _ in found} == MESSENGERS
    for file, content in found:
        assert content.startswith("egress.packed(") or (
            file == "flower/executor.py" and content == "flat.flatten(content)"
        )


def test_the_process_around_the_app_sends_what_the_app_says_or_a_refusal():
    tree = TREES["flower/executor.py"]
    (method,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_content"]
    said = {ast.unparse(node.value) for node in ast.walk(method) if isinstance(node, ast.Return)}
    said.discard("reply.content")  # what the app, installed here, has answered
    assert said
    assert all(text.startswith("egress.packed(egress.refusal(RefusalCode.") for text in said)
    pushed = [ast.unparse(call.args[0]) for call in calls(tree) if name(call) == "_push"]
    assert sorted(pushed) == [
        "egress.packed(egress.refusal(RefusalCode.FAILED))",
        "self._content(message, context, fab.content)",
    ]


@pytest.mark.parametrize("file", TREES)
def test_nothing_else_of_the_client_speaks_to_the_network(file):
    tree = TREES[file]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    if file not in SPEAKERS:
        assert not names & NETWORK


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from shared.messages import Update\nUpdate(round=1, model={}, numbers={})", True),
        ("from shared.messages import Refusal as No\nNo(code=1)", True),
        ("from shared import messages\nmessages.Figures(numbers={})", True),
        ("from shared.messages import Update\nUpdate.unpack(x)", False),
    ],
)
def test_the_walk_finds_what_it_looks_for(code, found):
    assert makes_replies(ast.parse(code)) is found
