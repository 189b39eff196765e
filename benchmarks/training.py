"""What Ray and dermaray add to a training step, measured against TensorFlow and Keras alone.

    python -m benchmarks.training step    two workers, against two processes with a loop of their own and no Ray
    python -m benchmarks.training fit     one worker, against `model.fit` on NumPy arrays that are in memory

All sides have the same model, the same optimiser and batches of the same size; nothing is augmented. A round runs
them one after the other, each in processes of its own; the time of a step is that of the second epoch, so neither
decoding nor starting is in it, but the writing of the first epoch's checkpoint is. dermaray is stopped then, far from
the last of its planned epochs, so that its stream is at work all the while, as in the midst of a long run. How long it
took until its first epoch began is told apart. dermaray lets TensorFlow keep its memory, and has a batch
normalisation of its own; the bare side is run as TensorFlow and Keras are by default, and with both of these too, which
tells what Ray and the rest of dermaray cost. Figures are medians of the rounds, and of their ratios.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from cluster.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 9
PLANNED = 16
"""Epochs that dermaray believes are to come; the second is timed."""
CASES: dict[str, dict[str, Any]] = {
    "step": {
        "workers": 2,
        "images": 1300,
        "steps": 50,
        "size": 96,
        "batch": 64,
        "model": {"options": {"batch_normalization": True}},
    },
    "fit": {
        "workers": 1,
        "images": 400,
        "steps": 20,
        "size": 160,
        "batch": 32,
        "model": {"backbone": "efficientnet_lite0"},
    },
}


def config_of(case: dict[str, Any], folder: Path) -> Any:
    """Return the run of a case."""
    from dermaray.config import RunConfig

    return RunConfig.model_validate(
        {
            "name": "benchmark",
            "out": str(folder / "out"),
            # So that an epoch has the steps of the case, from however few images.
            "data": {"manifest": str(folder / "data"), "balance": {"n_per_class": images_of(case) // CLASSES}},
            "input": {"height": case["size"], "width": case["size"]},
            "model": case["model"],
            "training": {"epochs": PLANNED, "global_batch_size": case["batch"]},
            "scaling": {"num_workers": case["workers"]},
        }
    )


def dermaray_side(case: dict[str, Any], folder: Path) -> dict[str, float]:
    """Run `dermaray train` for as long as it is timed; return seconds a step, and seconds until the first epoch."""
    import yaml

    from dermaray.errors import OutputError, TrainingError
    from dermaray.training.state import RunState

    (folder / "config.yaml").write_text(yaml.safe_dump(config_of(case, folder).model_dump(mode="json")))
    # Of the round before, whose checkpoints would be taken for those of this one.
    shutil.rmtree(folder / ".out.unfinished", ignore_errors=True)
    command = [sys.executable, "-m", "jobs.train", "--config", str(folder / "config.yaml")]
    last = f".out.unfinished/checkpoints/attempt-*/step-{2 * case['steps']:010}/state.npz"
    began = time.perf_counter()
    # A shell has what it starts in the background ignore the signal by which this is stopped.
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=heed)
    epochs: list[dict[str, float]] = []
    while not epochs and process.poll() is None:
        time.sleep(0.1)
        for path in folder.glob(last):
            # Until it is whole.
            with suppress(TrainingError, OutputError, OSError), path.open("rb") as file:
                epochs = RunState.read(file).history
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGINT)
    process.wait()
    if not epochs:
        raise SystemExit("dermaray failed")
    within = sum(epoch["train_seconds"] + epoch["val_seconds"] for epoch in epochs)
    return {"step": epochs[1]["train_seconds"] / case["steps"], "start": seconds - within}


def images_of(case: dict[str, Any]) -> int:
    """Return how many images an epoch has: whole batches of them, and equally many of every class, or nearly so."""
    return -(-int(case["steps"] * case["batch"]) // CLASSES) * CLASSES


def bare_side(case: dict[str, Any], folder: Path, like_ours: bool) -> dict[str, float]:
    """Run the same without Ray, in as many processes; return seconds a step."""
    case = {**case, "like_ours": like_ours}
    ports = [free_port() for _ in range(case["workers"])]
    processes = []
    for index in range(case["workers"]):
        environment = {**os.environ, "TF_CPU_ALLOCATOR_USE_BFC": str(int(like_ours))}
        if case["workers"] > 1:
            cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        command = [sys.executable, "-m", "benchmarks.training", "--bare", str(folder), json.dumps(case)]
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("the bare side failed")
    return {"step": max(json.loads(output.splitlines()[-1]) for output in outputs)}


def bare(folder: Path, case: dict[str, Any]) -> float:
    """Train in this process on arrays in memory; return the seconds that a step took after the first epoch."""
    if case["like_ours"]:
        from dermaray.models.own_process import import_keras, keep_work_memory

        import_keras()
        keep_work_memory()
    return bare_loop(folder, case) if case["workers"] > 1 else bare_fit(folder, case)


def bare_fit(folder: Path, case: dict[str, Any]) -> float:
    """Train with `model.fit`."""
    import keras

    pixels, labels = arrays_of(case, folder)
    model = model_of(case, folder)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    times: list[float] = []

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            times.append(time.perf_counter())

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            times[-1] = time.perf_counter() - times[-1]

    model.fit(pixels, labels, batch_size=case["batch"], epochs=2, verbose=0, callbacks=[Clock()])
    return times[1] / case["steps"]


def bare_loop(folder: Path, case: dict[str, Any]) -> float:
    """Train by a loop over `strategy.run`, which sums the loss as any training does, and nothing else."""
    import keras
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    pixels, labels = arrays_of(case, folder)
    local = case["batch"] // case["workers"]
    with strategy.scope():
        model = model_of(case, folder)
        optimizer = keras.optimizers.Adam(1e-3)
        optimizer.build(model.trainable_variables)

    def dataset(_: Any) -> Any:
        return (
            tf.data.Dataset.from_tensor_slices((pixels, labels)).shuffle(len(pixels)).repeat().batch(local).prefetch(4)
        )

    def step(batch: Any) -> Any:
        with tf.GradientTape() as tape:
            predicted = model(batch[0], training=True)
            losses = keras.losses.sparse_categorical_crossentropy(batch[1], predicted)
            loss = tf.reduce_sum(losses) / case["batch"]
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    @tf.function  # type: ignore[untyped-decorator]
    def run(batch: Any) -> Any:
        return strategy.run(step, args=(batch,))

    batches = iter(strategy.distribute_datasets_from_function(dataset))
    for _ in range(case["steps"]):
        run(next(batches))
    began = time.perf_counter()
    for _ in range(case["steps"]):
        run(next(batches))
    return (time.perf_counter() - began) / case["steps"]


def model_of(case: dict[str, Any], folder: Path) -> Any:
    """Build the model of a case; between workers batch normalisation is synchronised, by Keras's means or by ours."""
    import keras

    from dermaray.models.classifier import build_classifier
    from dermaray.training.normalization import normalize_together

    config = config_of(case, folder)
    model = build_classifier(config.model, config.input, CLASSES)
    if case["like_ours"]:
        normalize_together(model)
        return model
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = case["workers"] > 1
    return model


