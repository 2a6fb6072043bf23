"""Where processes listen, and what a stranger gets who connects there."""

import http.client
import socket

import grpc
import psutil

# One of each server of Ray; a server that does not know a method asks for no token either.
METHODS = (
    "NodeInfoGcsService/GetAllNodeInfo",
    "NodeManagerService/GetNodeStats",
    "ObjectManagerService/Push",
    "CoreWorkerService/KillActor",
    "ReporterService/GetTraceback",
    "RayletDriver/Init",
)
EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - looked for, not bound


def listening_places(processes):
    """The addresses and ports on which any of the processes accepts TCP connections."""
    return {
        connection.laddr
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def other_address():
    """An address of this machine that is not the usual one of its loopback."""
    found = [a.address for each in psutil.net_if_addrs().values() for a in each if _is_outer(a)]
    return found[0] if found else "127.0.0.2"


def _is_outer(address):
    return address.family == socket.AF_INET and not address.address.startswith("127.")


def answer_to_a_stranger(place):
    """What a server says without a token: "token", "metrics" or something else."""
    return answer_at(other_address() if place.ip in EVERYWHERE else place.ip, place.port)


def answer_at(host, port):
    """The same of one address."""
    answer = _ask_http(host, port)
    return answer if answer != "no HTTP" else _ask_grpc(host, port)


def _ask_http(host, port):
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/api/cluster_status")
        response = connection.getresponse()
    except (OSError, http.client.HTTPException):
        return "no HTTP"
    finally:
        connection.close()
    if response.status == http.client.UNAUTHORIZED:
        return "token"
    is_metrics = response.status == 200 and response.read(6) == b"# HELP"
    return "metrics" if is_metrics else f"HTTP {response.status}"


def _ask_grpc(host, port):
    codes = set()
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in METHODS:
            try:
                channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=5)
                codes.add("answer")
            except grpc.RpcError as error:
                codes.add(error.code().name)
    return "token" if codes <= {"UNAUTHENTICATED", "UNIMPLEMENTED"} and len(codes) == 2 else codes
