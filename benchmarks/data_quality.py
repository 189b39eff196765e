"""DERMARAY_DATA=../shared/data python benchmarks/data_quality.py [--out runs/quality]   (about 2 min on 2 CPU cores)

What `dermaray prepare` finds in the published sets, how long it takes and how much memory. Prints the tables of
docs/data-quality.md.

Memory is that of the job and of all of its Ray processes together: the sum of their proportional set sizes (what they
share counts once), looked at four times a second.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SETS = ("kaggle9", "ham10000")


def processes(root: int) -> Iterator[int]:
    """Yield a process and all that descend from it."""
    yield root
    # Each thread has children of its own.
    for thread in Path(f"/proc/{root}/task").glob("*/children"):
        try:
            children = thread.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from processes(int(child))


def memory_mib(root: int) -> float:
    """Return the proportional set size of a process and its descendants, in MiB."""
    total = 0
    for process in processes(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


def watched(arguments: list[str]) -> dict[str, Any]:
    """Run a job and return its command, its seconds and its peak memory."""
    command = shlex.join(["python", *arguments])
    print(f"+ {command}", flush=True)
    began = time.monotonic()
    job = subprocess.Popen([sys.executable, *arguments])
    peak = 0.0
    while job.poll() is None:
        peak = max(peak, memory_mib(job.pid))
        time.sleep(0.25)
    if job.returncode:
        raise SystemExit(f"{command} ended with exit code {job.returncode}")
    return {"command": command, "seconds": round(time.monotonic() - began, 1), "peak_mib": round(peak)}


def table(audit: dict[str, Any]) -> str:
    """Return the findings of an audit as Markdown."""
    lines = ["| finding | cases | images | policy | put aside |", "|" + " --- |" * 5]
    for finding in audit["findings"]:
        counts = f"{len(finding['cases']):,} | {finding['images']:,} | {finding['policy']} | {finding['quarantined']:,}"
        lines.append(f"| {finding['finding']} | {counts} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="What is wrong with the published sets.")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"), metavar="DIR", help="(default: runs/quality)")
    args = parser.parse_args()
    os.chdir(ROOT)
    data = Path(os.environ.get("DERMARAY_DATA", "../shared/data"))
    report = []
    for name in SETS:
        words = [str(data / name), "--reference", str(data / "isic2019"), "--out", str(args.out / name), "--overwrite"]
        run = watched(["-m", "jobs.prepare", *words])
        audit = json.loads((args.out / name / "audit.json").read_text(encoding="utf-8"))
        cost = f"{run['seconds']} s, {run['peak_mib']:,} MiB at most over all processes, {os.cpu_count()} CPU cores"
        counts = f"{audit['images']:,} images, {audit['usable']:,} usable, {audit['quarantined']:,} put aside"
        report.append(f"\n`{run['command']}`\n\n{counts}. {cost}.\n\n{table(audit)}")
    print("\n".join(report))


if __name__ == "__main__":
    main()
