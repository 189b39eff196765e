import random
from typing import Any

import numpy as np
import pytest

from dermaray.augmentation.engines import Augmenter, Engine, build_augmenter, seed_of
from dermaray.data.synthetic import render_lesion
from dermaray.errors import ConfigError
from dermaray.images.resize import UInt8Array, fit, frame_shape, resize, to_frame
from dermaray.images.spec import InputSpec

# Augmentor computes its skews with numpy.matrix.
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

SPEC = InputSpec(height=40, width=48)
PICTURE = render_lesion("nevus", 1, (90, 120))
SIZE = (90, 120)
FRAME = to_frame(PICTURE, frame_shape(*SIZE, SPEC), SPEC)
FULL = InputSpec(height=90, width=120)
ENGINES: tuple[Engine, ...] = ("fused", "augmentor")


HUE = {
    "operation": "hsv_shifting",
    "probability": 1,
    "hue_shift": 0.1,
    "saturation_scale": 0,
    "saturation_shift": 0,
    "value_scale": 0,
    "value_shift": 0,
}


def step(operation: str, probability: float = 1.0, **arguments: Any) -> dict[str, Any]:
    return {"operation": operation, "probability": probability, **arguments}


TURN = {"max_left_rotation": 10, "max_right_rotation": 10}
RECIPE = [
    step("rotate", 0.9, **TURN),
    step("zoom_random", 0.9, percentage_area=0.7),
    step("random_distortion", 0.9, grid_width=4, grid_height=4, magnitude=4),
    step("random_brightness", min_factor=0.5, max_factor=0.8),
    step("random_erasing", 0.9, rectangle_area=0.3),
]


def once(*recipe: dict[str, Any], picture: UInt8Array = PICTURE, engine: Engine = "fused") -> UInt8Array:
    """Augment at the picture's own size."""
    spec = InputSpec.model_construct(height=picture.shape[0], width=picture.shape[1], resize="stretch")
    return build_augmenter(recipe, spec, 0, engine)(picture, picture.shape[:2], "a", 0)


def share_changed(augment: Augmenter, images: int = 2000) -> float:
    return sum(not np.array_equal(augment(FRAME, SIZE, str(i), 0), FRAME) for i in range(images)) / images


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_image_epoch_and_draw_give_the_same_pixels_in_any_order(engine: Engine) -> None:
    visits = [(image_id, epoch, draw) for image_id in ("a", "b", "c") for epoch in range(3) for draw in range(2)]
    first = {v: build_augmenter(RECIPE, SPEC, 4, engine)(FRAME, SIZE, *v).tobytes() for v in visits}
    assert len(set(first.values())) == len(visits)
    augment = build_augmenter(RECIPE, SPEC, 4, engine)
    for visit in reversed(visits):
        random.seed(len(visit))
        np.random.seed(3)
        assert augment(FRAME, SIZE, *visit).tobytes() == first[visit]


