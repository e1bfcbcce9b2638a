"""Names for what gRPC and protobuf hand us without types."""

from typing import Any, TypeAlias

Message: TypeAlias = Any  # a protobuf message of tritonclient.grpc.service_pb2
GrpcModule: TypeAlias = Any  # grpc or grpc.aio
GrpcChannel: TypeAlias = Any  # grpc.Channel or grpc.aio.Channel
GrpcCall: TypeAlias = Any  # a running call of either
GrpcFailure: TypeAlias = Any  # a grpc.RpcError that has code() and details(), as every failed call of either has
