"""The schema of the YAML file that `dermaray train` takes. Every default of training is stated here alone."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from dermaray.augmentation.engines import Engine, build_augmenter
from dermaray.decisions.settings import DecisionConfig
from dermaray.errors import ConfigError
from dermaray.images.spec import InputSpec
from dermaray.models.backbones import BACKBONES, check_backbone
from dermaray.models.spec import ModelConfig, Version, WeightsAs, check_views
from dermaray.yaml_config import Folder, Name, Section, load_yaml_config, validated


class PerClass(Section):
    """The class balance that draws a given number of images of every class.

    Attributes:
        n_per_class: Images of each class in an epoch: with repeats where the class has fewer, and where it has more a
            subset that is drawn anew in every epoch.
    """

    n_per_class: int = Field(ge=1)


Balance = Literal["none", "equal", "sqrt"] | PerClass
"""See `DataConfig.balance`."""


class DataConfig(Section):
    """Which images are trained on, and how often each.

    Attributes:
        manifest: The `manifest.parquet` that `dermaray prepare` wrote, or its folder.
        licence: That of the images, for the model card; a model may carry it. Null: not stated.
        fold: Of a manifest made by `splits.folds`, the one to validate on, from 0; the others train. Null for any other
            manifest: its own splits.
        balance: `none` visits every training image once an epoch. `equal` draws every class equally often, `sqrt` in
            proportion to the square root of its number of images, both as many rows as there are images.
            `{n_per_class: 500}` draws 500 of every class. Repeats are as even as can be and differ by their
            augmentation; no copy is ever written. What does not fill a global batch is left out, other images in every
            epoch.
    """

    manifest: str
    licence: str | None = None
    fold: int | None = Field(None, ge=0)
    balance: Balance = "none"


ClassWeights = Literal["none", "balanced", "sqrt"] | dict[str, Annotated[float, Field(gt=0.0, allow_inf_nan=False)]]
"""See `TrainingConfig.class_weights`."""


class TrainingConfig(Section):
    """The optimisation.

    Attributes:
        epochs: Passes through the training plan.
        head_epochs: The first so many of them train the last layer alone, the backbone as it is; then all layers train,
            with an optimiser that begins anew. For backbones with weights to start from.
        global_batch_size: Images per step, over all workers together; a multiple of `scaling.num_workers`.
        optimizer: `adam`, `adamw` or `sgd` (with momentum 0.9).
        learning_rate: The highest of the run.
        head_learning_rate: The same for `head_epochs`. Null: `learning_rate`.
        small_epochs: The first so many of them, those of the head among them, see images at `small_scale`, validation
            images too, so that they take less time; what follows goes on with the same optimiser. Which epoch is best
            is asked of the others alone. For backbones whose weights fit images of any size: all but `case_study_cnn`.
        small_scale: The height and width of these images, in shares of the model's.
        schedule: `constant`, or `cosine`: from the highest rate down to 0, by half a cosine wave (Loshchilov and Hutter
            2017, "SGDR: Stochastic Gradient Descent with Warm Restarts"). `head_epochs` have a wave of their own.
        warmup_steps: The learning rate rises linearly over so many first steps.
        weight_decay: For `adamw` alone: the share of each weight that a step takes off, times the learning rate. Biases
            and the weights of normalisations are left alone.
        clip_norm: Gradients are scaled down to this norm, taken over all of them, where they exceed it. Null: never.
        ema: The momentum of a moving average of the weights, which validation and the model then have. Null: none.
        loss: `cross_entropy`, or `focal` (Lin et al. 2017, "Focal Loss for Dense Object Detection"), which counts less
            what the model already gets right. It is what training lowers; `val_loss`, by which the best epoch is
            chosen, is the cross entropy without class weights whatever is set here, so that runs can be compared.
        focal_gamma: How much less: 0 is the cross entropy. For `loss: focal` alone.
        label_smoothing: The share of every label that is spread evenly over all classes, in the training loss. For
            `loss: cross_entropy` alone.
        class_weights: What an image counts in the training loss, by its class. `balanced` is inverse to the number of
            times that the class is drawn in an epoch, `sqrt` to its square root; `{nevus: 1, melanoma: 3, ...}` gives
            one weight for every class. They are scaled so that their mean over an epoch is 1.
        early_stopping: Ends the run when so many epochs in a row had no lower `val_loss`; those of the head alone or on
            small images do not count. Null: never.
        precision: What a step computes in. `bfloat16` and `float16` (with its loss scaled, on one worker) are for GPUs,
            and leave the weights float32; `float64`, weights included, tells what of a difference is rounding.
        partial_sums: A global batch is computed in so many parts, and their gradients are summed in float64, so that
            any number of workers that divides it ends with the same weights, to the bit. On CPUs, and for
            `precision: float32` alone. Null: in as many parts as there are workers.
    """

    epochs: int = Field(10, ge=1)
    head_epochs: int = Field(0, ge=0)
    global_batch_size: int = Field(32, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0.0, allow_inf_nan=False)
    head_learning_rate: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    small_epochs: int = Field(0, ge=0)
    small_scale: float = Field(0.6667, gt=0.0, lt=1.0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.004, ge=0.0, allow_inf_nan=False)
    clip_norm: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    ema: float | None = Field(None, gt=0.0, lt=1.0)
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: float = Field(2.0, ge=0.0, allow_inf_nan=False)
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    class_weights: ClassWeights = "none"
    early_stopping: int | None = Field(None, ge=1)
    precision: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    partial_sums: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _what_has_no_effect_is_refused(self) -> "TrainingConfig":
        # A default may stand beside anything: a dumped configuration names every key.
        self._belongs("focal_gamma", self.loss == "focal", "only training.loss=focal has a gamma")
        self._belongs(
            "label_smoothing", self.loss == "cross_entropy", "only training.loss=cross_entropy smooths labels"
        )
        self._belongs("weight_decay", self.optimizer == "adamw", "only training.optimizer=adamw decays weights")
        self._belongs("partial_sums", self.precision == "float32", "only training.precision=float32 sums in parts")
        if self.partial_sums is not None and self.global_batch_size % self.partial_sums:
            raise ValueError(
                "global_batch_size must be a multiple of partial_sums. "
                f"Received: {self.global_batch_size} and {self.partial_sums}"
            )
        self._belongs("head_learning_rate", self.head_epochs > 0, "only training.head_epochs have one")
        if self.head_epochs >= self.epochs:
            raise ValueError(f"head_epochs must be fewer than epochs. Received: {self.head_epochs} and {self.epochs}")
        self._belongs("small_scale", self.small_epochs > 0, "only training.small_epochs have one")
        if self.small_epochs and not self.head_epochs < self.small_epochs < self.epochs:
            raise ValueError(
                "small_epochs must be more than head_epochs and fewer than epochs. "
                f"Received: {self.small_epochs}, {self.head_epochs} and {self.epochs}"
            )
        return self

    def _belongs(self, key: str, fits: bool, why: str) -> None:
        value = getattr(self, key)
        if not fits and value != type(self).model_fields[key].default:
            raise ValueError(f"{why}. Received: {key}={value}")


class IngestConfig(Section):
    """How images come to the training workers.

    Attributes:
        cache: `local` keeps every image, decoded and scaled, on the disk of the node that decoded it, in the folder of
            Ray's session, until the run ends: 3 bytes per pixel of the model's input (of the whole picture at its
            scale, for `crop`). Where a disk has no room for all, what fits is kept. `none` decodes in every epoch.
    """

    cache: Literal["local", "none"] = "local"


class CheckpointConfig(Section):
    """What a run keeps of itself while it lasts, so that one that was killed can go on.

    Attributes:
        every_steps: Steps between two checkpoints. Null: as `every_seconds` says alone.
        every_seconds: Seconds between two checkpoints, about. There is one after every epoch in any case. Null: as
            `every_steps` says alone.
        storage: Where they are kept until the run has ended: a folder that all nodes see, or a URI (`s3://bucket/runs`),
            in a hidden folder of the run's own. Null: a hidden folder beside `out`.
    """

    every_steps: int | None = Field(None, ge=1)
    every_seconds: float | None = Field(300.0, gt=0.0, allow_inf_nan=False)
    storage: str | None = None


class ScalingConfig(Section):
    """How many processes train.

    Attributes:
        num_workers: Training workers; each takes an equal part of every global batch.
        min_workers: Where fewer than `num_workers` find room, so many are enough; the others join as soon as there is
            room. Needs `cpus_per_worker`. Null: `num_workers`.
        max_failures: How often in a row a run is taken up again after workers were lost, without any progress in
            between.
        use_gpu: One GPU for each worker.
        cpus_per_worker: Logical CPUs that Ray sets aside for each worker, or null: half of the cluster's, shared among
            the workers, so that the other half decodes and augments.
    """

    num_workers: int = Field(1, ge=1)
    min_workers: int | None = Field(None, ge=1)
    max_failures: int = Field(3, ge=0)
    use_gpu: bool = False
    cpus_per_worker: float | None = Field(None, gt=0.0)


class TrackingConfig(Section):
    """Where a run is recorded besides its own folder.

    Attributes:
        mlflow: The address of an MLflow server or database: `http://HOST:5000`, `sqlite:///mlflow.db`. Needs the extra
            `tracking`; credentials are read from MLflow's own environment variables. Null: nowhere.
        experiment: The experiment that the run is listed under.
    """

    mlflow: str | None = None
    experiment: str = Field("dermaray", min_length=1)

    @field_validator("mlflow")
    @classmethod
    def _no_password(cls, address: str | None) -> str | None:
        # It is written into every model.
        if address is not None and re.search("://[^/@]*:[^/@]*@", address):
            where = "Put it into MLFLOW_TRACKING_PASSWORD, or PGPASSWORD"
            raise ValueError(f"the address must be without a password. Received: one with a password. {where}")
        return address


class RunConfig(Section):
    """A whole training run.

    Attributes:
        name: Names the run and its model.
        version: Which version of the model this is, in your own words; its answers carry it.
        out: The folder to write: `model/`, `config.yaml`, `history.csv`, `tensorboard/`. With `folds` or
            `members` it has the first two; their own folders beside it have all four.
        seed: Weights, order and augmentation follow from it.
        augment: Augmentor operations, in order, for training images only; see `docs/augmentation.md`.
        weights_as: What the weights of the finished model are rounded to. `float16` halves `model.keras`, and changes
            probabilities in the fourth digit; `int8`, with a step for each channel, makes it a third, halves
            `model.tflite` as well, and changes probabilities in the second. They are computed with as float32, and all
            that is fitted and measured is of the rounded ones.
        int8: Keep the network once more, with int8 for weights and for what is computed with them, for `--engine int8`:
            a quarter of the size, and faster on CPUs. What that costs is measured on the validation images and stands
            in the model card.
        folds: The number of models to train, each validated on another part of the training images; one is made of them
            that answers with their mean. Its decisions are fitted on the val split, which none of them has seen. Null:
            one model. To answer it takes so many times as long as one.
        members: The number of models to train that differ in their seed alone: `seed`, the one after it, and so on; one
            is made of them that answers with their mean, and takes so many times as long. Null: one model.
        views: The finished model answers with the mean over so many views of an image, and takes so many times as long:
            1 the image as it is, 2 also mirrored, 4 both also upside down, 8 all of these also turned by 90 degrees
            (of square inputs alone). Training sees each image as it is.
        augment_engine: `fused`, or to compare with it `augmentor`, the package; see `dermaray.augmentation.engines`.
    """

    name: Name
    version: Version = "1"
    out: Folder
    seed: int = Field(0, ge=0, lt=2**32)
    data: DataConfig
    input: InputSpec = Field(default_factory=InputSpec)
    augment: tuple[dict[str, Any], ...] = ()
    augment_engine: Engine = "fused"
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    weights_as: WeightsAs = "float32"
    int8: bool = False
    folds: int | None = Field(None, ge=2, le=20)
    members: int | None = Field(None, ge=2, le=20)
    views: Literal[1, 2, 4, 8] = 1
    decisions: DecisionConfig = Field(default_factory=DecisionConfig)
    ingest: IngestConfig = Field(default_factory=IngestConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    scaling: ScalingConfig = Field(default_factory=ScalingConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @model_validator(mode="after")
    def _batch_divides(self) -> "RunConfig":
        batch, most = self.training.global_batch_size, self.scaling.num_workers
        least = most if self.scaling.min_workers is None else self.scaling.min_workers
        if least > most:
            raise ValueError(f"scaling.min_workers must be at most num_workers. Received: {least} and {most}")
        if least < most and self.scaling.cpus_per_worker is None:
            raise ValueError("scaling.min_workers needs scaling.cpus_per_worker: it says how many workers find room")
        counts = "scaling.num_workers" if least == most else f"all of {least} to {most} workers"
        if any(batch % workers for workers in range(least, most + 1)):
            raise ValueError(f"training.global_batch_size must be a multiple of {counts}. Received: {batch} and {most}")
        parts = self.training.partial_sums
        if parts is not None and any(parts % workers for workers in range(least, most + 1)):
            raise ValueError(f"training.partial_sums must be a multiple of {counts}. Received: {parts} and {most}")
        return self

    @model_validator(mode="after")
    def _parts_are_told_apart(self) -> "RunConfig":
        if self.folds is not None and self.members is not None:
            raise ValueError(f"folds and members exclude each other. Received: {self.folds} and {self.members}")
        if self.seed + (self.members or 1) > 2**32:
            raise ValueError(f"seed must leave room for those of all members, below 2**32. Received: {self.seed}")
        return self

    @model_validator(mode="after")
    def _precision_fits_the_device(self) -> "RunConfig":
        if self.training.precision in ("bfloat16", "float16") and not self.scaling.use_gpu:
            raise ValueError(
                f"training.precision={self.training.precision} needs scaling.use_gpu=true; CPUs are slower with it"
            )
        if self.training.partial_sums is not None and self.scaling.use_gpu:
            raise ValueError(
                "training.partial_sums is for CPUs: the order in which a GPU adds up is not known. "
                f"Received: partial_sums={self.training.partial_sums} with scaling.use_gpu=true"
            )
        # Each would look at its own gradients alone, and one might skip a step for which the others wait.
        if self.training.precision == "float16" and self.scaling.num_workers > 1:
            raise ValueError("training.precision=float16 is for one worker. Use bfloat16, which needs no loss scaling")
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a training run; see `load_yaml_config`.

    Raises:
        ConfigError: As there; or the recipe of augmentation, the backbone or one of its options is unknown.
    """
    return _checked(load_yaml_config(RunConfig, path, overrides))


def make_config(values: Mapping[str, Any], source: str) -> RunConfig:
    """Check the configuration of a training run that is no file; see `load_config`.

    Args:
        values: As a YAML file would hold them.
        source: Where they come from, for an error.
    """
    return _checked(validated(RunConfig, values, source))


def _checked(config: RunConfig) -> RunConfig:
    build_augmenter(config.augment, config.input, config.seed, config.augment_engine)
    check_backbone(config.model)
    if config.training.small_epochs:
        _check_small(config)
    check_views(config.views, config.input.height, config.input.width)
    if config.model.weights in ("imagenet", "none"):
        return config
    # Workers run in folders of their own.
    weights = str(Path(config.model.weights).resolve())
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": weights})})


def _check_small(config: RunConfig) -> None:
    if not BACKBONES[config.model.backbone].any_size:
        raise ConfigError(
            "training.small_epochs needs a backbone whose weights fit images of any size. Received: "
            f"{config.model.backbone}"
        )
    small = config.input.scaled(config.training.small_scale)
    validated(InputSpec, small.model_dump(), "input, times training.small_scale")


def dump_config(config: RunConfig) -> str:
    """Return a configuration as YAML that `load_config` reads back to the same value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