@pytest.mark.parametrize("engine", ENGINES)
def test_another_seed_gives_other_pixels(engine: Engine) -> None:
    first, second = (build_augmenter(RECIPE, SPEC, seed, engine)(FRAME, SIZE, "a", 0) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_goes_in_is_not_changed(engine: Engine) -> None:
    frame = FRAME.copy()
    frame.flags.writeable = False
    build_augmenter(RECIPE, SPEC, 0, engine)(frame, SIZE, "a", 0)
    np.testing.assert_array_equal(frame, FRAME)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_without_operations_it_is_what_scoring_sees(engine: Engine, resize: Any) -> None:
    spec = InputSpec(height=40, width=40, resize=resize)
    frame = to_frame(PICTURE, frame_shape(*SIZE, spec), spec)
    np.testing.assert_array_equal(build_augmenter([], spec, 0, engine)(frame, SIZE, "a", 0), fit(frame, spec))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_where_no_operation_happens_it_is_what_scoring_sees(resize: Any) -> None:
    spec = InputSpec(height=40, width=40, resize=resize)
    frame = to_frame(PICTURE, frame_shape(*SIZE, spec), spec)
    augment = build_augmenter([step("rotate", 0.001, **TURN), step("invert", 0.001)], spec, 0)
    np.testing.assert_array_equal(augment(frame, SIZE, "a", 0), fit(frame, spec))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_operation_does_what_its_name_says(engine: Engine) -> None:
    def done(operation: str, **arguments: Any) -> UInt8Array:
        return once(step(operation, **arguments), engine=engine)

    np.testing.assert_array_equal(done("flip_left_right"), PICTURE[:, ::-1])
    np.testing.assert_array_equal(done("flip_top_bottom"), PICTURE[::-1])
    np.testing.assert_array_equal(done("rotate180"), PICTURE[::-1, ::-1])
    np.testing.assert_array_equal(done("invert"), 255 - PICTURE)
    square = PICTURE[:90, :90]
    turned = {name: once(step(name), picture=square, engine=engine) for name in ("rotate90", "rotate270")}
    np.testing.assert_array_equal(turned["rotate90"], np.rot90(square))
    np.testing.assert_array_equal(turned["rotate270"], np.rot90(square, -1))


def test_operations_run_in_the_order_of_the_recipe() -> None:
    square = PICTURE[:90, :90]
    turned = once(step("rotate90"), step("flip_left_right"), picture=square)
    np.testing.assert_array_equal(turned, np.rot90(square)[:, ::-1])
    dark = {"min_factor": 0.5, "max_factor": 0.5}
    half = PICTURE.astype(np.float32) * 0.5
    darkened = once(step("random_brightness", **dark), step("invert"))
    np.testing.assert_array_equal(darkened, 255 - half.astype(np.uint8))
    inverted = once(step("invert"), step("random_brightness", **dark))
    np.testing.assert_array_equal(inverted, (127.5 - half).astype(np.uint8))


def test_probability_one_is_always() -> None:
    assert share_changed(build_augmenter([step("flip_left_right", 1)], SPEC, 0), 200) == 1


@pytest.mark.parametrize("probability", [0.25, 0.5, 0.75, 0.99])
def test_an_operation_happens_as_often_as_the_recipe_says(probability: float) -> None:
    augment = build_augmenter([step("flip_left_right", probability)], SPEC, 0)
    assert share_changed(augment) == pytest.approx(probability, abs=0.03)


def test_the_package_rounds_its_probabilities_and_so_does_its_engine() -> None:
    augment = build_augmenter([step("flip_left_right", 0.39)], SPEC, 0, "augmentor")
    frame = to_frame(PICTURE, SPEC.shape[:2], SPEC)
    happened = [augment(frame, SPEC.shape[:2], str(i), 0) for i in range(2000)]
    share = sum(not np.array_equal(pixels, frame) for pixels in happened) / 2000
    assert share == pytest.approx(0.35, abs=0.03)


def test_operations_happen_independently_of_each_other() -> None:
    # Both or none leave the image as it was.
    both = [step("flip_left_right", 0.5), step("flip_left_right", 0.5)]
    assert share_changed(build_augmenter(both, SPEC, 0)) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 1.0])
def test_what_an_operation_draws_does_not_depend_on_its_probability(probability: float) -> None:
    augment = build_augmenter([step("flip_random", probability)], SPEC, 0)
    results = [augment(FRAME, SIZE, str(i), 0) for i in range(3000)]
    mirrored = sum(np.array_equal(result, FRAME[:, ::-1]) for result in results)
    upended = sum(np.array_equal(result, FRAME[::-1]) for result in results)
    assert mirrored / (mirrored + upended) == pytest.approx(0.5, abs=0.1)


def test_what_the_frame_lacks_is_black_and_later_colours_apply_to_it() -> None:
    white = np.full((64, 64, 3), 200, np.uint8)
    small = step("zoom", min_factor=0.5, max_factor=0.5)
    assert once(small, picture=white)[0, 0].tolist() == [0, 0, 0]
    assert once(small, picture=white)[32, 32].tolist() == [200, 200, 200]
    assert once(small, step("invert"), picture=white)[0, 0].tolist() == [255, 255, 255]
    assert once(step("invert"), small, picture=white)[0, 0].tolist() == [0, 0, 0]


def test_what_one_operation_cut_off_another_does_not_bring_back() -> None:
    picture = np.full((64, 64, 3), 200, np.uint8)
    zoomed_in_and_out = once(
        step("zoom", min_factor=2, max_factor=2), step("zoom", min_factor=0.5, max_factor=0.5), picture=picture
    )
    assert zoomed_in_and_out[2, 2].tolist() == [0, 0, 0]
    assert zoomed_in_and_out[32, 32].tolist() == [200, 200, 200]


