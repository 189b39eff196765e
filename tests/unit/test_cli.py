"""The command line: help at once, one line for a mistake."""

import errno
import os
import re
import subprocess
import sys

import pytest

from jobs import submit
from jobs.cli import JOBS, main

SLOW = ("ray", "tensorflow", "keras", "pandas", "numpy", "pyarrow", "sklearn", "matplotlib", "pydantic", "Augmentor")


@pytest.mark.parametrize("words", [["--help"], *([job, "--help"] for job in JOBS)], ids=" ".join)
def test_help_imports_nothing_slow(words: list[str]) -> None:
    script = (
        "import sys\nfrom jobs.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit as end: code = end.code\n"
        f"loaded = sorted(set({SLOW!r}) & set(sys.modules))\nassert not loaded and not code, (loaded, code)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: dermaray" in result.stdout


def test_the_summary_of_submit_names_the_jobs_that_it_takes() -> None:
    assert [word for word in re.findall(r"[a-z]+", JOBS["submit"]) if word in JOBS] == list(submit.JOBS)


AT_ITS_START = """
import os, sys
import jobs.score
from jobs.cli import main

def run(args):
    print("ray" in sys.modules, os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"], len(os.environ["RAY_AUTH_TOKEN"]))
    import ray._private.ray_constants
    print(ray._private.ray_constants.ENABLE_RAY_CLUSTER)
    return 0

jobs.score.run = run
main(["score", "images", "--out", "scores"])
"""


def test_an_embedded_ray_is_guarded_before_anything_imports_ray() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", AT_ITS_START], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["False", "0", "64", "False"]


def test_an_output_that_nobody_reads_any_more_is_no_traceback() -> None:
    script = "import sys; from jobs.cli import main; sys.exit(main(['runs', 'runs-of-nobody']))"
    for printing in ("print('x' * 100_000)", "from jobs.console import say; say('x' * 100_000)"):
        code = f"import jobs.runs\ndef run(args):\n    {printing}\n    return 0\njobs.runs.run = run\n{script}"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            said = process.stderr.read().decode()
        assert process.returncode in (0, 2), said
        assert "Traceback" not in said
        assert "ignored" not in said


def test_a_path_that_may_not_be_accessed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/private/x")

    monkeypatch.setattr("jobs.runs.run", run)
    assert main(["runs"]) == 2
    assert capsys.readouterr().err == (
        "dermaray runs: /private/x: Permission denied. Give access to it, or name another path\n"
    )


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("jobs.runs.run", run)
    assert main(["runs"]) == 2
    told = "cannot write: No space left on device. Make room, and give the same command again"
    assert capsys.readouterr().err == f"dermaray runs: {told}\n"


@pytest.mark.parametrize("job", JOBS)
def test_every_job_is_a_module_of_its_own(job: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", f"jobs.{job}", "--help"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: dermaray {job}")


MISTAKES = {
    "an unknown job": (["frobnicate"], "frobnicate"),
    "no job": ([], "JOB"),
    "a missing source": (["prepare", "/nowhere", "--out", "{tmp}/out"], "/nowhere does not exist"),
    "no output": (["prepare", "."], "--out"),
    "an empty source": (["prepare", "{tmp}/empty", "--out", "{tmp}/out"], "holds no folder"),
    "an empty class folder": (["prepare", "{tmp}/classes", "--out", "{tmp}/out"], "holds no image"),
    "an output that holds files": (["prepare", "{tmp}/classes", "--out", "{tmp}/full"], "did not write"),
    "a missing configuration": (["train", "--config", "/nowhere.yaml"], "configs/"),
    "an unknown key": (["train", "--config", "{config}", "training.epoch=3"], "Did you mean 'epochs'"),
    "a value out of range": (["train", "--config", "{config}", "training.epochs=0"], "Received: 0"),
    "a seed below zero": (["prepare", ".", "--seed", "-1", "--out", "{tmp}/out"], "Received: -1"),
    "a missing manifest": (["train", "--config", "{config}", "data.manifest=/no.parquet"], "dermaray prepare"),
    "a missing model": (["score", ".", "--model", "/nowhere", "--out", "{tmp}/out"], "/nowhere does not exist"),
    "a folder that is no model": (["serve", "--model", "{tmp}/full"], "holds no artifact.json"),
    "a model that is damaged": (["serve", "--model", "{tmp}/damaged"], "is damaged"),
    "an output that is a URI": (["prepare", ".", "--out", "s3://bucket/out"], "a local folder was expected"),
    "a run that is to be a URI": (
        ["train", "--config", "{config}", "out=s3://bucket/run"],
        "a local folder was expected",
    ),
    "a path that is none": (["prepare", ".", "--out", "x" * 300], "File name too long"),
    "a submission to nowhere": (["submit", "train", "--address", "ftp://x"], "ftp://x"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    mistake: str, tmp_path: object, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    tmp = request.getfixturevalue("tmp_path")
    for folder in ("empty", "classes/melanoma", "full", "damaged"):
        (tmp / folder).mkdir(parents=True)
    (tmp / "full" / "file.txt").write_text("mine")
    (tmp / "damaged" / "artifact.json").write_text('{"format_version": 1')
    config = request.config.rootpath / "configs" / "case-study-balanced.yaml"
    words, expected = MISTAKES[mistake]
    try:
        code = main([word.format(tmp=tmp, config=config) for word in words])
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("dermaray")
    assert not (tmp / "out").exists()


@pytest.mark.parametrize(
    ("override", "lost"),
    [
        ("out=runs/x", "runs/x"),
        ("checkpoint.storage=checkpoints", "checkpoints"),
        ("tracking.mlflow=sqlite:///mlflow.db", "mlflow.db"),
    ],
)
def test_a_submitted_job_writes_nothing_that_would_be_lost(
    override: str,
    lost: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    config = request.config.rootpath / "configs" / "case-study-balanced.yaml"
    lasting = ["out=/shared/x", "checkpoint.storage=s3://mine/runs", "tracking.mlflow=sqlite:////shared/mlflow.db"]
    assert main(["train", "--config", str(config), *lasting, override]) == 2
    assert f"the output {lost} would be lost" in capsys.readouterr().err
    # What lasts is not what is complained of.
    assert main(["train", "--config", str(config), *lasting, "data.manifest=/no.parquet"]) == 2
    assert "/no.parquet" in capsys.readouterr().err
