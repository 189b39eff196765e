"""The schema of the YAML file that `dermaray train` takes. Every default of training is stated here alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from dermaray.augmentation.engines import Engine, build_augmenter
from dermaray.images.spec import InputSpec
from dermaray.models.backbones import check_backbone
from dermaray.models.spec import ModelConfig
from dermaray.yaml_config import load_yaml_config


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PerClass(_Section):
    """The class balance that draws a given number of images of every class.

    Attributes:
        n_per_class: Images of each class in an epoch: with repeats where the class has fewer, and where it has more a
            subset that is drawn anew in every epoch.
    """

    n_per_class: int = Field(ge=1)


Balance = Literal["none", "equal", "sqrt"] | PerClass
"""See `DataConfig.balance`."""


class DataConfig(_Section):
    """Which images are trained on, and how often each.

    Attributes:
        manifest: The `manifest.parquet` that `dermaray prepare` wrote.
        fold: Of a manifest made of k folds, the one to validate on, from 0; the others train. Null: the manifest's own
            splits.
        balance: `none` visits every training image once an epoch. `equal` draws every class equally often, `sqrt` in
            proportion to the square root of its number of images, both as many rows as there are images.
            `{n_per_class: 500}` draws 500 of every class. Repeats are as even as can be and differ by their
            augmentation; no copy is ever written.
    """

    manifest: str
    fold: int | None = Field(None, ge=0)
    balance: Balance = "none"


ClassWeights = Literal["none", "balanced", "sqrt"] | dict[str, Annotated[float, Field(gt=0.0, allow_inf_nan=False)]]
"""See `TrainingConfig.class_weights`."""


class TrainingConfig(_Section):
    """The optimisation.

    Attributes:
        epochs: Passes through the training plan.
        global_batch_size: Images per step, over all workers together.
        optimizer: `adam`, `adamw` or `sgd` (with momentum 0.9).
        learning_rate: Constant over the run.
        loss: `cross_entropy`, or `focal` (Lin et al. 2017, "Focal Loss for Dense Object Detection"), which counts less
            what the model already gets right. It is what training lowers; `val_loss`, by which the best epoch is
            chosen, is the cross entropy without class weights whatever is set here, so that runs can be compared.
        focal_gamma: How much less: 0 is the cross entropy. For `loss: focal` alone.
        class_weights: What an image counts in the training loss, by its class. `balanced` is inverse to the number of
            times that the class is drawn in an epoch, `sqrt` to its square root; `{nevus: 1, melanoma: 3, ...}` gives
            one weight for every class. They are scaled so that their mean over an epoch is 1.
    """

    epochs: int = Field(10, ge=1)
    global_batch_size: int = Field(32, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0.0)
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: float = Field(2.0, ge=0.0, allow_inf_nan=False)
    class_weights: ClassWeights = "none"

    @field_validator("focal_gamma")
    @classmethod
    def _gamma_has_its_loss(cls, gamma: float, info: ValidationInfo) -> float:
        # The default may stand beside any loss: a dumped configuration names every key.
        if info.data.get("loss") == "cross_entropy" and gamma != cls.model_fields["focal_gamma"].default:
            raise ValueError("only training.loss=focal has a gamma")
        return gamma


class IngestConfig(_Section):
    """How images come to the training workers.

    Attributes:
        cache: `local` keeps every image, decoded and scaled, on the disk of the node that decoded it, in the folder of
            Ray's session, until the run ends: 3 bytes per pixel of the model's input (of the whole picture at its
            scale, for `crop`). Where a disk has no room for all, what fits is kept. `none` decodes in every epoch.
    """

    cache: Literal["local", "none"] = "local"


class ScalingConfig(_Section):
    """How many processes train.

    Attributes:
        num_workers: Training workers; each takes an equal part of every global batch.
        use_gpu: One GPU for each worker.
        cpus_per_worker: Logical CPUs that Ray sets aside for each worker, or null: half of the cluster's, shared among
            the workers, so that the other half decodes and augments.
    """

    num_workers: int = Field(1, ge=1)
    use_gpu: bool = False
    cpus_per_worker: float | None = Field(None, gt=0.0)


class RunConfig(_Section):
    """A whole training run.

    Attributes:
        name: Names the run and its model.
        out: The folder to write: `model/`, `config.yaml`, `history.csv`.
        seed: Weights, order and augmentation follow from it.
        augment: Augmentor operations, in order, for training images only; see `dermaray.augmentation.recipe`.
        augment_engine: `fused`, or to compare with it `augmentor`, the package; see `dermaray.augmentation.engines`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    out: str
    seed: int = Field(0, ge=0, lt=2**32)
    data: DataConfig
    input: InputSpec = Field(default_factory=InputSpec)
    augment: tuple[dict[str, Any], ...] = ()
    augment_engine: Engine = "fused"
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    ingest: IngestConfig = Field(default_factory=IngestConfig)
    scaling: ScalingConfig = Field(default_factory=ScalingConfig)

    @model_validator(mode="after")
    def _batch_divides(self) -> "RunConfig":
        batch, workers = self.training.global_batch_size, self.scaling.num_workers
        if batch % workers:
            raise ValueError(
                f"training.global_batch_size must be a multiple of scaling.num_workers. Received: {batch} and {workers}"
            )
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a training run; see `load_yaml_config`.

    Raises:
        ConfigError: As there; or the recipe of augmentation, the backbone or one of its options is unknown.
    """
    config = load_yaml_config(RunConfig, path, overrides)
    build_augmenter(config.augment, config.input, config.seed, config.augment_engine)
    check_backbone(config.model.backbone, config.model.options)
    return config


def dump_config(config: RunConfig) -> str:
    """Return a configuration as YAML that `load_config` reads back to the same value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
