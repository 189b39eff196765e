"""Weights out of a file that PyTorch wrote before its version 1.6, read without PyTorch.

Such a file is a row of pickles (a magic number, a protocol version, facts of the machine, a dictionary of tensors, the
keys of their storages) and then the storages' bytes. A pickle may call anything, so what it calls here is limited to
what a dictionary of tensors needs.
"""

import hashlib
import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dermaray.errors import ArtifactError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Tensor(NamedTuple):
    """The first arguments of `torch._utils._rebuild_tensor_v2`; offset and strides count elements."""

    storage: tuple[str, np.dtype[Any], str, str, int, None]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _Tensor(*arguments[:4])
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_state_dict(path: Path, sha256: str) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a file by name.

    Args:
        path: The file.
        sha256: What its bytes must hash to, as 64 hexadecimal digits.

    Raises:
        ArtifactError: The file cannot be read, is another one, or is no dictionary of tensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    received = hashlib.sha256(data).hexdigest()
    if received != sha256:
        raise ArtifactError(f"{path} is not the file that was expected, with SHA-256 {sha256}. Received: {received}")
    file = io.BytesIO(data)
    try:
        magic, protocol, _, tensors, keys = (_Unpickler(file).load() for _ in range(5))
        if (magic, protocol) != (_MAGIC, _PROTOCOL):
            raise pickle.UnpicklingError(f"its magic number and protocol are {magic} and {protocol}")
        dtypes = {tensor.storage[2]: tensor.storage[1] for tensor in tensors.values()}
        storages = {key: _read_storage(file, dtypes[key]) for key in keys}
        return {name: _to_array(tensor, storages[tensor.storage[2]]) for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no dictionary of tensors as PyTorch wrote them: {error}") from error


def _read_storage(file: io.BytesIO, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    count = int.from_bytes(file.read(8), "little")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype, count)


def _to_array(tensor: _Tensor, storage: npt.NDArray[Any]) -> npt.NDArray[Any]:
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if not 0 <= tensor.offset <= last < len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(view)
