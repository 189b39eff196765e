"""What the processor that tests run on has instructions for."""

import pytest

from dermaray.models.openvino import knows_bfloat16


def need_bfloat16() -> None:
    """Skip a test of what needs OpenVINO and a processor with instructions for bfloat16."""
    if not knows_bfloat16():
        pytest.skip("OpenVINO or instructions for bfloat16 are missing")
