"""What the processor that tests run on has instructions for."""

from pathlib import Path

_TOLD = Path("/proc/cpuinfo")

BFLOAT16 = _TOLD.exists() and not {"avx512_bf16", "amx_bf16"}.isdisjoint(_TOLD.read_text().split())
