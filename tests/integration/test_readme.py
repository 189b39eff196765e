"""The README's commands and code run as they stand."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cluster.ports import free_port
from jobs.serve import serving

RunJob = Callable[..., int]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What makes the README's training run take seconds; everything else is run word for word.
SMALLER = [
    *("training.epochs=1", "input.height=32", "input.width=32", "training.global_batch_size=16"),
    "data.balance={n_per_class: 16}",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in blocks("bash")[0].splitlines() if line and line[0] != "#"]


@pytest.fixture
def workplace(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where the files that the README speaks of exist."""
    lesion = sorted(images.rglob("*.jpg"))[0]
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(images, tmp_path / "path/to/images")
    shutil.copy(lesion, tmp_path / "lesion.jpg")
    shutil.make_archive(str(tmp_path / "path/to/archive"), "zip", lesion.parent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_and_code_run(
    workplace: Path, run_job: RunJob, fresh_serve: None, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = [words[:2] for words in commands()]
    assert [p[1] for p in programs if p[0] == "dermaray"] == [
        "prepare",
        "preview",
        "train",
        "evaluate",
        "explain",
        "score",
        "serve",
    ]
    for words in commands():
        match words:
            case ["dermaray", "serve", "--model", model]:
                port = free_port()
                with serving(Path(model), "127.0.0.1", port):
                    curl = next(w for w in commands() if w[0] == "curl")
                    url = curl[-1].replace(":8000", f":{port}")
                    answer = httpx.post(url, content=Path(curl[2].removeprefix("@")).read_bytes(), timeout=60)
                assert answer.status_code == 200
            case ["dermaray", "train", *rest]:
                assert run_job("train", *rest, *SMALLER) == 0
            case ["dermaray", job, *rest]:
                assert run_job(job, *rest) == 0
    for path in re.findall(r"runs/\S+\.(?:html|csv|parquet)", README):
        assert (workplace / path).exists(), path
    capsys.readouterr()
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})
    label, probability = capsys.readouterr().out.rsplit(maxsplit=1)
    assert label
    assert 0 <= float(probability) <= 1


def test_files_that_the_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for path in re.findall(r"`(configs/[\w.-]+)`", README):
        assert (ROOT / path).exists(), path
