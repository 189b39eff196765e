import random
from typing import Any

import Augmentor
import numpy as np
import pytest

from dermaray.data.synthetic import render_lesion
from dermaray.errors import ConfigError
from dermaray.images.augment import OPERATIONS, Augmenter, check_recipe
from dermaray.images.decode import UInt8Array

# Augmentor computes its skews with numpy.matrix.
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

GRID = {"grid_width": 4, "grid_height": 4, "magnitude": 4}
FACTORS = {"min_factor": 0.5, "max_factor": 0.8}
AREA = {"percentage_area": 0.7}
TURN = {"max_left_rotation": 10, "max_right_rotation": 10}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "black_and_white": {"threshold": 128},
    "crop_by_size": {"width": 40, "height": 30},
    "crop_centre": AREA,
    "crop_random": AREA,
    "flip_left_right": {},
    "flip_random": {},
    "flip_top_bottom": {},
    "gaussian_distortion": {**GRID, "corner": "bell", "method": "in"},
    "greyscale": {},
    "histogram_equalisation": {},
    "invert": {},
    "random_brightness": FACTORS,
    "random_color": FACTORS,
    "random_contrast": FACTORS,
    "random_distortion": GRID,
    "random_erasing": {"rectangle_area": 0.3},
    "resize": {"width": 30, "height": 20, "resample_filter": "BICUBIC"},
    "rotate": TURN,
    "rotate180": {},
    "rotate270": {},
    "rotate90": {},
    "rotate_random_90": {},
    "rotate_without_crop": TURN,
    "scale": {"scale_factor": 1.5},
    "shear": {"max_shear_left": 10, "max_shear_right": 10},
    "skew": {"magnitude": 0.5},
    "skew_corner": {"magnitude": 0.5},
    "skew_left_right": {"magnitude": 0.5},
    "skew_tilt": {"magnitude": 0.5},
    "skew_top_bottom": {"magnitude": 0.5},
    "zoom": {"min_factor": 1.2, "max_factor": 1.5},
    "zoom_random": AREA,
}
RECIPE = [
    {"operation": "rotate", "probability": 0.9, **TURN},
    {"operation": "zoom_random", "probability": 0.9, **AREA},
    {"operation": "random_brightness", "probability": 1, **FACTORS},
    {"operation": "random_erasing", "probability": 0.9, "rectangle_area": 0.3},
]
PIXELS = render_lesion("nevus", 1, (48, 64))
TINY = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def step(operation: str, probability: float = 1.0, **arguments: Any) -> dict[str, Any]:
    return {"operation": operation, "probability": probability, **arguments}


def share_changed(recipe: list[dict[str, Any]], images: int = 2000) -> float:
    augment = Augmenter(recipe, seed=0)
    return sum(not np.array_equal(augment(TINY, str(i), 0), TINY) for i in range(images)) / images


def test_the_same_image_epoch_and_draw_give_the_same_pixels_in_any_order() -> None:
    visits = [(image_id, epoch, draw) for image_id in ("a", "b", "c") for epoch in range(3) for draw in range(2)]
    first = {visit: Augmenter(RECIPE, seed=4)(PIXELS, *visit).tobytes() for visit in visits}
    assert len(set(first.values())) == len(visits)
    augment = Augmenter(RECIPE, seed=4)
    for visit in reversed(visits):
        random.seed(len(visit))
        np.random.seed(3)
        assert augment(PIXELS, *visit).tobytes() == first[visit]


