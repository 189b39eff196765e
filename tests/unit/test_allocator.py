"""What TensorFlow does with the memory of its tensors."""

import os
import subprocess
import sys

import pytest

from dermaray.models.allocator import keep_tensor_memory

STEPS = """
import resource
from dermaray.models.allocator import keep_tensor_memory
{keep}
import tensorflow as tf
ones = tf.ones((4096, 2560))
faults = []
for _ in range(20):
    (ones + 1) * (ones + 2)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[4])
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TF_CPU_ALLOCATOR_USE_BFC", "TF_CPU_BFC_MEM_LIMIT_IN_MB"):
        # So that it is put back afterwards, whatever the test makes of it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def faulted_pages(keep: str) -> int:
    """Return how many pages the operating system had to map for 15 steps."""
    ran = subprocess.run([sys.executable, "-c", STEPS.format(keep=keep)], check=True, capture_output=True, text=True)
    return int(ran.stdout.splitlines()[-1])


def test_tensors_of_a_step_take_the_memory_of_the_step_before(environment: None) -> None:
    # Three tensors of 42 MB a step are 460,000 pages of 4 kB.
    assert faulted_pages("keep_tensor_memory()") < 5_000
    # Should this fail, TensorFlow keeps memory by itself, and the module is needless.
    assert faulted_pages("") > 20_000


def test_what_the_user_has_set_stands(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPU_ALLOCATOR_USE_BFC", "0")
    keep_tensor_memory()
    assert os.environ["TF_CPU_ALLOCATOR_USE_BFC"] == "0"


def test_the_limit_is_the_machine_s_memory(environment: None) -> None:
    keep_tensor_memory()
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) >> 10
    assert abs(int(os.environ["TF_CPU_BFC_MEM_LIMIT_IN_MB"]) - total) <= 1
