"""The manifests in k8s/, checked as strictly as Kubernetes is lenient: it drops unknown fields without a word."""

import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CRDS = Path(os.environ.get("DERMARAY_CRDS", ROOT.parent / "shared" / "kuberay-crds"))
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}
CLUSTER_KEYS = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}

needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason=f"no KubeRay CRDs at {CRDS}; set DERMARAY_CRDS")


def load(name: str) -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "k8s" / name).read_text())
    assert isinstance(document, dict)
    return document


def with_gpu_workers() -> dict[str, Any]:
    cluster = load("raycluster.yaml")
    (patch,) = yaml.safe_load((ROOT / "k8s" / "gpu-workers.yaml").read_text())
    assert (patch["op"], patch["path"]) == ("add", "/spec/workerGroupSpecs/-")
    cluster["spec"]["workerGroupSpecs"].append(patch["value"])
    return cluster


def documents() -> dict[str, dict[str, Any]]:
    names = ("raycluster.yaml", "rayjob-train.yaml", "rayjob-score.yaml", "rayservice.yaml")
    return {name: load(name) for name in names} | {"gpu-workers.yaml": with_gpu_workers()}


def cluster_spec(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    for key in CLUSTER_KEYS[document["kind"]]:
        spec = spec[key]
    assert isinstance(spec, dict)
    return spec


def pods(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = cluster_spec(document)
    yield spec["headGroupSpec"]["template"]["spec"]
    for group in spec["workerGroupSpecs"]:
        yield group["template"]["spec"]
    if "submitterPodTemplate" in document["spec"]:
        yield document["spec"]["submitterPodTemplate"]["spec"]


def containers(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for pod in pods(document):
        yield from pod["containers"]


def strict(schema: Any, top: bool = False) -> Any:
    """Forbid in every object what its schema does not name, as `kubectl --validate=strict` does."""
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    properties = {name: strict(value) for name, value in schema.get("properties", {}).items()}
    if properties:
        schema["properties"] = properties
    for key in ("items", "additionalProperties"):
        if key in schema:
            schema[key] = strict(schema[key])
    if top:
        # The schema leaves the object's own metadata to the API server.
        schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("type") == "object" and not open_ended:
        schema["additionalProperties"] = False
    return schema


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    found = {}
    for kind, plural in KINDS.items():
        text = (CRDS / f"ray.io_{plural}.yaml").read_text()
        versions = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"]
        (version,) = (version for version in versions if version["name"] == "v1")
        schema = strict(version["schema"]["openAPIV3Schema"], top=True)
        found[kind] = jsonschema.Draft202012Validator(schema)
    return found


@needs_crds
@pytest.mark.parametrize("name", documents())
def test_manifest_fits_its_crd(name: str, schemas: dict[str, Any]) -> None:
    document = documents()[name]
    assert document["apiVersion"] == "ray.io/v1"
    schemas[document["kind"]].validate(document)


@needs_crds
def test_check_finds_a_misspelt_field(schemas: dict[str, Any]) -> None:
    document = load("raycluster.yaml")
    for place in (
        document["spec"],
        document["spec"]["workerGroupSpecs"][0],
        document["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0],
    ):
        place["minReplica"] = 1
        with pytest.raises(jsonschema.ValidationError, match="minReplica"):
            schemas["RayCluster"].validate(document)
        del place["minReplica"]
    schemas["RayCluster"].validate(document)


def test_every_file_is_known_to_this_test() -> None:
    known = set(documents()) | {"kustomization.yaml", "storage.yaml"}
    assert {path.name for path in (ROOT / "k8s").glob("*.y*ml")} == known
    # KubeRay names services after these; equal names would fight over one.
    names = [load(name)["metadata"]["name"] for name in documents() if name != "gpu-workers.yaml"]
    assert len(names) == len(set(names))
    for name in load("kustomization.yaml")["resources"]:
        assert (ROOT / "k8s" / name).is_file()


@pytest.mark.parametrize("document", documents().values(), ids=documents())
def test_images_and_ray_have_the_project_s_versions(document: dict[str, Any]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for container in containers(document):
        assert re.fullmatch(rf"dermaray:{re.escape(version)}(-gpu)?", container["image"])
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    assert locked is not None
    assert cluster_spec(document)["rayVersion"] == locked[1]


@pytest.mark.parametrize("document", documents().values(), ids=documents())
def test_pods_are_confined(document: dict[str, Any]) -> None:
    assert cluster_spec(document)["authOptions"] == {"mode": "token", "secretName": "dermaray-token"}
    assert cluster_spec(document)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    claims = {claim["metadata"]["name"] for claim in yaml.safe_load_all((ROOT / "k8s/storage.yaml").read_text())}
    for pod in pods(document):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {volume["persistentVolumeClaim"]["claimName"] for volume in pod.get("volumes", ())} <= claims
    for container in containers(document):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        for mount in container.get("volumeMounts", ()):
            assert mount.get("readOnly", False) is (mount["mountPath"] == "/data" or document["kind"] == "RayService")


@pytest.mark.parametrize("name", ["rayjob-train.yaml", "rayjob-score.yaml"])
def test_entrypoint_names_what_exists(name: str) -> None:
    words = shlex.split(load(name)["spec"]["entrypoint"])
    assert words[:2] == ["python", "-m"]
    assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file()
    assert words[words.index("--address") + 1] == "auto"
    for word in words:
        if word.startswith("/app/"):
            assert (ROOT / word.removeprefix("/app/")).is_file()


@pytest.mark.parametrize(
    ("name", "pattern", "share"),
    [("rayjob-train.yaml", r"scaling\.num_workers=(\d+)", 0.5), ("rayjob-score.yaml", r"--actors (\d+)", 1)],
)
def test_job_starts_with_the_cpus_it_asks_for(name: str, pattern: str, share: float) -> None:
    job = load(name)
    asked = re.search(pattern, job["spec"]["entrypoint"])
    assert asked is not None
    (group,) = cluster_spec(job)["workerGroupSpecs"]
    cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert group["minReplicas"] == group["replicas"]
    assert int(asked[1]) <= group["minReplicas"] * cpus * share


def test_serve_config_is_one_that_serve_takes() -> None:
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

    config = yaml.safe_load(load("rayservice.yaml")["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    # Serve, too, ignores what it does not know.
    assert set(config) <= set(ServeDeploySchema.model_fields)
    assert set(application) <= set(ServeApplicationSchema.model_fields)
    for deployment in application["deployments"]:
        assert set(deployment) <= set(DeploymentSchema.model_fields)
        assert set(deployment["autoscaling_config"]) <= set(AutoscalingConfig.model_fields)
    module, _, builder = application["import_path"].partition(":")
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    assert f"def {builder}(" in source
    for deployment in application["deployments"]:
        assert f"class {deployment['name']}" in source or f'"{deployment["name"]}"' in source


def test_image_starts_as_a_numbered_user_from_hashed_wheels() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER 1000(:1000)?$", text, flags=re.MULTILINE)
    assert "--require-hashes" in text
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    named = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    for line in text.splitlines():
        if line.startswith("COPY") and "$" not in line:
            for source in line.split()[1:-1]:
                assert source in named
