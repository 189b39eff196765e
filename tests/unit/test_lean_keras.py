"""What is left out where Keras is imported, and what is not."""

import subprocess
import sys

LEAN = """
import sys
from dermaray.models.lean_keras import import_lean_keras
import_lean_keras()
print(*(name in sys.modules for name in ("keras", "tensorflow", "sklearn", "matplotlib")))
import matplotlib.pyplot
import sklearn.metrics
print(sklearn.metrics.roc_auc_score([0, 1], [0.1, 0.9]))
"""


def printed(code: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return ran.stdout.split()


def test_keras_comes_without_what_it_imports_in_passing_and_that_can_be_had_afterwards() -> None:
    assert printed(LEAN) == ["True", "True", "False", "False", "1.0"]


def test_keras_imports_them_by_itself() -> None:
    # Should this fail, Keras has learnt to wait with it, and the module is needless.
    assert printed("import sys, keras; print('sklearn' in sys.modules or 'matplotlib' in sys.modules)") == ["True"]
