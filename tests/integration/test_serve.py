"""The HTTP application: what it answers to images, and to what is none."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from ray import serve

from cluster.ports import check_port, free_port
from dermaray.errors import AddressInUse, ClusterError
from dermaray.images.decode import MAX_BYTES
from jobs.serve import APPLICATION_NAME, serving


@pytest.fixture(scope="module")
def client(model: Path, fresh_serve: None) -> Iterator[httpx.Client]:
    with serving(model, "127.0.0.1", free_port()) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def image(images: Path) -> bytes:
    return sorted(images.rglob("*.jpg"))[0].read_bytes()


def test_a_body_and_a_form_get_the_same_answer(client: httpx.Client, image: bytes) -> None:
    body = client.post("/v1/predict", content=image)
    form = client.post("/v1/predict", files={"file": ("lesion.jpg", image, "image/jpeg")})
    assert body.status_code == form.status_code == 200
    assert body.json() == form.json()
    answer = body.json()
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answer["melanoma_probability"] == answer["probabilities"]["melanoma"]
    assert {"alert", "refer", "prediction_set", "ood_score", "model", "model_version", "model_digest"} < set(answer)
    assert answer["width"] > answer["height"] > 0


def test_what_was_decoded_for_another_model_is_not_scored(client: httpx.Client) -> None:
    digest = client.get("/healthz").json()["model_digest"]
    classifier = serve.get_deployment_handle("Classifier", APPLICATION_NAME)
    image = np.zeros((32, 48, 3), np.uint8)
    answers = [classifier.predictions.remote(asked, image) for asked in ("another", digest, "another", digest)]
    of = [answer.result() for answer in answers]
    assert [prediction and prediction.model_digest for prediction in of] == [None, digest, None, digest]


def test_health(client: httpx.Client) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


REFUSED = {
    "nothing": (b"", 400, "empty"),
    "a web page": (b"<html></html>", 415, "not_an_image"),
    "a short image": (None, 422, "truncated"),
    "too many bytes": (b"\0" * (MAX_BYTES + 100_000), 413, "too_large"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_image_is_refused_with_a_reason(kind: str, client: httpx.Client, image: bytes) -> None:
    data, status, reason = REFUSED[kind]
    answer = client.post("/v1/predict", content=image[:1500] if data is None else data)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason)
    assert answer.json()["error"]["message"]


def test_a_form_without_a_file_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", data={"text": "no file"}, files={})
    assert answer.status_code in (400, 415), json.dumps(answer.json())


@pytest.mark.parametrize("charset", ["utf-8", "undefined", "no such"])
def test_a_charset_that_decodes_nothing_is_the_senders(charset: str, client: httpx.Client, image: bytes) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    kind = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = client.post("/v1/predict", content=head + image + b"\r\n--x--\r\n", headers=kind)
    assert answer.status_code == (415 if charset == "undefined" else 200)


def test_a_form_of_two_files_is_refused_like_an_image(client: httpx.Client, image: bytes) -> None:
    answer = client.post("/v1/predict", files=[("a", ("a.jpg", image)), ("b", ("b.jpg", image))])
    assert (answer.status_code, answer.json()["error"]["reason"]) == (415, "not_an_image")


def test_the_page_to_try_it_asks_for_a_file(client: httpx.Client) -> None:
    body = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
    assert body["content"]["multipart/form-data"]["schema"]["required"] == ["file"]


def test_a_second_command_takes_nobodys_place(client: httpx.Client, model: Path) -> None:
    port = client.base_url.port
    assert port is not None
    for host, wanted, message in (("127.0.0.1", port, "serves a model already"), ("127.0.0.1", 1, f"at .*:{port}")):
        with pytest.raises(ClusterError, match=message), serving(model, host, wanted):
            pass
    assert client.get("/healthz").status_code == 200


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(AddressInUse, match="in use"):
        check_port("127.0.0.1", server.getsockname()[1])


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 0), ("127.0.0.1", 70000), ("no.such.host.invalid", 8000)])
def test_an_address_that_cannot_be_is_refused(host: str, port: int) -> None:
    with pytest.raises(ClusterError):
        check_port(host, port)
