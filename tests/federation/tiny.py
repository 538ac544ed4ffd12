"""A real Flower ServerApp and ClientApp that train nothing, to test and measure the way between them.

What they do is in HOME/tiny.json of the coordinator: rounds, the size of the model in bytes, the number of its
arrays, the number of sites. The seconds of each round are in the run's folder afterwards.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from server.store import Store

server = ServerApp()
client = ClientApp()


@server.main()
def _conduct(grid: Grid, context: Context) -> None:
    home = Path(str(context.run_config["home"]))
    store = Store(home / "store.sqlite")
    run = str(context.run_config["run"])
    plan = {"rounds": 3, "bytes": 4000, "arrays": 2, "sites": 1} | json.loads((home / "tiny.json").read_text())
    nodes: list[int] = []
    while len(nodes) < plan["sites"]:
        nodes = list(grid.get_node_ids())
        time.sleep(0.05)
    count = plan["bytes"] // 4 // plan["arrays"]
    model = {f"layer{number}": np.full(count, number, np.float32) for number in range(plan["arrays"])}
    report = {"first": None, "seconds": [], "replies": []}
    for number in range(plan["rounds"]):
        began = time.monotonic()
        content = RecordDict(
            {
                "model": ArrayRecord({name: Array(array) for name, array in model.items()}),
                "config": ConfigRecord({"round": number, "orders": plan.get("orders", "add")}),
            }
        )
        messages = [Message(content, dst_node_id=n, message_type="train", group_id=str(number)) for n in nodes]
        waiting = set(grid.push_messages(messages))
        said = {}
        while waiting:
            for reply in grid.pull_messages(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                if reply.has_error():
                    said[str(reply.metadata.src_node_id)] = {"error": reply.error.code}
                    continue
                said[str(reply.metadata.src_node_id)] = {
                    name: dict(record) for name, record in reply.content.items() if not isinstance(record, ArrayRecord)
                }
                if "model" in reply.content:
                    model = {name: array.numpy() for name, array in reply.content["model"].items()}
        report["replies"].append(said)
        report["seconds"].append(time.monotonic() - began)
        report["first"] = report["first"] or time.time()
    report["model"] = {name: [float(array.min()), float(array.max()), len(array)] for name, array in model.items()}
    report["modules"] = _heavy()
    (store.folder(run) / "tiny.json").write_text(json.dumps(report))
    store.set_status(run, "completed")


@client.train()
def _train(message: Message, context: Context) -> Message:
    orders = message.content["config"]["orders"]
    home = Path(str(context.node_config["home"]))
    if orders == "raise":
        raise ValueError(f"{home} of patient DOE^JOHN")
    if orders == "crash":
        os._exit(7)
    if orders == "sleep":
        (home / "asleep").touch()
        time.sleep(3)
    said = {"heavy": ",".join(_heavy()), "run_config": json.dumps(dict(context.run_config))}
    model = {name: Array(array.numpy() + 1) for name, array in message.content["model"].items()}
    content = {
        "model": ArrayRecord(model),
        "numbers": MetricRecord({"pid": os.getpid()}),
        "config": ConfigRecord({"home": home.name, **said}),
    }
    return Message(RecordDict(content), reply_to=message)


def _heavy() -> list[str]:
    import sys

    return [name for name in ("torch", "monai", "ray") if name in sys.modules]
