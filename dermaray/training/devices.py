"""The device of a training worker, and how workers exchange gradients."""

import tensorflow as tf

from dermaray.errors import ResourceError


def hide_gpus() -> None:
    """Leave the machine's GPUs alone; to be called before anything else of TensorFlow.

    Ray hides no GPU from who asked for none. A strategy would take all of them, and draw a batch for each.
    """
    tf.config.set_visible_devices([], "GPU")


def worker_strategy(workers: int, use_gpu: bool) -> tf.distribute.Strategy:
    """Return the strategy of a worker; to be called before anything else of TensorFlow.

    Args:
        workers: How many train together, each with one device.
        use_gpu: Whether that is the GPU that Ray has given this worker; else it is the CPU, whatever there is besides.

    Raises:
        ResourceError: TensorFlow does not see just the one GPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not use_gpu:
        hide_gpus()
    elif len(gpus) != 1:
        raise ResourceError(
            f"scaling.use_gpu needs TensorFlow to see the one GPU of this worker; it sees {len(gpus)}. "
            "For none, pip install 'dermaray[gpu]' on every node; for several, let Ray set CUDA_VISIBLE_DEVICES"
        )
    if workers == 1:
        return tf.distribute.get_strategy()
    if not use_gpu:
        return tf.distribute.MultiWorkerMirroredStrategy()
    # By itself TensorFlow exchanges gradients over gRPC, from GPU to GPU as well.
    nccl = tf.distribute.experimental.CommunicationImplementation.NCCL
    options = tf.distribute.experimental.CommunicationOptions(implementation=nccl)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
