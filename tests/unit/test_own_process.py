"""How TensorFlow and Keras are set up where a process is dermaray's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dermaray.models.own_process import _bound_threads, import_keras

STEPS = """
import os, resource
# Where a processor has instructions for neural networks, TensorFlow's own kernels for it keep their memory.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
{load}
import tensorflow as tf
ones = tf.ones((4096, 2560))
faults = []
for _ in range(10):
    (ones + 1) * (ones + 2)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[4])
"""
WORK = """
import resource, threading
{load}
def work():
    for _ in range(20):
        bytearray({size} << 20)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
faults = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults[-1] - faults[4])
"""
SCORER = "from dermaray.models.own_process import return_memory; return_memory()"
WORKER = "from dermaray.models.own_process import keep_work_memory; keep_work_memory()"
OURS = """
import sys
from dermaray.models.own_process import import_keras; import_keras()
print(*(name in sys.modules for name in ("keras", "tensorflow", "sklearn", "matplotlib")))
import matplotlib.pyplot
import sklearn.metrics
print(sklearn.metrics.roc_auc_score([0, 1], [0.1, 0.9]))
"""
ITS_OWN = """
import sys, keras
print('sklearn' in sys.modules or 'matplotlib' in sys.modules)
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TF_CPU_ALLOCATOR_USE_BFC", "TF_CPU_BFC_MEM_LIMIT_IN_MB"):
        # So that it is put back afterwards, whatever the test makes of it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def printed(code: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return ran.stdout.split()


def test_keras_comes_with_the_memory_of_its_tensors_and_without_what_it_imports_in_passing(environment: None) -> None:
    ours, its_own = (printed(STEPS.format(load=load)) for load in (OURS, ITS_OWN))
    # What it leaves out can be had afterwards.
    assert ours[:-1] == ["True", "True", "False", "False", "1.0"]
    # Three tensors of 42 MB a step are 460,000 pages of 4 kB; those of the step before are taken again.
    assert int(ours[-1]) < 200
    # Should these fail, Keras has learnt to wait with its imports, or TensorFlow keeps memory by itself.
    assert its_own[:-1] == ["True"]
    assert int(its_own[-1]) > 20_000


def test_work_space_of_a_step_takes_the_memory_of_the_step_before(environment: None) -> None:
    kept, by_default = (int(printed(WORK.format(load=load, size=64))[-1]) for load in (WORKER, ""))
    # 64 MiB are 16,384 pages of 4 kB, fifteen times over.
    assert kept < 200
    assert by_default > 200_000


def test_a_batch_of_a_process_that_scores_goes_back_to_the_system() -> None:
    returned, by_default = (int(printed(WORK.format(load=load, size=4))[-1]) for load in (SCORER, ""))
    # 4 MiB are 1,024 pages of 4 kB, fifteen times over.
    assert returned > 15_000
    # Should this fail, malloc gives memory back by itself.
    assert by_default < 1_000


def test_what_the_user_has_set_stands(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPU_ALLOCATOR_USE_BFC", "0")
    import_keras()
    assert os.environ["TF_CPU_ALLOCATOR_USE_BFC"] == "0"


def test_the_limit_is_the_machine_s_memory(environment: None) -> None:
    import_keras()
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) >> 10
    assert abs(int(os.environ["TF_CPU_BFC_MEM_LIMIT_IN_MB"]) - total) <= 1


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({"cpu.max": "150000 100000"}, "2"),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1"),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "800000 100000"}, None),
        ({}, None),
    ],
)
def test_there_are_as_many_threads_as_a_container_has_cpus(
    files: dict[str, str], threads: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    for pool in ("INTRAOP", "INTEROP"):
        monkeypatch.delenv(f"TF_NUM_{pool}_THREADS", raising=False)
    _bound_threads(tmp_path)
    assert [os.environ.pop(f"TF_NUM_{pool}_THREADS", None) for pool in ("INTRAOP", "INTEROP")] == [threads] * 2