def test_corners_take_the_fill_colour() -> None:
    turned = once(step("rotate_without_crop", max_left_rotation=40, max_right_rotation=40, fillcolor="lime"))
    assert turned[0, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_grey_image_gets_is_grey(engine: Engine) -> None:
    for first in ("greyscale", "black_and_white"):
        noisy = once(step(first), step("random_erasing", rectangle_area=0.9), engine=engine)
        assert (noisy == noisy[..., :1]).all()
        assert len(np.unique(noisy)) == 2 or first == "greyscale"


@pytest.mark.parametrize("engine", ENGINES)
def test_black_and_white_stays_so(engine: Engine) -> None:
    turned = once(
        step("black_and_white"), step("rotate", **TURN), step("zoom_random", percentage_area=0.7), engine=engine
    )
    assert set(np.unique(turned)) == {0, 255}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("first", "fill", "corner"),
    [
        ("greyscale", "red", [76, 76, 76]),
        ("black_and_white", "red", [255, 255, 255]),
        # The package cannot do it to one channel.
        ("greyscale", [9, 8, 7], [9, 8, 7]),
        ("invert", "red", [255, 0, 0]),
    ],
)
def test_corners_of_a_grey_image_are_grey(engine: Engine, first: str, fill: Any, corner: list[int]) -> None:
    turns = step("rotate_without_crop", max_left_rotation=40, max_right_rotation=40, fillcolor=fill)
    assert once(step(first), turns, engine=engine)[0, 0].tolist() == corner


def test_detail_that_a_resize_loses_stays_lost() -> None:
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    coarse = once(step("resize", width=12, height=12), picture=stripes)
    assert coarse.std() < 30 < stripes.std()


def test_shrinking_averages_rather_than_skips() -> None:
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    small = once(step("zoom", min_factor=0.25, max_factor=0.25), picture=stripes)[40:56, 40:56]
    assert abs(small.mean() - 127.5) < 8
    assert small.std() < 30


def test_contrast_is_measured_where_the_recipe_has_it() -> None:
    # Half of the picture is cut off after the contrast was changed: its mean is that of both halves.
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 32:] = 200
    flat = step("random_contrast", min_factor=0, max_factor=0)
    crop = step("crop_by_size", width=20, height=64)
    assert set(once(flat, crop, picture=np.roll(picture, 16, axis=1)).ravel().tolist()) <= {99, 100, 101}


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_bars_of_a_padded_image_stay_black_and_do_not_count(resize: Any) -> None:
    spec = InputSpec(height=64, width=64, resize=resize)
    grey = np.full((30, 60, 3), 100, np.uint8)
    frame = to_frame(grey, frame_shape(30, 60, spec), spec)
    recipe = [step("random_contrast", min_factor=0, max_factor=0), step("invert"), step("flip_left_right")]
    pixels = build_augmenter(recipe, spec, 0)(frame, (30, 60), "a", 0)
    assert pixels[32, 32].tolist() == [155, 155, 155]
    assert pixels[2, 32].tolist() == ([0, 0, 0] if resize == "pad" else [155, 155, 155])


def test_a_crop_can_reach_what_fit_cuts_off() -> None:
    spec = InputSpec(height=32, width=32, resize="crop")
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, :32] = 250
    frame = to_frame(picture, frame_shape(64, 128, spec), spec)
    assert fit(frame, spec).max() == 0
    augment = build_augmenter([step("crop_random", percentage_area=0.3)], spec, 0)
    assert max(augment(frame, (64, 128), str(i), 0).max() for i in range(40)) >= 245


def test_a_package_that_fails_on_an_image_is_a_users_error() -> None:
    augment = build_augmenter([step("crop_by_size", width=500, height=20)], SPEC, 0, "augmentor")
    with pytest.raises(ConfigError, match="Augmentor's Crop fails on an image of 120x90"):
        augment(FRAME, SIZE, "a", 0)
    # The engine of our own leaves an image that is smaller than its crop.
    assert (
        build_augmenter([step("crop_by_size", width=500, height=20)], SPEC, 0)(FRAME, SIZE, "a", 0).shape == SPEC.shape
    )


@pytest.mark.parametrize("size", [(150, 200), (224, 224), (40, 31)])
@pytest.mark.parametrize("limit", [0.5, 3, 25])
def test_a_rotation_cuts_all_corners_off(size: tuple[int, int], limit: float) -> None:
    white = np.full((*size, 3), 200, np.uint8)
    frame = to_frame(white, frame_shape(*size, SPEC), SPEC)
    augment = build_augmenter([step("rotate", max_left_rotation=limit, max_right_rotation=limit)], SPEC, 0)
    assert all(augment(frame, size, str(i), 0).min() == 200 for i in range(100))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(90, 121), (91, 120), (1, 90), (200, 11)])
def test_flipping_twice_is_what_scoring_sees(resize: Any, size: tuple[int, int]) -> None:
    spec = InputSpec(height=40, width=44, resize=resize)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    frame = to_frame(picture, frame_shape(*size, spec), spec)
    twice = build_augmenter([step("flip_left_right"), step("flip_left_right")], spec, 0)(frame, size, "a", 0)
    np.testing.assert_array_equal(twice, fit(frame, spec))


