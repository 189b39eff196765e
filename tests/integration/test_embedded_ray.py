"""The embedded Ray keeps to itself: loopback alone, and nobody without its token."""

import os
import subprocess
import sys
from pathlib import Path

import ray

from cluster.runtime import Cluster


def listening_addresses() -> set[str]:
    """Return the hexadecimal IPv4 addresses that this user's processes listen on, by process."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            found.add(f"{fields[1].split(':')[0]} {fields[9]}")
    return found


def sockets_of(process: Path) -> set[str]:
    try:
        links = [os.readlink(link) for link in (process / "fd").iterdir()]
    except OSError:
        return set()
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def test_it_listens_on_loopback_alone(ray_cluster: Cluster) -> None:
    session = Path(ray.get_runtime_context().get_node_id() and ray._private.worker._global_node.get_session_dir_path())
    sockets: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(session.name) in command:
            sockets |= sockets_of(process)
    addresses = {line.split()[0] for line in listening_addresses() if line.split()[1] in sockets}
    assert addresses == {"0100007F"}


def test_it_refuses_whoever_has_no_token(ray_cluster: Cluster) -> None:
    address = ray.get_runtime_context().gcs_address
    script = f"import ray; ray.init(address={address!r}); print('connected')"
    for token in ("", "0" * 64):
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode != 0
        assert "connected" not in result.stdout
        assert "oken" in result.stderr
