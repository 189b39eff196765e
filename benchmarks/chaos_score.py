"""python -m benchmarks.chaos_score [--kills 60] [--images 10240] [--seed 0]      (about 45 minutes on 2 CPU cores)

Kill bulk scoring with SIGKILL at seeded moments: a process that scores, the driver, or all of Ray in turn, with the
output on the local disk or in an S3 server on this machine. A run whose driver was lost is taken up by its command; one
that ends before its moment has come does not count.
Each has to end with one row for every input, and with the very rows of a run that nobody disturbed, but for the time in
them.

With --kills 0 --images 122880 it measures instead what a run costs of which nine tenths are there already, and what a
run of one image does; medians of three. Ten seconds of scoring would be too few to tell.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.processes import VICTIMS, below, kill, wait_for_the_end
from dermaray.data.storage import locate, stamp
from dermaray.data.synthetic import generate_dataset
from dermaray.scoring.ledger import RUN, SCORES, SUCCESS, SUMMARY
from tests.object_store import KEYS, Bucket, new_bucket

ROOT = Path(__file__).resolve().parents[1]
LONGEST_SECONDS, MOST_COMMANDS = 300, 5
CONFIG = """
name: chaos
out: {folder}/model
data: {{manifest: {folder}/data}}
input: {{height: 64, width: 64}}
model: {{options: {{filters: [8, 16], dense: 32}}}}
training: {{epochs: 1, global_batch_size: 24}}
"""


def run(*words: str) -> float:
    """Run a job to its end, and return how many seconds it took."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def prepare(folder: Path, images: int) -> None:
    """Make a model, and so many files to score, of which few are different."""
    generate_dataset(folder / "images", 300)
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    run("jobs.prepare", str(folder / "images"), "--out", str(folder / "data"))
    run("jobs.train", "--config", str(folder / "config.yaml"))
    (folder / "archive").mkdir()
    (folder / "few").mkdir()
    originals = sorted((folder / "images").rglob("*.jpg"))
    for number in range(images):
        os.link(originals[number % len(originals)], folder / "archive" / f"{number:06}.jpg")
    os.link(originals[0], folder / "few" / "0.jpg")


def rows(out: str) -> pa.Table:
    """Return the rows of a result, sorted, without the time."""
    filesystem, path = locate(out)
    return pq.read_table(f"{path}/{SCORES}", filesystem=filesystem).drop_columns(["scored_at"]).sort_by("uri")


def scoring(folder: Path, out: str) -> list[str]:
    """Return the command that scores the archive."""
    archive, model = str(folder / "archive"), str(folder / "model")
    return [sys.executable, "-m", "jobs.score", archive, "--model", model, "--out", out]


def there(out: str, name: str) -> bool:
    """Tell whether a result has a file."""
    base, mark, query = out.partition("?")
    return bool(stamp(f"{base}/{name}{mark}{query}"))


def undisturbed(score: list[str], out: str) -> tuple[float, float]:
    """Score, and return how many seconds that took, and how many of these from when the result was begun."""
    start = time.monotonic()
    process = subprocess.Popen(score, cwd=ROOT, stdout=subprocess.DEVNULL)
    until_begun(process, out)
    begun = time.monotonic()
    if process.wait():
        raise SystemExit("the run that nobody disturbs failed")
    return time.monotonic() - start, time.monotonic() - begun


def until_begun(process: subprocess.Popen[bytes], out: str) -> None:
    """Wait until a result is begun, or who would do it has ended."""
    while not there(out, RUN) and process.poll() is None:
        time.sleep(0.05)


def disturbed(score: list[str], out: str, what: str, after: float, rng: random.Random) -> int:
    """Score, kill `what` some seconds after the result was begun, and repeat the command until it succeeds.

    Returns:
        How many commands that took; 0 where the run ended before there was anybody to kill.
    """
    killed = False
    for commands in range(1, MOST_COMMANDS + 1):
        process = subprocess.Popen(score, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if commands == 1:
            until_begun(process, out)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=after)
        started = set(below(process.pid))
        # It may be early: then as soon as there is somebody to kill.
        while not killed and process.poll() is None:
            killed = kill(what, process.pid, b"ReadAndScore", rng)
            time.sleep(0.05)
        if wait_for_the_end(process, started, LONGEST_SECONDS) == 0:
            return commands if killed else 0
        if not killed:
            raise SystemExit("a run failed that nobody had disturbed")
    raise SystemExit(f"the run did not end in {MOST_COMMANDS} commands after the kill of {what}")


def chaos(folder: Path, bucket: Bucket, kills: int, seconds: float, rng: random.Random) -> int:
    """Print a row for every kill; return how many runs did not end as they should."""
    expected = rows(str(folder / "undisturbed"))
    print("| kill | of | output | after, s | commands | s | lost | twice | other rows |")
    print("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    number = attempts = wrong = 0
    while number < kills:
        what, kind = VICTIMS[number % len(VICTIMS)], ("disk", "S3")[number // len(VICTIMS) % 2]
        out = str(folder / f"out-{attempts}") if kind == "disk" else bucket.uri(f"out-{attempts}")
        after, began = rng.uniform(0, seconds), time.monotonic()
        commands = disturbed(scoring(folder, out), out, what, after, rng)
        attempts += 1
        if not commands:
            continue
        number += 1
        took, found = time.monotonic() - began, rows(out)
        times = Counter(found["uri"].to_pylist())
        lost = len(set(expected["uri"].to_pylist()) - set(times))
        twice = sum(count > 1 for count in times.values())
        same = found.equals(expected) and there(out, SUCCESS)
        wrong += not same
        numbers = f"{after:.1f} | {commands} | {took:.0f} | {lost} | {twice} | {'no' if same else 'YES'}"
        print(f"| {number} | {what} | {kind} | {numbers} |", flush=True)
    return wrong


def resuming(folder: Path, whole: float) -> None:
    """Print which share of a whole run, beyond what any run takes, its last tenth costs."""
    few = ("jobs.score", str(folder / "few"), "--model", str(folder / "model"), "--out")
    start = median(run(*few, str(folder / f"start-{i}")) for i in range(3))
    share = (median(resumed(folder) for _ in range(3)) - start) / (whole - start)
    print(f"undisturbed: {whole:.1f} s, of which {start:.1f} s a run of one image takes as well")
    print(f"With nine tenths there, the rest took {share:.1%} of the whole beyond that")


def resumed(folder: Path) -> float:
    """Take a tenth of its shards from a result, and return how many seconds the command takes to complete it."""
    out = folder / "undisturbed"
    for name in (SUCCESS, SUMMARY):
        (out / name).unlink()
    parts = sorted((out / SCORES).iterdir())
    for part in parts[: max(1, len(parts) // 10)]:
        part.unlink()
    return run(*scoring(folder, str(out))[2:])


def main() -> None:
    """Print the tables; exit with 1 where a run did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--images", type=int, default=10_240)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # A driver whose Ray is gone waits for it to come back, a minute by default.
    os.environ |= KEYS | {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    with tempfile.TemporaryDirectory() as made, new_bucket("scores") as bucket:
        folder = Path(made)
        prepare(folder, args.images)
        out = str(folder / "undisturbed")
        whole, seconds = undisturbed(scoring(folder, out), out)
        if not args.kills:
            resuming(folder, whole)
            return
        wrong = chaos(folder, bucket, args.kills, seconds, random.Random(args.seed))
    print(f"\n{wrong} runs ended otherwise")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