def test_bars_and_picture_of_a_padded_image_meet_where_scoring_has_them() -> None:
    spec = InputSpec(height=180, width=180, resize="pad")
    white = np.full((450, 601, 3), 255, np.uint8)
    frame = to_frame(white, frame_shape(450, 601, spec), spec)
    same = build_augmenter([step("random_brightness", min_factor=1, max_factor=1)], spec, 0)
    np.testing.assert_array_equal(same(frame, (450, 601), "a", 0), fit(frame, spec))


def test_many_operations_that_measure_take_no_longer_than_they_are_many() -> None:
    recipe = [step("random_contrast", min_factor=0.9, max_factor=1.1) for _ in range(40)]
    # Where every one measured all before it anew, this would not end.
    assert build_augmenter([*recipe, step("flip_left_right")], SPEC, 0)(FRAME, SIZE, "a", 0).shape == SPEC.shape


def test_what_comes_out_belongs_to_the_caller() -> None:
    for recipe in ([step("invert", 0.001)], [step("invert")], [step("flip_left_right")], [HUE]):
        pixels = build_augmenter(recipe, SPEC, 0)(FRAME, SIZE, "a", 0)
        assert not np.shares_memory(pixels, FRAME)
        pixels[0, 0] = 7


def test_the_package_leaves_the_global_generators_as_they_were() -> None:
    random.seed(1)
    np.random.seed(1)
    wanted = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    build_augmenter(RECIPE, SPEC, 4, "augmentor")(FRAME, SIZE, "a", 0)
    assert (random.random(), np.random.random()) == wanted


def test_what_a_distortion_drags_in_from_beyond_the_edge_is_black() -> None:
    white = np.full((64, 64, 3), 200, np.uint8)
    recipe = [step("random_distortion", grid_width=8, grid_height=8, magnitude=60)]
    augment = build_augmenter(recipe, InputSpec(height=64, width=64), 0)
    assert all(augment(white, (64, 64), str(i), 0).min() == 0 for i in range(10))


@pytest.mark.parametrize("bend", [[], [step("random_distortion", grid_width=2, grid_height=2, magnitude=1)]])
def test_noise_is_as_coarse_as_a_model_sees_it(bend: list[dict[str, Any]]) -> None:
    grey = np.full((400, 400, 3), 127, np.uint8)
    spec = InputSpec(height=40, width=40)
    augment = build_augmenter([step("random_erasing", rectangle_area=1.0), *bend], spec, 0)
    deviation = np.mean([augment(grey[:40, :40], (400, 400), str(i), 0).std() for i in range(20)])
    # Of a hundred grains the mean is left.
    assert 1 < deviation < 20


@pytest.mark.parametrize("size", [(20, 300), (300, 20), (100, 400), (300, 900)])
@pytest.mark.parametrize("operation", ["shear", "rotate"])
def test_of_a_strip_something_is_left_and_stays_the_right_way_round(operation: str, size: tuple[int, int]) -> None:
    limits = {"shear": ("max_shear_left", "max_shear_right"), "rotate": ("max_left_rotation", "max_right_rotation")}
    recipe = [step(operation, **dict.fromkeys(limits[operation], 25))]
    rising = np.zeros((*size, 3), np.uint8) + np.linspace(60, 200, size[1]).astype(np.uint8)[None, :, None]
    rising += np.linspace(0, 50, size[0]).astype(np.uint8)[:, None, None]
    augment = build_augmenter(recipe, InputSpec(height=48, width=48), 0)
    for i in range(60):
        pixels = augment(resize(rising, (48, 48)), size, str(i), 0).astype(int)
        assert pixels.min() >= 55
        assert pixels[:, -8:].mean() > pixels[:, :8].mean() - 60


def test_a_fill_of_three_levels_is_that_colour() -> None:
    turned = once(step("rotate_without_crop", max_left_rotation=40, max_right_rotation=40, fillcolor=[9, 8, 7]))
    assert turned[0, 0].tolist() == [9, 8, 7]


def test_tables_by_channel_are_chained_channel_by_channel() -> None:
    equalise = step("histogram_equalisation")
    both = once(equalise, step("invert"), equalise)
    by_hand = once(equalise, picture=once(step("invert"), picture=once(equalise)))
    np.testing.assert_array_equal(both, by_hand)


def test_ids_and_numbers_are_told_apart() -> None:
    assert seed_of(1, 11, "a", 0) != seed_of(11, 1, "a", 0)
    assert seed_of(1, 1, "1a", 0) != seed_of(1, 11, "a", 0)
    assert seed_of(1, 1, "a1", 0) != seed_of(1, 1, "a", 10)
