"""An object store on the loopback interface."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
"""What the environment has to hold of whoever uses it."""


class Bucket:
    """An empty bucket."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name, self.endpoint = name, f"http://{host}:{port}"
        self.query = f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        self.client: Any = boto3.client("s3", endpoint_url=self.endpoint, **keys)
        self.client.create_bucket(Bucket=name)

    def uri(self, path: str) -> str:
        return f"s3://{self.name}/{path}{self.query}"

    def files(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return [each["Key"] for each in found if not each["Key"].endswith("/")]


@contextmanager
def new_bucket(name: str) -> Iterator[Bucket]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield Bucket(name, *server.get_host_and_port())
    finally:
        server.stop()
