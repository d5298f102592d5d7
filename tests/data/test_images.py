from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from keras_cxrgan.data import images
from keras_cxrgan.data.images import (
    apply_clahe,
    decode,
    encode_png,
    fit_square,
    from_uint8,
    image_grid,
    prepare_image,
    read_png_text,
    to_uint8,
    write_png,
)


def grey16(array):
    return cv2.imencode(".png", np.asarray(array, np.uint16))[1].tobytes()


def jpeg(array, quality=100):
    return cv2.imencode(".jpg", np.asarray(array, np.uint8), (cv2.IMWRITE_JPEG_QUALITY, quality))[
        1
    ].tobytes()


def noise(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width)).astype(np.uint8)


def test_twelve_bits_in_a_sixteen_bit_file_are_not_almost_black():
    image = decode(grey16(np.arange(4096).reshape(64, 64)))
    assert (image.min(), image.max()) == (0, 255)
    assert 126 < image.mean() < 129


def test_one_hot_pixel_does_not_darken_a_sixteen_bit_image():
    ramp = np.arange(4096).reshape(64, 64)
    ramp[0, 0] = 65535
    assert 126 < decode(grey16(ramp)).mean() < 129


@pytest.mark.parametrize(
    "window, expected",
    [
        ((0, 4095), [0, 62, 128, 255, 255]),  # 12 bits in a 16-bit file
        ((1000, 2048), [0, 0, 255, 255, 255]),
        ((1000, 65535), [0, 0, 4, 12, 255]),
        ((0, 510), [0, 255, 255, 255, 255]),
        ((2048, 2049), [0, 0, 0, 255, 255]),
    ],
)
def test_a_stated_window_of_a_sixteen_bit_image(window, expected):
    data = grey16([[0, 1000, 2048, 4095, 65535]])
    assert decode(data, window).tolist() == [expected]
    assert decode(data, list(map(float, window))).tolist() == [expected]


def test_a_stated_window_rounds_halves_to_even():
    assert decode(grey16([[1, 3, 5, 7]]), (0, 510)).tolist() == [[0, 2, 2, 4]]
    assert decode(grey16([[3, 9, 15]]), (0, 1530)).tolist() == [[0, 2, 2]]


def test_eight_bit_images_say_themselves_how_they_are_shown():
    image = noise(16, 16)
    for data in (encode_png(image), jpeg(image)):
        np.testing.assert_array_equal(decode(data, (10, 20)), decode(data))


@pytest.mark.parametrize(
    "window",
    [(5, 5), (9, 3), (-1, 10), (0, 65536), (0,), (1, 2, 3), ("a", 3), (0, float("nan")), 7],
)
def test_a_window_that_cannot_be_is_named_with_its_option(window):
    for data in (grey16([[1]]), encode_png(noise(2, 2))):
        with pytest.raises(ValueError, match=r"0 <= low < high <= 65535.*\(--window\)"):
            decode(data, window)


def test_sixteen_bit_image_of_few_levels_keeps_them():
    few = np.zeros((64, 64), int)
    few[5, 5] = 900  # fewer than the 0.1 % that the percentiles cut
    assert decode(grey16(few))[5, 5] == 255
    assert decode(grey16(np.full((4, 4), 900))).max() == 0


def test_clahe_is_that_of_opencv_with_the_stated_parameters():
    image = noise(96, 80) // 4 + 60
    expected = cv2.createCLAHE(2.0, (8, 8)).apply(image)
    np.testing.assert_array_equal(apply_clahe(image), expected)
    assert (apply_clahe(image, 4.0, 4) != expected).any()


def test_clahe_comes_before_the_resize():
    image = noise(96, 96) // 4 + 60
    enhanced = cv2.createCLAHE(2.0, (8, 8)).apply(image)
    expected = cv2.resize(enhanced, (24, 24), interpolation=cv2.INTER_AREA)
    prepared = prepare_image(image, 24, clahe_clip_limit=2.0)
    np.testing.assert_array_equal(prepared, expected)


def test_clahe_at_a_stated_size_works_on_the_antialiased_image():
    image = noise(80, 160) // 4 + 60
    smaller = cv2.resize(image, (80, 40), interpolation=cv2.INTER_AREA)
    enhanced = cv2.createCLAHE(2.0, (8, 8)).apply(smaller)
    expected = cv2.resize(enhanced[:, 20:60], (20, 20), interpolation=cv2.INTER_AREA)
    prepared = prepare_image(image, 20, clahe_clip_limit=2.0, clahe_size=80)
    np.testing.assert_array_equal(prepared, expected)


def test_clip_limit_zero_leaves_clahe_and_its_size_out():
    image = noise(64, 64)
    np.testing.assert_array_equal(prepare_image(image, 64, clahe_size=16), image)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_shrinking_averages_blocks(factor):
    image = noise(8 * factor, 8 * factor)
    means = image.reshape(8, factor, 8, factor).mean((1, 3))
    assert np.abs(fit_square(image, 8) - means).max() <= 0.5


def test_stretching_averages_the_axis_that_shrinks_while_the_other_grows():
    stripes = np.tile(np.array([0, 200], np.uint8), (4, 32))  # 4 x 64, alternating columns
    assert (fit_square(stripes, 16, "stretch") == 100).all()


