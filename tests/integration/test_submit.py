"""Jobs submitted to a Ray of this test's own: a head with a dashboard, a token and free ports, on loopback."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import ANY, Mock

import pytest
from ray._private.runtime_env.packaging import create_package
from ray.dashboard.modules.job.common import JobStatus

from cluster import submit
from dermaray.errors import ClusterError
from jobs import cli
from jobs import submit as job

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# Those that have a default, which another Ray of the machine may hold; the others are free ones anyway.
PORTS = ("--dashboard-port", "--port", "--ray-client-server-port", "--dashboard-agent-listen-port")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def environment(**more: str) -> dict[str, str]:
    """Return the environment less whatever would lead Ray, or its client, elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not re.match("RAY_|.*_PROXY$", name.upper())}
    return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONPATH": str(ROOT)} | more


def end(head: subprocess.Popen[bytes]) -> None:
    """Stop the Ray that was started here; `ray stop` would stop every Ray of the machine."""
    head.terminate()
    with suppress(subprocess.TimeoutExpired):
        head.wait(20)
    # The head leads a session, and whatever Ray left behind is still in it.
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(int(process.name)) == head.pid:
                os.kill(int(process.name), signal.SIGKILL)
    head.wait()


class Head(NamedTuple):
    address: str
    folder: Path
    token: str

    def submit(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        env = environment(**{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, **more})
        command = [sys.executable, "-m", "jobs.submit", "prepare", "--address", self.address, "--", *arguments]
        return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=150, check=False)


def wait_for(head: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=5).close()
        assert head.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.3)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Ray puts sockets in here, and a socket's path may have 107 characters, which pytest's own folders use up.
    folder = Path(tempfile.mkdtemp(prefix="dr", dir="/tmp"))
    token, ports = secrets.token_hex(16), free_ports(len(PORTS))
    command = f"{BIN}/ray start --head --block --include-dashboard=true --dashboard-host 127.0.0.1 --num-cpus 1".split()
    command += f"--node-ip-address 127.0.0.1 --object-store-memory 80000000 --temp-dir {folder}".split()
    command += ["--disable-usage-stats"] + [f"{name}={port}" for name, port in zip(PORTS, ports, strict=True)]
    # The last of these keeps Ray's other ports on loopback; it is named for the systems on which it is the default.
    variables = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
    # When it is ended, nothing is worth the half minute for which Ray would let it run dry.
    variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(process, ports[0], folder / "start.log")
        yield Head(address=f"http://127.0.0.1:{ports[0]}", folder=folder, token=token)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def results(head: Head) -> "dict[str, subprocess.CompletedProcess[str]]":
    """Submit all at once: a job spends most of its time in Ray's waits."""
    with ThreadPoolExecutor() as pool:
        runs = {
            # The address asked for counts, whatever the environment says.
            "good": pool.submit(head.submit, "--help", RAY_ADDRESS="http://127.0.0.1:1"),
            "bad": pool.submit(head.submit, "/nowhere", "--out", "/nowhere", "--no-such-option"),
            "wrong token": pool.submit(head.submit, "--help", RAY_AUTH_TOKEN="f" * 32),
            "no token": pool.submit(head.submit, "--help", RAY_AUTH_MODE="disabled"),
        }
    return {name: run.result() for name, run in runs.items()}


def test_log_and_exit_code_of_a_job_come_back(head: Head, results: Any) -> None:
    assert (results["good"].returncode, results["good"].stderr) == (0, "")
    first, *log = results["good"].stdout.splitlines()
    assert first.startswith("raysubmit_")
    assert any(line.startswith("usage:") for line in log)
    shipped, *_ = head.folder.glob("session_latest/runtime_resources/working_dir_files/_ray_pkg_*/")
    assert (shipped / "jobs" / "submit.py").is_file()
    assert not (shipped / "tests").exists()


def test_failure_of_a_job_comes_back(results: Any) -> None:
    assert results["bad"].returncode == 2, results["bad"].stdout
    assert "--no-such-option" in results["bad"].stdout.splitlines()[-1]


@pytest.mark.parametrize("name", ["wrong token", "no token"])
def test_refused_token_is_one_line(name: str, head: Head, results: Any) -> None:
    assert results[name].returncode == 2
    (line,) = results[name].stderr.splitlines()
    assert line.startswith(f"dermaray submit: {head.address} gives no access")
    assert "RAY_AUTH_TOKEN_PATH" in line


def test_unreachable_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "getproxies", dict)
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(ClusterError, match=f"no Ray dashboard answers at {address}"):
        submit.submit_job("submit", [], address, echo=print)


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:8265", "ray://127.0.0.1:10001", "http://", "http://host:99999"])
def test_malformed_address(address: str) -> None:
    with pytest.raises(ClusterError, match="takes a dashboard's HTTP address"):
        submit.submit_job("submit", [], address, echo=print)


@pytest.mark.parametrize("name", ["nothing", "../cluster/submit", "os;true"])
def test_unknown_job(name: str) -> None:
    with pytest.raises(ClusterError, match="modules of the package jobs"):
        submit.submit_job(name, [], submit.EXAMPLE_ADDRESS, echo=print)


