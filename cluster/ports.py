"""Ports of what listens."""

import socket

from dermaray.errors import AddressInUse, ClusterError


def check_port(host: str, port: int) -> None:
    """Check that a port can be listened on, before anything is started for it.

    Raises:
        AddressInUse: Another process listens there.
        ClusterError: The address is none of this machine's, or the port may not be used.
    """
    if not 0 < port < 65536:
        raise ClusterError(f"--port must be between 1 and 65535. Received: {port}")
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return
    except socket.gaierror as error:
        raise ClusterError(f"--host {host!r} is no address of this machine") from error
    except OSError as error:
        import errno

        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"port {port} of {host} is in use by another process. Choose another: --port") from error
        raise ClusterError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another --host or --port"
        ) from error


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
