from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from dermaray.config import PerClass, RunConfig, dump_config, load_config
from dermaray.data.settings import PrepareConfig
from dermaray.errors import ConfigError
from dermaray.yaml_config import load_yaml_config

CONFIGS = Path(__file__).parents[2] / "configs"
PREPARE, TUNE = CONFIGS / "prepare.yaml", CONFIGS / "tune.yaml"
SHIPPED = sorted(path for path in CONFIGS.glob("*.yaml") if path not in (PREPARE, TUNE))
LEAST = "name: trial\nout: runs/trial\ndata: {manifest: manifest.parquet}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(LEAST, encoding="utf-8")
    return file


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_configuration_loads(shipped: Path) -> None:
    assert load_config(shipped).name == shipped.stem


def test_configurations_are_shipped() -> None:
    assert SHIPPED


def test_the_shipped_configuration_of_prepare_spells_out_the_defaults() -> None:
    assert load_yaml_config(PrepareConfig, PREPARE) == PrepareConfig()


def test_what_is_left_out_has_its_default(path: Path) -> None:
    config = load_config(path)
    assert config.seed == 0
    assert config.augment == ()
    assert config.input.shape == (180, 180, 3)
    assert (config.training.epochs, config.training.global_batch_size, config.scaling.num_workers) == (10, 32, 1)


def test_overrides_are_read_as_yaml(path: Path) -> None:
    overrides = [
        "seed=7",
        "training.learning_rate=1e-4",
        "scaling.use_gpu=true",
        "scaling.cpus_per_worker=null",
        "model.options.filters=[8, 16]",
        "model.options.dropout=0.5",
        "data.manifest=a=b.parquet",
        "augment=[{operation: rotate90, probability: 0.5}]",
        "name=first",
        "name=last",
    ]
    config = load_config(path, overrides)
    assert config.seed == 7
    assert config.training.learning_rate == 1e-4
    assert config.scaling.use_gpu is True
    assert config.scaling.cpus_per_worker is None
    assert config.model.options == {"filters": [8, 16], "dropout": 0.5}
    assert config.data.manifest == "a=b.parquet"
    assert config.augment == ({"operation": "rotate90", "probability": 0.5},)
    assert config.name == "last"