def test_enlarging_is_cubic():
    image = noise(8, 8)
    expected = cv2.resize(image, (20, 20), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(fit_square(image, 20), expected)


RECTANGLE = np.repeat(np.array([[10, 20, 30, 40, 50, 60]], np.uint8), 2, axis=0)


@pytest.mark.parametrize(
    "fit, image_size, expected",
    [
        ("crop", 2, [[30, 40], [30, 40]]),
        (
            "pad",
            6,
            [
                [0] * 6,
                [0] * 6,
                [10, 20, 30, 40, 50, 60],
                [10, 20, 30, 40, 50, 60],
                [0] * 6,
                [0] * 6,
            ],
        ),
        ("stretch", 2, [[20, 50], [20, 50]]),
    ],
)
def test_fits_on_a_known_rectangle(fit, image_size, expected):
    assert fit_square(RECTANGLE, image_size, fit).tolist() == expected
    assert fit_square(RECTANGLE.T, image_size, fit).tolist() == np.transpose(expected).tolist()


def test_padding_a_strip_does_not_need_a_huge_square():
    strip = np.full((1, 200_000), 90, np.uint8)
    padded = fit_square(strip, 8, "pad")
    assert padded.sum() == 90 * 8


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"fit": "letterbox"}, "crop, pad, stretch"),
        ({"image_size": 0}, "image_size"),
        ({"clahe_tiles": 0}, "clahe_tiles"),
        ({"clahe_clip_limit": -1.0}, "clahe_clip_limit"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        prepare_image(noise(8, 8), **{"image_size": 8, **settings})


def test_all_grey_levels_survive_the_round_trip():
    levels = np.arange(256, dtype=np.uint8)
    scaled = from_uint8(levels)
    assert (scaled.dtype, scaled.min(), scaled.max()) == (np.float32, -1.0, 1.0)
    np.testing.assert_array_equal(to_uint8(scaled), levels)
    np.testing.assert_array_equal(to_uint8(scaled.astype(np.float64)), levels)


def test_to_uint8_clips_instead_of_wrapping_and_rounds_instead_of_flooring():
    values = np.array([-np.inf, -1.5, -1.0, 1.0, 1.004, 7.0, np.inf])
    assert to_uint8(values).tolist() == [0, 0, 0, 255, 255, 255, 255]
    assert to_uint8(np.float32([[0.9 / 127.5 - 1]])).tolist() == [[1]]


def test_to_uint8_refuses_what_is_no_image_in_its_range():
    with pytest.raises(ValueError, match="got uint8"):
        to_uint8(np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(np.array([0.0, np.nan]))


def test_grid_places_images_row_by_row():
    tiles = np.arange(1, 4, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    sheet = image_grid(tiles, columns=2, gap=1)
    assert sheet.shape == (5, 5)
    assert [sheet[0, 0], sheet[0, 3], sheet[3, 0]] == [1, 2, 3]
    assert len({int(sheet[0, 2]), int(sheet[2, 0]), int(sheet[4, 4])}) == 1


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((9, 4, 5), (12, 15)),
        ((5, 4, 4, 1), (8, 12)),
        ((2, 4, 4, 3), (4, 8, 3)),
        ((1, 4, 4), (4, 4)),
    ],
)
def test_grid_shapes(shape, expected):
    assert image_grid(np.zeros(shape, np.uint8), gap=0).shape == expected


@pytest.mark.parametrize(
    "images_in",
    [np.zeros((0, 4, 4), np.uint8), np.zeros((2, 4, 4)), np.zeros((2, 4, 4, 2), np.uint8)],
)
def test_grid_refuses_other_arrays(images_in):
    with pytest.raises(ValueError, match="image_grid needs"):
        image_grid(images_in)


def test_png_text_round_trip():
    image = noise(7, 9)
    text = {"Software": "keras_cxrgan", "Comment": "Röntgen", "seed": "π = 3", "empty": ""}
    data = encode_png(image, text)
    assert read_png_text(data) == text
    assert data[12:16] == b"IHDR" and data[37:41] == b"tEXt"
    np.testing.assert_array_equal(decode(data), image)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), -1), image)
    assert read_png_text(encode_png(image)) == {}


@pytest.mark.parametrize("text", [{"": "x"}, {"k" * 80: "x"}, {"π": "x"}, {"a": "b\0c"}])
def test_png_text_that_the_format_cannot_hold_is_refused(text):
    with pytest.raises(ValueError, match="PNG text needs"):
        encode_png(noise(2, 2), text)


def test_colour_png_is_rgb():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert decode(encode_png(red))[0, 0] == 76
    assert decode(encode_png(noise(3, 4)[..., None])).shape == (3, 4)
    with pytest.raises(ValueError, match="encode_png needs"):
        encode_png(np.zeros((2, 2), np.float32))


def test_write_png_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    write_png(path, np.full((2, 2), 7, np.uint8), {"a": "b"})
    assert read_png_text(path.read_bytes()) == {"a": "b"}

    def no_space(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images.os, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        write_png(path, np.zeros((2, 2), np.uint8))
    assert os.listdir(tmp_path) == ["grid.png"]
    assert decode(path.read_bytes()).tolist() == [[7, 7], [7, 7]]
