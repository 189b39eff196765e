import inspect
import random
import re
from typing import Any

import Augmentor
import numpy as np
import pytest
import yaml
from Augmentor import Operations as package
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.parity import ARGUMENTS, difference_as_it_is, theirs_and_ours
from dermaray.augmentation.augmentor import pipeline_of, recipe_of
from dermaray.augmentation.engines import Engine, build_augmenter
from dermaray.augmentation.recipe import OPERATIONS, parse_recipe
from dermaray.augmentation.rendering import render
from dermaray.data.synthetic import render_lesion
from dermaray.errors import ConfigError
from dermaray.images.resize import frame_shape, to_frame
from dermaray.images.spec import InputSpec

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

PICTURE = render_lesion("melanoma", 3, (288, 384))
ENGINES: tuple[Engine, ...] = ("fused", "augmentor")
TURN = {"max_left_rotation": 10, "max_right_rotation": 10}
GRID = {"grid_width": 4, "grid_height": 4, "magnitude": 4}
COLOURS = (
    "random_brightness",
    "random_contrast",
    "random_color",
    "hsv_shifting",
    "greyscale",
    "black_and_white",
    "invert",
    "histogram_equalisation",
    "random_erasing",
)


def step(operation: str, probability: float = 1.0, **arguments: Any) -> dict[str, Any]:
    return {"operation": operation, "probability": probability, **arguments}


def unit(low: float = 0.0, high: float = 1.0, **options: Any) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, **options)


FACTORS = st.tuples(unit(0, 3), unit(0, 3)).map(lambda pair: {"min_factor": min(pair), "max_factor": max(pair)})
ZOOMS = st.fixed_dictionaries({"min_factor": unit(0.05, 4), "max_factor": unit(0.05, 4)})
SHARES = st.fixed_dictionaries(
    {"percentage_area": unit(0.1, 0.99)}, optional={"randomise_percentage_area": st.booleans()}
)
TURNS = st.fixed_dictionaries({"max_left_rotation": unit(0, 25), "max_right_rotation": unit(0, 25)})
MAGNITUDES = st.fixed_dictionaries({}, optional={"magnitude": unit(0.01, 1)})
CELLS = {"grid_width": st.integers(1, 40), "grid_height": st.integers(1, 40)}
NONE = st.just({})
VALID: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "black_and_white": st.fixed_dictionaries({}, optional={"threshold": unit(0, 255)}),
    "crop_by_size": st.fixed_dictionaries(
        {"width": st.integers(2, 90), "height": st.integers(2, 90)}, optional={"centre": st.booleans()}
    ),
    "crop_centre": SHARES,
    "crop_random": SHARES,
    "flip_left_right": NONE,
    "flip_random": NONE,
    "flip_top_bottom": NONE,
    "gaussian_distortion": st.fixed_dictionaries(
        {
            **CELLS,
            "magnitude": unit(-100, 100),
            "corner": st.sampled_from(["bell", "ul", "ur", "dl", "dr"]),
            "method": st.sampled_from(["in", "out"]),
        },
        optional={"mex": unit(-10, 10), "mey": unit(-10, 10), "sdx": unit(0.001, 1000), "sdy": unit(0.001, 1000)},
    ),
    "greyscale": NONE,
    "histogram_equalisation": NONE,
    "hsv_shifting": st.fixed_dictionaries(
        {
            name: unit(0, 5)
            for name in ("hue_shift", "saturation_scale", "saturation_shift", "value_scale", "value_shift")
        }
    ),
    "invert": NONE,
    "random_brightness": FACTORS,
    "random_color": FACTORS,
    "random_contrast": FACTORS,
    "random_distortion": st.fixed_dictionaries({**CELLS, "magnitude": st.integers(-100, 100)}),
    "random_erasing": st.fixed_dictionaries({"rectangle_area": unit(0.01, 1)}),
    "resize": st.fixed_dictionaries(
        {"width": st.integers(2, 300), "height": st.integers(2, 300)},
        optional={"resample_filter": st.sampled_from(["NEAREST", "BICUBIC", "BILINEAR"])},
    ),
    "rotate": TURNS,
    "rotate180": NONE,
    "rotate270": NONE,
    "rotate90": NONE,
    "rotate_random_90": NONE,
    "rotate_without_crop": st.fixed_dictionaries(
        {"max_left_rotation": unit(-1000, 1000), "max_right_rotation": unit(-1000, 1000)},
        optional={
            "expand": st.booleans(),
            "fillcolor": st.sampled_from([None, "white", "#0a0B0c", [1, 2, 3]]),
        },
    ),
    "scale": st.fixed_dictionaries({"scale_factor": unit(1.01, 4)}),
    "shear": st.fixed_dictionaries({"max_shear_left": unit(0.1, 25), "max_shear_right": unit(0.1, 25)}),
    "skew": MAGNITUDES,
    "skew_corner": MAGNITUDES,
    "skew_left_right": MAGNITUDES,
    "skew_tilt": MAGNITUDES,
    "skew_top_bottom": MAGNITUDES,
    "zoom": ZOOMS,
    "zoom_random": SHARES,
}
STEPS = st.sampled_from(sorted(VALID)).flatmap(
    lambda name: st.builds(
        lambda arguments, probability: {"operation": name, "probability": probability, **arguments},
        VALID[name],
        st.sampled_from([0.5, 1.0]),
    )
)
SPECS = st.builds(
    InputSpec, height=st.integers(16, 48), width=st.integers(16, 48), resize=st.sampled_from(["stretch", "crop", "pad"])
)


