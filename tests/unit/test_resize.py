import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dermaray.data.synthetic import render_lesion
from dermaray.images.resize import MAX_FRAME_ASPECT, UInt8Array, fit, frame_shape, resize, to_frame
from dermaray.images.spec import InputSpec

LESION = render_lesion("nevus", 3, (240, 320))
SIDES = st.integers(1, 400)


def quadrants(height: int, width: int) -> UInt8Array:
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    return pixels


def preprocess(pixels: UInt8Array, spec: InputSpec) -> UInt8Array:
    return fit(to_frame(pixels, frame_shape(*pixels.shape[:2], spec), spec), spec)


def shares(before: int, after: int) -> npt.NDArray[np.float64]:
    """Return how much of each new pixel each old one covers: [after, before], rows sum to 1."""
    edges = np.arange(after + 1) * before / after
    old = np.arange(before)
    covered = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.maximum(covered, 0) * after / before


@pytest.mark.parametrize("shape", [(80, 80), (119, 160), (97, 203), (1, 1), (240, 100)])
def test_what_shrinks_to_less_than_a_half_is_the_mean_of_its_area(shape: tuple[int, int]) -> None:
    expected = np.einsum("yh,hwc,xw->yxc", shares(240, shape[0]), LESION, shares(320, shape[1]), optimize=True)
    np.testing.assert_allclose(resize(LESION, shape), expected, atol=0.501)


@pytest.mark.parametrize("shape", [(180, 180), (120, 160), (239, 319)])
def test_what_shrinks_less_is_as_near_to_a_good_reduction(shape: tuple[int, int]) -> None:
    good = np.asarray(Image.fromarray(LESION).resize(shape[::-1], Image.Resampling.LANCZOS)).astype(int)
    mean = np.einsum("yh,hwc,xw->yxc", shares(240, shape[0]), LESION, shares(320, shape[1]), optimize=True)
    assert np.abs(resize(LESION, shape) - good).mean() < 1.4 * np.abs(mean - good).mean() + 0.1
    # A hair of one pixel thins out, but is there.
    hair = np.zeros((240, 320, 3), np.uint8)
    hair[:, 101] = 255
    assert (resize(hair, shape).max(axis=(1, 2)) > 40).all()


def test_a_hair_of_one_pixel_does_not_come_and_go() -> None:
    stripes = np.zeros((450, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, (180, 180)).astype(int)
    # A new pixel covers 3.3 old ones, so at least one of each kind whole.
    assert 255 / 3.4 < small.min() <= small.max() < 255 * 2.4 / 3.4


@pytest.mark.parametrize("shape", [(480, 640), (241, 500)])
def test_what_grows_is_interpolated_between_pixels(shape: tuple[int, int]) -> None:
    reference = np.asarray(Image.fromarray(LESION).resize(shape[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resize(LESION, shape).astype(int), reference.astype(int), atol=1)


def test_of_two_sides_one_may_grow_while_the_other_shrinks() -> None:
    narrow = np.einsum("hwc,xw->hxc", LESION, shares(320, 80), optimize=True).round().astype(np.uint8)
    np.testing.assert_allclose(resize(LESION, (480, 80)).astype(int), resize(narrow, (480, 80)).astype(int), atol=1)


def test_what_has_the_size_stays_as_it_is() -> None:
    assert resize(LESION, (240, 320)) is LESION
    assert fit(LESION, InputSpec(height=240, width=320)) is LESION


@pytest.mark.parametrize(
    ("way", "picture", "frame"),
    [
        ("stretch", (450, 600), (180, 180)),
        ("crop", (450, 600), (180, 240)),
        ("crop", (600, 450), (240, 180)),
        ("crop", (100, 10_000), (180, 720)),
        ("crop", (10_000, 100), (720, 180)),
        ("pad", (450, 600), (135, 180)),
        ("pad", (600, 450), (180, 135)),
        ("pad", (1, 10_000), (1, 180)),
    ],
)
def test_a_frame_is_the_picture_at_the_scale_of_the_model(
    way: str, picture: tuple[int, int], frame: tuple[int, int]
) -> None:
    assert frame_shape(*picture, InputSpec(resize=way)) == frame


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.integers(16, 64), st.integers(16, 64), st.sampled_from(["stretch", "crop", "pad"]))
def test_any_picture_fits_any_model(height: int, width: int, rows: int, columns: int, way: str) -> None:
    spec = InputSpec(height=rows, width=columns, resize=way)
    frame = frame_shape(height, width, spec)
    if way == "crop":
        assert rows <= frame[0] <= MAX_FRAME_ASPECT * rows
        assert columns <= frame[1] <= MAX_FRAME_ASPECT * columns
    if way == "pad":
        assert 1 <= frame[0] <= rows
        assert 1 <= frame[1] <= columns
    assert rows == frame[0] or columns == frame[1]
    assert preprocess(np.full((height, width, 3), 77, np.uint8), spec).shape == spec.shape


def test_stretch_ignores_the_aspect_ratio() -> None:
    pixels = preprocess(quadrants(64, 256), InputSpec(height=32, width=32, resize="stretch"))
    np.testing.assert_array_equal(pixels[2::27, 2::27], quadrants(2, 2))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("length", [256, 4096])
def test_crop_cuts_the_centre(turned: bool, length: int) -> None:
    wide = np.zeros((64, length, 3), np.uint8)
    wide[:, length // 2 - 32 : length // 2 + 32] = quadrants(64, 64)
    picture = wide.transpose(1, 0, 2) if turned else wide
    pixels = preprocess(picture, InputSpec(height=32, width=32, resize="crop"))
    expected = quadrants(2, 2).transpose(1, 0, 2) if turned else quadrants(2, 2)
    np.testing.assert_array_equal(pixels[2::27, 2::27], expected)
    assert not (pixels.sum(-1) == 0).any()


@pytest.mark.parametrize("turned", [False, True])
def test_pad_keeps_the_whole_frame_between_black_bars(turned: bool) -> None:
    wide = quadrants(64, 256)
    pixels = preprocess(wide.transpose(1, 0, 2) if turned else wide, InputSpec(height=32, width=32, resize="pad"))
    upright = pixels.transpose(1, 0, 2) if turned else pixels
    assert upright[:12].max() == upright[20:].max() == 0
    np.testing.assert_array_equal(upright[13:20:5, 2::27], quadrants(2, 2))