def grow(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_what_is_counted_is_what_ray_ships(tmp_path: Path) -> None:
    kept = {"pyproject.toml", "jobs/train.py", "dermaray/data/a.py", "dermaray/models/b.py", "models/m/model.keras"}
    grow(tmp_path, *kept, "data/x.jpg", "tests/unit/t.py", "runs/r/model.keras", ".env", ".git/HEAD", "docs/x.md")
    grow(tmp_path, "jobs/__pycache__/a.pyc", "dermaray.egg-info/PKG-INFO", "secret/key", ".venv/bin/python")
    (tmp_path / ".gitignore").write_text("secret/\n")
    sizes = submit.shipped_files(tmp_path)
    assert {path.as_posix() for path in sizes} == kept
    package = tmp_path.parent / "package.zip"
    create_package(str(tmp_path), package, include_gitignore=True, excludes=list(submit.EXCLUDES))
    with zipfile.ZipFile(package) as archive:
        packed = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
    assert packed == {path.as_posix(): size for path, size in sizes.items()}


def test_checkout_is_small_and_whole() -> None:
    shipped = {path.as_posix() for path in submit.shipped_files(submit.checkout_root())}
    assert {"pyproject.toml", "jobs/submit.py", "cluster/submit.py", "dermaray/models/__init__.py"} <= shipped
    assert 0 < submit.working_dir_size(submit.checkout_root()) < submit.MAX_BYTES


def test_too_large_a_checkout_names_its_largest_files(tmp_path: Path) -> None:
    grow(tmp_path, "models/m/model.keras", "small.py")
    os.truncate(tmp_path / "models/m/model.keras", submit.MAX_BYTES + 1)
    with pytest.raises(ClusterError, match=r"100\.0 MiB; the limit is 100 MiB\. Largest: models/m/model\.keras"):
        submit.working_dir_size(tmp_path)


def follow(
    logs: Any,
    patch: pytest.MonkeyPatch,
    told: list[str],
    status: str = "SUCCEEDED",
    code: Any = 0,
    asked: Callable[[str], str] = lambda _: "",
) -> int:
    """Follow a job whose log is sent once for each of `logs`, and may break off; then `asked` gives it, or fails."""

    async def tail(_: str) -> AsyncIterator[str]:
        for part in logs.pop(0) if logs else [OSError("gone")]:
            if isinstance(part, BaseException):
                raise part
            yield part

    info = {"status": JobStatus(status), "driver_exit_code": code, "message": "why", "submission_id": "raysubmit_x"}
    client = SimpleNamespace(submit_job=lambda **_: "raysubmit_x", tail_job_logs=tail)
    client.get_address, client.get_job_logs = lambda: submit.EXAMPLE_ADDRESS, asked
    client.get_job_info = lambda _: SimpleNamespace(**info | {"status": JobStatus("RUNNING" if logs else status)})
    patch.setattr(submit, "_client", lambda _: client)
    patch.setattr(submit, "_check_address", lambda _: None)
    patch.setattr(submit, "_RETRY_SECONDS", 0.0)
    return submit.submit_job("submit", [], submit.EXAMPLE_ADDRESS, echo=told.append)


def test_lost_connection_is_taken_up_where_it_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    logs = [["a\nb\nc", RuntimeError("gone")], ["a\n", OSError("gone")], ["a\nb\nc\nd"]]
    assert follow(logs, monkeypatch, told, asked=lambda _: "a\nb\nc") == 0
    assert told[1:] == ["a", "b", "c", "d"]


def test_a_stream_that_breaks_off_for_ever_loses_no_line_and_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    gone = [OSError("gone")]
    written = iter(["a\nhalf a li", *["a\nhalf a line\n"] * 40, "a\nhalf a line\nb"])
    assert follow([gone] * 42, monkeypatch, told, asked=lambda _: next(written)) == 0
    assert told[1:] == ["a", "half a line", "b"]


def test_a_cluster_that_answers_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: str) -> str:
        raise OSError("gone")

    with pytest.raises(ClusterError, match=r"lost the cluster.*raysubmit_x"):
        follow([[OSError("gone")]], monkeypatch, [], asked=lost)


def test_whoever_reads_no_further_is_told_that_the_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match=r"goes on. Stop it with: ray job stop raysubmit_x"):
        follow([["a\n", BrokenPipeError()]], monkeypatch, [])


def test_interrupt_leaves_the_job_and_says_how_to_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        follow([["a\n", KeyboardInterrupt()]], monkeypatch, told)
    assert told[-1].endswith(f"ray job stop raysubmit_x --address {submit.EXAMPLE_ADDRESS}")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", None, 0), ("FAILED", None, 1), ("FAILED", 3, 3), ("FAILED", -9, 137), ("STOPPED", None, 1)],
)
def test_exit_codes(status: str, code: int | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow([["a"]], monkeypatch, [], status, code) == expected


@pytest.mark.parametrize("separator", [[], ["--"]])
def test_rest_of_the_command_line_is_the_job_s(separator: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Mock(return_value=7)
    monkeypatch.setattr(job, "submit_job", fake)
    own = ["--config", "configs/x.yaml", "training.epochs=3"]
    assert cli.main(["submit", "train", "--address", "http://h:1", "--no-wait", *separator, *own]) == 7
    fake.assert_called_once_with("train", own, "http://h:1", wait=False, echo=ANY)


def test_help_imports_neither_ray_nor_tensorflow() -> None:
    code = "import sys; from jobs.cli import main\ntry: main(['submit', '-h'])\nfinally: sys.exit(repr([*sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "'jobs.submit'" in result.stderr
    assert not any(f"'{name}'" in result.stderr for name in ("ray", "tensorflow", "aiohttp"))
