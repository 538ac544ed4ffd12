"""Real messages to a site through the ClientApp, and what it answers."""

from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from shared import arrays, networks
from shared.errors import RefusalCode
from shared.messages import Accepted, EvaluateRequest, Figures, Offer, Refusal, TrainRequest, Update, read_reply

# What Flower sets in a process of its own; messages cannot be made without it.
TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 0, 1


def send(site, records, message_type) -> RecordDict:
    """What the ClientApp answers to these records."""
    message = Message(records, dst_node_id=2, message_type=message_type)
    message.metadata.__dict__["_message_id"] = "1"
    context = Context(run_id=1, node_id=2, node_config={"home": str(site.home)}, state=RecordDict(), run_config={})
    reply = app(message, context)
    assert not reply.has_error()
    assert not context.state
    return reply.content


def ask(site, request):
    """The reply to a request, read as the coordinator reads it."""
    kind = {Offer: Accepted, TrainRequest: Update, EvaluateRequest: Figures}[type(request)]
    return read_reply(send(site, request.pack(), request.flower_type), kind)


def code(reply) -> RefusalCode:
    assert isinstance(reply, Refusal), reply
    return reply.code


def model_of(job) -> dict:
    return arrays.of_network(networks.build(job))


def train(job, *, number=1, run="run-1", model=None) -> TrainRequest:
    return TrainRequest(job=job, run=run, round=number, model=model or model_of(job))


def evaluate(job, **given) -> EvaluateRequest:
    return EvaluateRequest(**vars(train(job, **given)))


def log_of(site) -> str:
    file = site.home / "log" / "site.log"
    return file.read_text() if file.exists() else ""
