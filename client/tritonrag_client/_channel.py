"""gRPC channels, and the five calls of Triton's service that a client makes. Alike for grpc and grpc.aio."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tritonrag_client._wire import GrpcCall, GrpcChannel, GrpcModule, Message
from tritonrag_client.errors import BadRequestError
from tritonrag_client.options import ChannelOptions, TlsOptions

_STREAM_PATH: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
_FIRST_RECONNECT_MS: Final = 100
_LONGEST_RECONNECT_MS: Final = 2000  # gRPC's own 120 s would leave a client blind to a server that is back


class Calls:
    """The calls, made of a channel. Each takes a message and a `timeout` in seconds.

    What comes back is grpc's: messages or iterators of them from a grpc.Channel, awaitables from a grpc.aio.Channel.
    """

    def __init__(self, channel: GrpcChannel) -> None:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.live, self.ready, self.model_ready, self.infer = (
            stub.ServerLive,
            stub.ServerReady,
            stub.ModelReady,
            stub.ModelInfer,
        )
        # One request message, then half-close. On the wire that is the bidirectional call with one message; in the client it
        # saves the stub's thread per call that would wait for further ones.
        self._stream = channel.unary_stream(
            _STREAM_PATH,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    def stream(self, request: Message, *, timeout: float) -> GrpcCall:
        """One request to a decoupled model, many responses.

        A failure comes as a text in a response. The metadata `triton_grpc_error`, which asks for a status instead, is left
        alone: with it, Triton 2.51.0 dies of a segmentation fault when a model sends an error and then, apart from it, the
        final flag (measured; the 20th such request at the latest).
        """
        return self._stream(request, timeout=timeout)


def open_channel(flavour: GrpcModule, url: str, tls: TlsOptions | None, options: ChannelOptions) -> GrpcChannel:
    """A channel that connects lazily. Raises BadRequestError for files that can't be read."""
    arguments = channel_arguments(options)
    if tls is None:
        return flavour.insecure_channel(url, options=arguments)
    return flavour.secure_channel(url, _credentials(tls), options=arguments)


def require_addresses(url: object) -> tuple[str, ...]:
    """`url`, one address or a sequence of them, as addresses, each once. Raises BadRequestError."""
    if isinstance(url, str) or not isinstance(url, Sequence):
        return (require_address(url),)
    if not url:
        raise BadRequestError(f"url is {url!r}; give host:port, such as 127.0.0.1:8001, of at least one server")
    return tuple(dict.fromkeys(require_address(one) for one in url))


def require_address(url: object) -> str:
    """`url` if it is an address as gRPC takes them, such as host:port. Raises BadRequestError."""
    if not isinstance(url, str) or not url.strip():
        raise BadRequestError(f"url is {url!r}; give host:port, such as 127.0.0.1:8001")
    if url.startswith(("http://", "https://", "grpc://", "grpcs://")):
        raise BadRequestError(
            f"url is {url!r}; give host:port of the gRPC port without a scheme, and `tls` for an encrypted one"
        )
    return url


def channel_arguments(options: ChannelOptions) -> list[tuple[str, int]]:
    """The channel arguments of gRPC's core; times in milliseconds."""
    return [
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.keepalive_time_ms", round(options.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(options.keepalive_timeout_s * 1000)),
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _LONGEST_RECONNECT_MS),
        ("grpc.enable_http_proxy", int(options.use_proxy)),
        # A connection per client: two clients in one process do not queue behind each other's flow control.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def _credentials(tls: TlsOptions) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_read("root_certificates", tls.root_certificates),
        private_key=_read("private_key", tls.private_key),
        certificate_chain=_read("certificate_chain", tls.certificate_chain),
    )


def _read(name: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise BadRequestError(f"{name} is {path}, which can't be read: {error.strerror}") from error
