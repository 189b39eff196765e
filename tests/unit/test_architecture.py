"""The house stands as it is drawn: imports run downward, files stay small, preprocessing exists once."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "dermaray": {"dermaray"},
    "cluster": {"cluster", "dermaray"},
    "jobs": {"jobs", "cluster", "dermaray"},
    "serve": {"serve", "cluster", "dermaray"},
}
# Wings of the domain, from the ground up; each knows only those before it.
WINGS = ["images", "augmentation", "data", "decisions", "models", "scoring", "config", "evaluation", "training"]
MAY_NOT_IMPORT = {f"dermaray.{w}": {f"dermaray.{above}" for above in WINGS[i + 1 :]} for i, w in enumerate(WINGS)}
FILES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module or ""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_run_downward(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imports_of(path)} & set(MAY_IMPORT)
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_wing_knows_only_those_below(path: Path) -> None:
    wing = ".".join(path.relative_to(ROOT).with_suffix("").parts[:2])
    for forbidden in MAY_NOT_IMPORT.get(wing, set()):
        assert not [name for name in imports_of(path) if name.startswith(forbidden)]


def test_the_domain_knows_neither_http_nor_an_address() -> None:
    http = {"fastapi", "starlette", "requests", "httpx", "urllib", "http", "socket", "aiohttp", "uvicorn"}
    for path in (ROOT / "dermaray").rglob("*.py"):
        assert not http & {name.split(".")[0] for name in imports_of(path)}, path


def test_one_function_decodes_for_training_scoring_and_serving() -> None:
    users = {module_of(path) for path in FILES if re.search(r"import [^\n]*\bdecode_image\b", path.read_text())}
    definitions = [path for path in FILES if "def decode_image" in path.read_text()]
    assert len(definitions) == 1
    # Bulk scoring and the check of a source reach it through `Member.decode`.
    assert users == {"dermaray.data.members", "dermaray.models.predictor", "serve.app"}
    members = {module_of(path) for path in FILES if "member.decode(" in path.read_text()}
    explained = {"dermaray.models.explanations", "dermaray.scoring.gallery"}
    assert members == {"dermaray.data.inspect", "dermaray.models.bulk", *explained}
    # Training keeps frames, of which `decode_image` is the last step; a preview shows what training sees, and a gallery
    # the picture as it is.
    frames = {module_of(path) for path in FILES if "member.decode_frame(" in path.read_text()}
    assert frames == {"dermaray.data.streams", "dermaray.training.preview", "dermaray.scoring.gallery"}
    # Nobody opens an image in a way of his own.
    assert {module_of(path) for path in FILES if "Image.open" in path.read_text()} == {"dermaray.images.decode"}


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=module_of)
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_errors_module_draws_every_error() -> None:
    from dermaray import errors

    classes = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, errors.DermarayError)]
    assert len(classes) > 5
    for cls in classes:
        assert cls.__name__ in (errors.__doc__ or "")
