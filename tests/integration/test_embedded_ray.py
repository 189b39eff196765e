"""The embedded Ray keeps to itself: loopback alone, nobody without its token, and no signals meant for the job."""

import argparse
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from cluster.runtime import Cluster
from jobs.session import ray_session

# 127.0.0.1 in /proc/net/tcp, and what stands for it and for ::1 in /proc/net/tcp6.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def listening() -> dict[str, str]:
    """Return {socket's inode: hexadecimal address} of all that listens on this machine."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found[fields[9]] = fields[1].split(":")[0]
    return found


def descendants() -> set[Path]:
    """Return this process and all that it has started, directly or not."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(process.name)] = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
    family = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return {Path("/proc", str(pid)) for pid in family}


def sockets_of(process: Path) -> set[str]:
    with suppress(OSError):
        links = [os.readlink(link) for link in (process / "fd").iterdir()]
        return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    return set()


def test_it_listens_on_loopback_alone(ray_cluster: Cluster) -> None:
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    addresses = listening()
    ours = {addresses[inode] for process in descendants() for inode in sockets_of(process) if inode in addresses}
    assert ours
    assert ours <= LOOPBACK


def test_it_refuses_whoever_has_no_token(ray_cluster: Cluster) -> None:
    address = ray.get_runtime_context().gcs_address
    script = f"import ray; ray.init(address={address!r}); print('connected')"

    def join(token: str) -> "subprocess.CompletedProcess[str]":
        # Ray asks twenty times by default, a second apart, whoever refuses it.
        patience = {"RAY_NUM_REDIS_GET_RETRIES": "2"}
        environment = {**os.environ, **patience, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    # Side by side: Ray tries for a while before it gives up.
    with ThreadPoolExecutor() as pool:
        for result in pool.map(join, ("", "0" * 64)):
            assert result.returncode != 0
            assert "connected" not in result.stdout
            assert "oken" in result.stderr


def test_sigterm_interrupts_a_job_as_ctrl_c_does(ray_cluster: Cluster) -> None:
    rays_own = signal.getsignal(signal.SIGTERM)
    job = argparse.Namespace(address=None, verbose=False)
    with pytest.raises(KeyboardInterrupt), ray_session(job):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is rays_own
