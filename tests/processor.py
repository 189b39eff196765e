"""What the processor that tests run on has instructions for."""

from functools import cache
from importlib.util import find_spec

import pytest


@cache
def _computes_in_bfloat16() -> bool:
    from dermaray.models.openvino import knows_bfloat16

    return find_spec("openvino") is not None and knows_bfloat16()


def need_bfloat16() -> None:
    """Skip a test of what needs OpenVINO and a processor with instructions for bfloat16."""
    if not _computes_in_bfloat16():
        pytest.skip("OpenVINO or instructions for bfloat16 are missing")
