"""gRPC's health service (grpc.health.v1), on loopback only: for what watches this machine.

`fleet` and `enrolment` are the two public listeners; the empty name is the coordinator as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from shared.errors import InsituError

SERVICES = ("", "fleet", "enrolment")


@contextmanager
def serving(port: int) -> Iterator[int]:
    """Say that all is well while this lasts; the port.

    Args:
        port: on loopback; 0 for any free one.

    Raises:
        InsituError: if the port is taken.
    """
    server = grpc.server(
        ThreadPoolExecutor(2, thread_name_prefix="health"),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 4096)],
        maximum_concurrent_rpcs=8,
    )
    servicer = health.HealthServicer()
    for service in SERVICES:
        servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError:
        raise InsituError(f"cannot listen on 127.0.0.1:{port}; see health_port in server.toml") from None
    server.start()
    try:
        yield int(bound)
    finally:
        servicer.enter_graceful_shutdown()
        server.stop(grace=1.0).wait()