def test_every_operation_of_augmentors_pipeline_is_known() -> None:
    for name in OPERATIONS:
        assert name == "hsv_shifting" or callable(getattr(Augmentor.Pipeline, name))
    assert set(VALID) == set(ARGUMENTS) == set(OPERATIONS)


def test_no_method_of_augmentor_that_takes_a_probability_is_left_out() -> None:
    methods = {
        name
        for name, method in vars(Augmentor.Pipeline).items()
        if inspect.isfunction(method) and "probability" in inspect.signature(method).parameters
    }
    assert methods == set(OPERATIONS) - {"hsv_shifting"}


HOSTILE = [
    [step("scale", scale_factor=100), step("scale", scale_factor=100), step("rotate", **TURN)],
    [step("resize", width=65500, height=65500), step("random_erasing", rectangle_area=1)],
    [
        step("resize", width=65500, height=200),
        step("random_erasing", rectangle_area=1),
        step("crop_by_size", width=100, height=100),
        step("random_distortion", grid_width=4, grid_height=4, magnitude=3),
    ],
    [step("zoom", min_factor=100, max_factor=100), step("zoom", min_factor=0.01, max_factor=0.01)],
    [step("random_distortion", grid_width=100, grid_height=100, magnitude=1000)],
    [step("rotate_without_crop", max_left_rotation=360, max_right_rotation=360, expand=True)] * 5,
    [step("histogram_equalisation"), step("random_contrast", min_factor=0, max_factor=255)] * 10 + [step("rotate90")],
    [step("crop_centre", percentage_area=0.1), step("shear", max_shear_left=25, max_shear_right=25)] * 3,
]


@pytest.mark.parametrize("recipe", HOSTILE)
@pytest.mark.parametrize("size", [(1, 500), (100, 500), (4, 40), (10_000, 10_000)])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_a_recipe_that_goes_to_the_limits_still_gives_an_image(
    recipe: list[dict[str, Any]], size: tuple[int, int], resize: Any
) -> None:
    spec = InputSpec(height=40, width=32, resize=resize)
    frame = np.random.default_rng(0).integers(0, 256, (*frame_shape(*size, spec), 3), dtype=np.uint8)
    augment = build_augmenter(recipe, spec, 0)
    assert all(augment(frame, size, str(i), 0).shape == spec.shape for i in range(3))