def test_an_override_keeps_what_stands_beside_it(path: Path) -> None:
    path.write_text(LEAST + "training: {epochs: 3, optimizer: sgd}\n", encoding="utf-8")
    config = load_config(path, ["training.epochs=4"])
    assert (config.training.epochs, config.training.optimizer) == (4, "sgd")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=3", "unknown key 'epochs'. Known: name, version, out, seed, data"),
        ("trainin.epochs=3", r"unknown key 'trainin'. Did you mean 'training'\?"),
        ("training.epoch=3", r"unknown key 'training.epoch'. Did you mean 'epochs'\?"),
        ("input.hight=3", r"unknown key 'input.hight'. Did you mean 'height'\?"),
        ("training.epochs=many", "training.epochs: .* valid integer.*Received: 'many'"),
        ("training.epochs=0", "training.epochs: .* greater than or equal to 1. Received: 0"),
        ("training.epochs=", "training.epochs: .*Received: None"),
        ("training.optimizer=lion", "training.optimizer: .*'adam', 'adamw' or 'sgd'. Received: 'lion'"),
        ("model.dropout=1", "model.dropout: .* less than 1. Received: 1"),
        ("name=a/b", "name: .*Received: 'a/b'"),
        ("data={}", "key 'data.manifest' is missing"),
        ("members=1", "members: .* greater than or equal to 2. Received: 1"),
        ("scaling.num_workers=3", "training.global_batch_size must be a multiple of .*num_workers. Received: 32 and 3"),
        ("model.backbone=resnet", "model.backbone 'resnet' is unknown. Known: case_study_cnn"),
        ("model.options.depth=3", "case_study_cnn has no option 'depth'. It takes: filters, dense"),
        ("data={manifst: a}", r"unknown key 'data.manifst'. Did you mean 'manifest'\?"),
        ("data.fold=-1", "data.fold: .* greater than or equal to 0. Received: -1"),
        ("data.fold=first", "data.fold: .* valid integer.*Received: 'first'"),
        ("data.balance=even", "data.balance: .* 'none', 'equal' or 'sqrt', or a mapping of n_per_class. .*: 'even'$"),
        ("data.balance=null", r"data.balance: Input should be 'none'.*, or a mapping of n_per_class. Received: None"),
        ("data.balance={n_per_clas: 3}", r"unknown key 'data.balance.n_per_clas'. Did you mean 'n_per_class'\?"),
        ("data.balance={}", "key 'data.balance.n_per_class' is missing"),
        ("data.balance={n_per_class: 0}", "data.balance.n_per_class: .* greater than or equal to 1. Received: 0"),
        (
            "training.class_weights=5",
            "class_weights: Input should be 'none', 'balanced' or 'sqrt', or a mapping. .*: 5",
        ),
        ("training.class_weights={nevus: 0}", "training.class_weights.nevus: .* greater than 0. Received: 0"),
        ("training.class_weights={nevus: .inf}", "training.class_weights.nevus: .* finite number. Received: inf"),
        ("training.class_weights={1: 2}", "training.class_weights.1: .* valid string. Received: 1"),
        ("training.label_smoothing=1", "training.label_smoothing: .* less than 1. Received: 1"),
        (
            "training={loss: focal, label_smoothing: 0.1}",
            "training: only .*cross_entropy smooths .*label_smoothing=0.1$",
        ),
        ("training.weight_decay=0.1", "training: only training.optimizer=adamw decays .*Received: weight_decay=0.1$"),
        ("training.head_learning_rate=1", "training: only training.head_epochs have .*head_learning_rate=1.0$"),
        ("training.head_epochs=10", "training: head_epochs must be fewer than epochs. Received: 10 and 10$"),
        ("training.small_epochs=5", "small_epochs needs a backbone .* any size. Received: case_study_cnn"),
        ("training.precision=float16", "training.precision=float16 needs scaling.use_gpu=true"),
        ("training={partial_sums: 5}", "global_batch_size must be a multiple of partial_sums. Received: 32 and 5"),
        ("training={partial_sums: 4, precision: float64}", "only training.precision=float32 .*partial_sums=4"),
        ("scaling.min_workers=2", "scaling.min_workers must be at most num_workers. Received: 2 and 1"),
        ("scaling={min_workers: 2, num_workers: 4}", "min_workers needs scaling.cpus_per_worker"),
        (
            "scaling={min_workers: 2, num_workers: 4, cpus_per_worker: 1}",
            "multiple of all of 2 to 4 workers. Received: 32",
        ),
        ("training.loss=hinge", "training.loss: .*'cross_entropy' or 'focal'. Received: 'hinge'"),
        ("training.focal_gamma=3", "training: only training.loss=focal has a gamma. Received: focal_gamma=3"),
        (
            "training={loss: focal, focal_gamma: -1}",
            "training.focal_gamma: .* greater than or equal to 0. Received: -1",
        ),
        ("model=3", "model: Input should be a mapping of backbone, weights, dropout, options. Received: 3"),
        ("augment=[{operation: twirl, probability: 1}]", "operation 'twirl' is unknown. Augmentor has: .*zoom"),
        ("augment=[{operation: rotate90}]", "rotate90 needs 'probability'. It takes: probability"),
        ("augment=[{operation: rotate90, probability: 1, angle: 3}]", "rotate90 has no argument 'angle'"),
    ],
)
def test_what_does_not_fit_is_named(path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])


def test_members_are_no_folds_and_have_a_seed_each(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"folds and members exclude each other\. Received: 5 and 2"):
        load_config(path, ["folds=5", "members=2"])
    assert load_config(path, ["seed=4294967294", "members=2"]).members == 2
    with pytest.raises(ConfigError, match=r"seed must leave room for those of all members.* Received: 4294967295"):
        load_config(path, ["seed=4294967295", "members=2"])


