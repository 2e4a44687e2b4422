"""Whether the process of a container serves: gRPC's health protocol at the address in $HEALTH."""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

with grpc.insecure_channel(os.environ["HEALTH"]) as channel:
    try:
        reply = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=4
        )
    except grpc.RpcError as error:
        sys.exit(f"{os.environ['HEALTH']}: {error.code().name}")
sys.exit(reply.status != health_pb2.HealthCheckResponse.SERVING)