def arrays_of(case: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """Return an epoch of a case, some images more than once: uint8 [steps * batch, size, size, 3] and int32 [...]."""
    import numpy as np

    from dermaray.data.manifest import Manifest
    from dermaray.images.decode import decode_image

    config, manifest = config_of(case, folder), Manifest.read(folder / "data")
    rows = manifest.rows("train")
    pixels = [decode_image(Path(uri).read_bytes(), config.input).pixels for uri in rows["uri"].to_pylist()]
    drawn = np.arange(case["steps"] * case["batch"]) % len(pixels)
    return np.stack(pixels)[drawn], np.asarray(manifest.label_indices(rows), np.int32)[drawn]


SIDES: dict[str, Callable[[dict[str, Any], Path], dict[str, float]]] = {
    "dermaray": dermaray_side,
    "bare": partial(bare_side, like_ours=False),
    "bare, like ours": partial(bare_side, like_ours=True),
}


def compare(name: str, rounds: int, others: list[str]) -> None:
    """Print the table of a case: dermaray, and those that it is compared with."""
    from dermaray.data.synthetic import generate_dataset

    case = CASES[name]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        generate_dataset(folder / "images", case["images"])
        prepare = [sys.executable, "-m", "jobs.prepare", str(folder / "images"), "--out", str(folder / "data")]
        subprocess.run(prepare, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in ("dermaray", *others)}
        for number in range(rounds):
            for side in runs:
                runs[side].append(SIDES[side](case, folder))
            shown = ", ".join(f"{side} {1000 * found[-1]['step']:.1f} ms" for side, found in runs.items())
            print(f"round {number + 1}: {shown}", file=sys.stderr, flush=True)
    pixels = f"{case['size']}x{case['size']} pixels"
    print(f"{case['workers']} worker(s), batches of {case['batch']}, {pixels}, {rounds} rounds\n")
    print("| | ms a step | images a second | step of dermaray, times this one's |\n| --- | ---: | ---: | ---: |")
    for side, found in runs.items():
        step = median(run["step"] for run in found)
        ratios = [ours["step"] / run["step"] for ours, run in zip(runs["dermaray"], found, strict=True)]
        ratio = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"| {side} | {1000 * step:.1f} | {case['batch'] / step:.1f} | {ratio} |")
    start = median(run["start"] for run in runs["dermaray"])
    print(f"\nfrom the command of dermaray to its first epoch: {start:.1f} s")


def main() -> None:
    """Compare, or be the bare side of a comparison."""
    if sys.argv[1:2] == ["--bare"]:
        print(json.dumps(bare(Path(sys.argv[2]), json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    others = [side for side in SIDES if side != "dermaray"]
    parser.add_argument("--against", nargs="+", choices=others, default=others)
    args = parser.parse_args()
    compare(args.case, args.rounds, args.against)


if __name__ == "__main__":
    main()