@given(recipe=st.lists(STEPS, max_size=5), spec=SPECS, size=st.tuples(st.integers(1, 200), st.integers(1, 200)))
@settings(max_examples=300, deadline=None)
def test_any_valid_recipe_gives_uint8_of_the_models_shape(
    recipe: list[dict[str, Any]], spec: InputSpec, size: tuple[int, int]
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    frame = to_frame(picture, frame_shape(*size, spec), spec)
    pixels = build_augmenter(recipe, spec, 0)(frame, size, "a", 0)
    assert pixels.shape == spec.shape
    assert pixels.dtype == np.uint8


# No operation's name, and out of every argument's range.
JUNK = st.sampled_from([None, "", "4", True, -1001, 1e12, float("nan"), [None], {"a": 1}])


@given(data=st.data(), good=STEPS)
@settings(max_examples=200, deadline=None)
def test_any_invalid_recipe_is_an_error_of_one_line(data: st.DataObject, good: dict[str, Any]) -> None:
    spoiled = dict(good)
    kind = data.draw(st.sampled_from(["operation", "argument", "extra", "missing"]))
    if kind == "operation":
        spoiled["operation"] = data.draw(JUNK)
    elif kind == "extra":
        spoiled["angle_of_attack"] = data.draw(JUNK)
    elif kind == "missing":
        needed = [a for a, f in OPERATIONS[good["operation"]].model_fields.items() if f.is_required()]
        spoiled.pop(data.draw(st.sampled_from(needed or ["operation"])), None)
    else:
        flags = {"fillcolor", "centre", "expand", "randomise_percentage_area"}
        argument = data.draw(st.sampled_from(sorted(set(good) - {"operation"} - flags)))
        spoiled[argument] = data.draw(JUNK)
    with pytest.raises(ConfigError, match=r"\Aaugment: ") as failure:
        parse_recipe([good, spoiled])
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"operation": "twirl", "probability": 1},
            "operation 'twirl' is unknown. Augmentor has: black_and_white, crop",
        ),
        ({"operation": "rotate_90", "probability": 1}, "operation 'rotate_90' is unknown. Did you mean 'rotate90'?"),
        ({"operation": "add_operation", "probability": 1}, "operation 'add_operation' is unknown"),
        ({"probability": 1}, "operation None is unknown"),
        ("rotate90", "a step is a mapping with the key 'operation'. Received: 'rotate90'"),
        (step("rotate90", angle=3), "rotate90 has no argument 'angle'. It takes: probability"),
        (step("zoom_random"), "zoom_random needs 'percentage_area'. It takes: probability, percentage_area"),
        ({"operation": "zoom_random", "percentage_area": 0.7}, "zoom_random needs 'probability'"),
        (step("rotate90", 1.5), "rotate90: probability: Input should be less than or equal to 1. Received: 1.5"),
        (step("rotate90", 0), "rotate90: probability: Input should be greater than 0. Received: 0"),
        (step("rotate90", "often"), "rotate90: probability: Input should be a valid number. Received: 'often'"),  # type: ignore[arg-type]
        (step("zoom_random", percentage_area=2), "zoom_random: percentage_area: .* less than 1. Received: 2"),
        (step("rotate", max_left_rotation=90, max_right_rotation=1), "rotate: max_left_rotation: .* 25. Received: 90"),
        (step("zoom", min_factor="big", max_factor=2), "zoom: min_factor: .*Received: 'big'"),
        (step("random_color", min_factor=1, max_factor=0.5), "random_color: min_factor must be at most max_factor"),
        (step("resize", width=9, height=9, resample_filter="SHARP"), "resize: resample_filter: .*Received: 'SHARP'"),
        (step("resize", width=50.5, height=50), "resize: width: .*integer.*Received: 50.5"),
        (step("gaussian_distortion", **GRID, corner="left", method="in"), "gaussian_distortion: corner: .*'left'"),
        (step("random_distortion", grid_width=0, grid_height=4, magnitude=4), "random_distortion: grid_width: .*: 0"),
        (step("rotate_without_crop", **TURN, fillcolor="mud"), "rotate_without_crop: fillcolor: .*Received: 'mud'"),
        (
            step("rotate_without_crop", **TURN, fillcolor=[1, 2]),
            r"rotate_without_crop: fillcolor: .*Received: \[1, 2\]",
        ),
        (step("rotate_without_crop", **TURN, fillcolor=76), "fillcolor: .* three levels from 0 to 255. Received: 76"),
    ],
)
def test_a_wrong_step_is_refused_before_any_image_is_read(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_recipe([step("rotate90"), wrong])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_augmentors_at_the_same_draws(name: str) -> None:
    differences = [difference_as_it_is(name, PICTURE, seed) for seed in range(6)]
    # Colours are the same to the level; geometry differs by how it interpolates: the package's rotation does so twice.
    assert max(differences) <= (0.05 if name in COLOURS else 1.5), differences


@pytest.mark.parametrize("name", sorted(set(COLOURS) - {"random_erasing"}))
def test_colours_are_augmentors_to_the_last_bit(name: str) -> None:
    every = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    assert [difference_as_it_is(name, every, seed) for seed in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("first", ["greyscale", "black_and_white"])
@pytest.mark.parametrize("name", COLOURS)
def test_colours_of_a_grey_image_are_augmentors(first: str, name: str) -> None:
    for seed in range(3):
        theirs, scene = theirs_and_ours([(first, {}), (name, ARGUMENTS[name])], PICTURE, seed)
        spec = InputSpec.model_construct(height=theirs.shape[0], width=theirs.shape[1], resize="stretch")
        assert np.abs(render(scene, PICTURE, spec).astype(int) - theirs).mean() <= 0.05


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_what_the_package_cannot_do_to_a_grey_image_is_known(mode: str) -> None:
    recipe = [step(name, **arguments) for name, arguments in ARGUMENTS.items()]
    recipe += [step("rotate_without_crop", **TURN, fillcolor=colour) for colour in ("red", [1, 2, 3])]
    operations = parse_recipe(recipe)
    for operation, packaged in zip(operations, pipeline_of(operations).operations, strict=True):
        # A rotation by no degrees fills nothing, and never fails.
        random.seed(1)
        try:
            packaged.perform_operation([Image.fromarray(PICTURE).convert(mode)])
            assert operation.takes(mode), operation.name
        except (OSError, TypeError, ValueError):
            assert not operation.takes(mode), operation.name


def test_a_whole_recipe_is_augmentors_at_the_same_draws() -> None:
    names = ("skew", "rotate", "random_distortion", "zoom", "rotate_without_crop", "random_brightness", "rotate90")
    names += ("invert", "random_contrast", "hsv_shifting")
    for seed in range(6):
        theirs, scene = theirs_and_ours([(name, ARGUMENTS[name]) for name in names], PICTURE, seed)
        spec = InputSpec.model_construct(height=theirs.shape[0], width=theirs.shape[1], resize="stretch")
        difference = np.abs(render(scene, PICTURE, spec).astype(int) - theirs)
        assert difference.mean() < 4
        # At edges of what is black a pixel more or less is black.
        assert np.median(difference) <= 2


def test_a_pipeline_becomes_the_recipe_that_it_was_made_from() -> None:
    recipe = [step(name, 0.5, **arguments) for name, arguments in ARGUMENTS.items()]
    recipe.append(step("rotate_without_crop", 0.5, **TURN, expand=True, fillcolor=[1, 2, 3]))
    operations = parse_recipe(recipe)
    assert parse_recipe(recipe_of(pipeline_of(operations))) == operations


def test_a_pipeline_as_users_write_it_becomes_a_recipe() -> None:
    pipeline = Augmentor.Pipeline()
    pipeline.rotate(probability=0.7, max_left_rotation=10, max_right_rotation=5)
    pipeline.flip_top_bottom(probability=0.5)
    pipeline.zoom_random(0.5, percentage_area=0.8)
    pipeline.add_operation(package.HSVShifting(0.5, 0.1, 0.2, 0.3, 0.4, 0.5))
    assert recipe_of(pipeline) == [
        {"operation": "rotate", "probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 5},
        {"operation": "flip_top_bottom", "probability": 0.5},
        {"operation": "zoom_random", "probability": 0.5, "percentage_area": 0.8, "randomise_percentage_area": False},
        {
            "operation": "hsv_shifting",
            "probability": 0.5,
            "hue_shift": 0.1,
            "saturation_scale": 0.2,
            "saturation_shift": 0.3,
            "value_scale": 0.4,
            "value_shift": 0.5,
        },
    ]


def test_what_the_package_takes_of_a_users_pipeline_a_recipe_takes() -> None:
    pipeline = Augmentor.Pipeline()
    pipeline.zoom(1, 1.5, 1.1)
    pipeline.black_and_white(1, 127.5)
    pipeline.rotate_without_crop(1, -720, 400)
    recipe = recipe_of(pipeline)
    assert recipe[0] == step("zoom", 1, min_factor=1.5, max_factor=1.1)
    assert recipe[1] == step("black_and_white", 1, threshold=127.5)
    assert (recipe[2]["max_left_rotation"], recipe[2]["max_right_rotation"]) == (720, 400)
    for engine in ENGINES:
        augment = build_augmenter(recipe, InputSpec(height=288, width=384), 0, engine)
        assert augment(PICTURE, (288, 384), "a", 0).shape == (288, 384, 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_limit_of_a_rotation_counts_without_its_sign(engine: Engine) -> None:
    spec = InputSpec(height=288, width=384)
    limits = [{"max_left_rotation": sign * 40, "max_right_rotation": sign * 60} for sign in (1, -1)]
    turned, same = (build_augmenter([step("rotate_without_crop", **turn)], spec, 0, engine) for turn in limits)
    np.testing.assert_array_equal(turned(PICTURE, (288, 384), "a", 0), same(PICTURE, (288, 384), "a", 0))


def test_numbers_of_numpy_become_numbers_that_yaml_can_hold() -> None:
    pipeline = Augmentor.Pipeline()
    pipeline.zoom(np.float64(0.5), np.float64(1.1), np.float32(1.5))
    pipeline.crop_by_size(1.0, np.int64(40), 30.0)
    pipeline.rotate_without_crop(1, 5, 5, expand=1, fillcolor=(np.uint8(1), 2, 3))
    recipe = recipe_of(pipeline)
    assert yaml.safe_load(yaml.safe_dump(recipe)) == recipe
    assert recipe[1] == {"operation": "crop_by_size", "probability": 1, "width": 40, "height": 30, "centre": True}
    assert recipe[2]["fillcolor"] == [1, 2, 3]


class _Own(package.Operation):
    pass


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (package.Mixup(0.5), "no operation of a recipe is Augmentor's Mixup"),
        (package.Custom(0.5, print), "no operation of a recipe is Augmentor's Custom"),
        (package.Skew(0.5, "ALL", 0.5), "no operation of a recipe is Augmentor's Skew.*skew_type='ALL'"),
        (package.Rotate(0.5, 45), "no operation of a recipe is Augmentor's Rotate.*rotation=45"),
        (_Own(0.5), "no operation of a recipe is Augmentor's _Own"),
        (package.Zoom(0.5, -1, 2), "zoom: min_factor: Input should be greater than 0"),
    ],
)
def test_what_no_recipe_can_say_is_refused(operation: Any, message: str) -> None:
    pipeline = Augmentor.Pipeline()
    pipeline.add_operation(operation)
    with pytest.raises(ConfigError, match=message):
        recipe_of(pipeline)


def test_a_filter_that_pillow_has_no_more_is_refused_by_the_package_alone() -> None:
    recipe = [step("resize", width=40, height=40, resample_filter="ANTIALIAS")]
    build_augmenter(recipe, InputSpec(), 0)
    with pytest.raises(ConfigError, match=re.escape("ANTIALIAS is gone from Pillow")):
        build_augmenter(recipe, InputSpec(), 0, "augmentor")
