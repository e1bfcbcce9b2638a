"""Peers: the servers that a good engineer would write with other libraries, to be measured beside ours (docs/benchmarks/peers.md).

Each folder is one peer: how it serves, what it needs, and the lock of that. They import nothing of ours but `peers.shared`, and run
in environments of their own: `make peer NAME=fastapi_ort`. Who starts one sets PEER_DATA, PEER_PORT and PEER_CORES.
"""