def test_another_seed_gives_other_pixels() -> None:
    first, second = (Augmenter(RECIPE, seed)(PIXELS, "a", 0) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_what_goes_in_is_not_changed() -> None:
    pixels = PIXELS.copy()
    pixels.flags.writeable = False
    Augmenter(RECIPE, seed=0)(pixels, "a", 0)
    np.testing.assert_array_equal(pixels, PIXELS)


def test_every_operation_is_one_of_augmentors_and_is_tried_here() -> None:
    assert set(ARGUMENTS) == set(OPERATIONS)
    assert all(callable(getattr(Augmentor.Pipeline, name)) for name in OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("shape", [(48, 64), (64, 48)])
def test_every_operation_changes_pixels_but_not_their_shape(operation: str, shape: tuple[int, int]) -> None:
    pixels = render_lesion("melanoma", 2, shape)
    augment = Augmenter([step(operation, **ARGUMENTS[operation])], seed=0)
    results = [augment(pixels, str(i), 0) for i in range(5)]
    assert all(result.shape == pixels.shape and result.dtype == np.uint8 for result in results)
    assert any(not np.array_equal(result, pixels) for result in results)


def test_an_operation_does_what_augmentor_says() -> None:
    def once(operation: str) -> UInt8Array:
        return Augmenter([step(operation)], seed=0)(TINY, "a", 0)

    np.testing.assert_array_equal(once("flip_left_right"), TINY[:, ::-1])
    np.testing.assert_array_equal(once("flip_top_bottom"), TINY[::-1])
    np.testing.assert_array_equal(once("rotate180"), TINY[::-1, ::-1])
    np.testing.assert_array_equal(once("invert"), 255 - TINY)


def test_operations_run_in_the_order_of_the_recipe() -> None:
    turned = Augmenter([step("rotate90"), step("flip_left_right")], seed=0)(TINY, "a", 0)
    np.testing.assert_array_equal(turned, np.rot90(TINY)[:, ::-1])


def test_an_empty_recipe_changes_nothing() -> None:
    np.testing.assert_array_equal(Augmenter([], seed=0)(PIXELS, "a", 0), PIXELS)


def test_probability_one_is_always() -> None:
    assert share_changed([step("flip_left_right", 1)]) == 1


def test_probability_zero_is_never() -> None:
    # The one operation of which Augmentor takes a probability of zero.
    assert share_changed([step("rotate_without_crop", 0, max_left_rotation=25, max_right_rotation=25)]) == 0


@pytest.mark.parametrize("probability", [0.25, 0.5, 0.75, 0.99])
def test_an_operation_happens_as_often_as_the_recipe_says(probability: float) -> None:
    assert share_changed([step("flip_left_right", probability)]) == pytest.approx(probability, abs=0.03)


def test_operations_happen_independently_of_each_other() -> None:
    # Both or none leave the image as it was.
    both = [step("flip_left_right", 0.5), step("flip_left_right", 0.5)]
    assert share_changed(both) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 1.0])
def test_what_an_operation_draws_does_not_depend_on_its_probability(probability: float) -> None:
    augment = Augmenter([step("flip_random", probability)], seed=0)
    results = [augment(TINY, str(i), 0) for i in range(4000)]
    mirrored = sum(np.array_equal(result, TINY[:, ::-1]) for result in results)
    upended = sum(np.array_equal(result, TINY[::-1]) for result in results)
    assert mirrored / (mirrored + upended) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"operation": "twirl", "probability": 1}, "operation 'twirl' is unknown. Augmentor has: black_and_white"),
        ({"operation": "add_operation", "probability": 1}, "operation 'add_operation' is unknown"),
        ({"probability": 1}, "operation None is unknown"),
        (step("rotate90", angle=3), "rotate90 has no argument 'angle'. It takes: probability"),
        ({"operation": "zoom_random", "probability": 1}, "zoom_random needs 'percentage_area'"),
        ({"operation": "zoom_random", **AREA}, "zoom_random needs 'probability'"),
        (step("rotate90", 1.5), "rotate90: .*between 0 and 1. Received: .*1.5"),
        (step("rotate90", -0.1), "rotate90: .*Received: .*-0.1"),
        (step("zoom_random", percentage_area=2), "zoom_random: .*percentage_area.* Received: .*2"),
        (step("rotate", max_left_rotation=90, max_right_rotation=1), "rotate: .*between 0 and 25. Received: .*90"),
        (step("zoom", min_factor="big", max_factor=2), "zoom: .*Received: .*'big'"),
        (step("resize", width=9, height=9, resample_filter="SHARP"), "resize: .*Received: .*'SHARP'"),
    ],
)
def test_a_wrong_step_is_refused_before_any_image_is_read(wrong: dict[str, Any], message: str) -> None:
    good = step("rotate90")
    with pytest.raises(ConfigError, match=message):
        check_recipe([good, wrong])
    with pytest.raises(ConfigError, match=message):
        Augmenter([good, wrong], seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        step("rotate_without_crop", 7, **TURN),
        {"operation": "rotate_without_crop", "probability": "often", **TURN},
        step("gaussian_distortion", **GRID, corner="left", method="in"),
        step("random_distortion", grid_width=0, grid_height=4, magnitude=4),
        step("resize", width=50.5, height=50),
    ],
    ids=lambda wrong: f"{wrong['operation']}-{wrong['probability']}",
)
def test_a_value_that_augmentor_lets_pass_but_cannot_use_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=wrong["operation"]):
        check_recipe([wrong])


def test_a_good_recipe_passes() -> None:
    check_recipe([])
    check_recipe(RECIPE)
    check_recipe([step(name, **arguments) for name, arguments in ARGUMENTS.items()])