def test_small_images_are_not_too_small(path: Path) -> None:
    small = ["model.backbone=MobileNetV3Small", "training.small_epochs=5", "training.small_scale=0.05"]
    with pytest.raises(ConfigError, match=r"times training.small_scale: height: .* or equal to 16. Received: 9"):
        load_config(path, small)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ("scaling.num_workers=8", "must be a multiple of scaling.num_workers. Received: 4 and 8"),
        ("scaling={min_workers: 1, num_workers: 4, cpus_per_worker: 1}", "must be a multiple of all of 1 to 4 workers"),
        ("scaling.use_gpu=true", "training.partial_sums is for CPUs: .*Received: partial_sums=4"),
    ],
)
def test_parts_of_a_batch_fit_the_workers(path: Path, scaling: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(path, ["training={partial_sums: 4, global_batch_size: 24}", scaling])


@pytest.mark.parametrize("override", ["training.epochs", "=3", ""])
def test_a_malformed_override_is_shown(path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=f"form key.path=value. Received: '{override}'"):
        load_config(path, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=[1", r"the value of 'training.epochs=\[1' is not YAML"),
        ("data.manifest.path=x", "data.manifest.path: 'manifest' is a value, not a section"),
        ("name=2024-13-45", "2024-13-45"),
    ],
)
def test_an_override_that_cannot_be_applied(path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name: [", "is not YAML"),
        (b"name: \xff", "cannot be read"),
        (b"- a\n- b\n", "must hold a mapping of keys. Received: list"),
        (b"", "must hold a mapping of keys. Received: NoneType"),
        (b"seed: 2024-13-45\n", "run.yaml"),
    ],
)
def test_a_file_that_is_no_configuration(path: Path, text: bytes, message: str) -> None:
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml does not exist. Ready-made configurations are in configs/"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda p: p.name)
def test_what_is_dumped_reads_back_the_same(shipped: Path, path: Path) -> None:
    config = load_config(shipped, ["training.learning_rate=1e-05", "seed=11", 'out="2024-01-05"'])
    assert isinstance(config, RunConfig)
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


@pytest.mark.parametrize(
    "override",
    [
        "data.balance=none",
        "data.balance=sqrt",
        "data.balance={n_per_class: 500}",
        "data.fold=3",
        "training.class_weights=balanced",
        "training.class_weights={nevus: 1, melanoma: 2.5}",
        "training={loss: focal, focal_gamma: 0.5}",
        "training.focal_gamma=2",
    ],
)
def test_every_choice_of_class_balance_reads_back_the_same(override: str, path: Path) -> None:
    config = load_config(path, [override])
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


def test_n_per_class_is_a_section(path: Path) -> None:
    assert load_config(path, ["data.balance.n_per_class=3"]).data.balance == PerClass(n_per_class=3)


class Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    action: str = "keep"
    threshold: float


class Other(BaseModel):
    """A schema that is not that of a training run."""

    model_config = ConfigDict(extra="forbid")

    size: int = 3
    rule: Rule | None = None
    rules: tuple[Rule, ...] = ()
    named: dict[str, Rule] | None = None


def test_without_a_file_the_overrides_alone_count() -> None:
    assert load_yaml_config(Other, None, ()) == Other()
    assert load_yaml_config(Other, None, ["rule.threshold=0.5", "size=4"]) == Other(size=4, rule=Rule(threshold=0.5))


def test_any_schema_reads_its_file(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("size: 5\nrule: {threshold: 1}\n", encoding="utf-8")
    assert load_yaml_config(Other, file, ["rule.action=drop"]) == Other(size=5, rule=Rule(action="drop", threshold=1))
    with pytest.raises(ConfigError, match=r"other.yaml: unknown key 'sise'. Did you mean 'size'\?"):
        load_yaml_config(Other, file, ["sise=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sise=4", r"unknown key 'sise'. Did you mean 'size'\?"),
        ("speed=4", "unknown key 'speed'. Known: size, rule, rules, named"),
        ("rule=4", "rule: Input should be a mapping of action, threshold. Received: 4"),
        ("rule.treshold=4", r"unknown key 'rule.treshold'. Did you mean 'threshold'\?"),
        ("rule.action=drop", "key 'rule.threshold' is missing"),
        ("rules=[{threshold: 1}, {threshold: x}]", "rules.1.threshold: .*Received: 'x'"),
        ("rules=[{threshold: 1, axion: x}]", r"unknown key 'rules.0.axion'. Did you mean 'action'\?"),
        ("named={a: {axion: x}}", r"unknown key 'named.a.axion'. Did you mean 'action'\?"),
        ("named=4", "named: Input should be a mapping. Received: 4"),
    ],
)
def test_what_does_not_fit_another_schema_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^the command line: {message}"):
        load_yaml_config(Other, None, [override])
