"""Where TensorFlow's tensors lie in memory, on CPUs."""

import os


def keep_tensor_memory() -> None:
    """Let TensorFlow keep the memory of its tensors, on CPUs as it does on GPUs.

    By default every large tensor is taken from the operating system and given back, in every step: a fourth of the time
    of a step, and half of it where images come by a Python generator, for then TensorFlow makes `malloc` give memory
    back sooner still. To be called before the first operation of this process; what the user has set stands.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Its own limit is 64 GiB, whatever the machine has.
    os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(memory >> 20))
