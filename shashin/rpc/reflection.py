"""Lets tools such as grpcurl ask a server what its services are."""

from __future__ import annotations

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc


def add_reflection(server: grpc.aio.Server, *services: str) -> None:
    """Serve grpc.reflection.v1alpha about some services, and about itself."""
    servicer = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
