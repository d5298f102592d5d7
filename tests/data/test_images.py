from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

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

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, rows, extra=b"", interlace=0):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def grey16(array):
    array = np.asarray(array)
    return png(
        array.shape[1], array.shape[0], 16, GREY, [row.astype(">u2").tobytes() for row in array]
    )


def jpeg(array, quality=100):
    return cv2.imencode(".jpg", np.asarray(array, np.uint8), (cv2.IMWRITE_JPEG_QUALITY, quality))[
        1
    ].tobytes()


def tiff_with_orientation(value, order="<"):
    tag = struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0)
    other = struct.pack(order + "HHII", 0x0100, 4, 1, 99)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + struct.pack(order + "H", 2) + other + tag + bytes(4)


def with_app1(data, body):
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def noise(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width)).astype(np.uint8)


BLOCKS = np.kron([[0, 50, 100], [150, 200, 250]], np.ones((8, 8))).astype(np.uint8)
ORIENTED = {
    1: [[0, 50, 100], [150, 200, 250]],
    2: [[100, 50, 0], [250, 200, 150]],
    3: [[250, 200, 150], [100, 50, 0]],
    4: [[150, 200, 250], [0, 50, 100]],
    5: [[0, 150], [50, 200], [100, 250]],
    6: [[150, 0], [200, 50], [250, 100]],
    7: [[250, 100], [200, 50], [150, 0]],
    8: [[100, 250], [50, 200], [0, 150]],
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_as_exif_says(orientation, order):
    exif = b"Exif\0\0" + tiff_with_orientation(orientation, order)
    shown = decode(with_app1(jpeg(BLOCKS), exif))
    assert shown[4::8, 4::8].tolist() == ORIENTED[orientation]
    assert shown.flags.c_contiguous


def test_png_is_turned_as_exif_says():
    data = png(2, 1, 8, GREY, [b"\x0a\x14"], chunk(b"eXIf", tiff_with_orientation(6)))
    assert decode(data).tolist() == [[10], [20]]


@pytest.mark.parametrize("exif", [b"", b"II*\0", tiff_with_orientation(0), b"XX" + bytes(40)])
def test_broken_exif_leaves_the_image_upright(exif):
    assert decode(with_app1(jpeg(BLOCKS), b"Exif\0\0" + exif)).shape == (16, 24)


@pytest.mark.parametrize(
    "depth, row, levels",
    [(1, b"\xa0", [255, 0, 255]), (2, b"\x1b", [0, 85, 170]), (4, b"\x0f\x80", [0, 255, 136])],
)
def test_low_bit_depths_span_all_grey_levels(depth, row, levels):
    assert decode(png(3, 1, depth, GREY, [row])).tolist() == [levels]


def test_palette_becomes_the_luma_of_its_colours():
    palette = chunk(b"PLTE", b"\xff\0\0" + b"\0\xff\0" + b"\0\0\xff" + b"\x64\x64\x64")
    data = png(4, 1, 8, PALETTE, [b"\0\1\2\3"], palette)
    assert decode(data).tolist() == [[76, 150, 29, 100]]


def test_transparent_palette_entries_become_black():
    extra = chunk(b"PLTE", b"\xff\xff\xff" * 2) + chunk(b"tRNS", b"\x00")
    assert decode(png(2, 1, 8, PALETTE, [b"\0\1"], extra)).tolist() == [[0, 255]]


def test_grey_with_alpha_is_composited_over_black():
    row = bytes([200, 255, 200, 0, 200, 51])
    assert decode(png(3, 1, 8, GREY_ALPHA, [row])).tolist() == [[200, 0, 40]]


def test_colour_with_alpha_is_composited_over_black():
    row = bytes([100, 100, 100, 255, 255, 255, 255, 0, 100, 100, 100, 51])
    assert decode(png(3, 1, 8, RGB_ALPHA, [row])).tolist() == [[100, 0, 20]]


@pytest.mark.parametrize(
    "depth, row, level, expected", [(8, b"\xff\x64", 255, [0, 100]), (4, b"\xf3", 15, [0, 51])]
)
def test_the_transparent_level_of_a_grey_png_becomes_black(depth, row, level, expected):
    data = png(2, 1, depth, GREY, [row], chunk(b"tRNS", struct.pack(">H", level)))
    assert decode(data).tolist() == [expected]


def test_red_green_and_blue_are_not_swapped():
    row = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert decode(png(3, 1, 8, RGB, [row])).tolist() == [[76, 150, 29]]
    colour = np.zeros((16, 48, 3), np.uint8)
    colour[:, :16, 2] = colour[:, 16:32, 1] = colour[:, 32:, 0] = 255  # OpenCV's order
    assert np.abs(decode(jpeg(colour))[8, 8::16].astype(int) - [76, 150, 29]).max() <= 2


def test_interlaced_png():
    image = noise(5, 6)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    rows = [
        row.tobytes()
        for left, top, right, down in (*passes, (0, 1, 1, 2))
        for row in image[top::down, left::right]
        if row.size
    ]
    np.testing.assert_array_equal(decode(png(6, 5, 8, GREY, rows, interlace=1)), image)


def test_twelve_bits_in_a_sixteen_bit_file_are_not_almost_black():
    image = decode(grey16(np.arange(4096).reshape(64, 64)))
    assert (image.min(), image.max()) == (0, 255)
    assert 126 < image.mean() < 129


def test_one_hot_pixel_does_not_darken_a_sixteen_bit_image():
    ramp = np.arange(4096).reshape(64, 64)
    ramp[0, 0] = 65535
    assert 126 < decode(grey16(ramp)).mean() < 129


def test_sixteen_bit_colour_with_alpha():
    levels = np.arange(1000, 5096).repeat(4).reshape(64, 64, 4)
    levels[..., 3] = 65535
    rows = [row.astype(">u2").tobytes() for row in levels]
    colour = decode(png(64, 64, 16, RGB_ALPHA, rows))
    np.testing.assert_array_equal(colour, decode(grey16(levels[..., 0])))


def test_sixteen_bit_image_of_few_levels_keeps_them():
    few = np.zeros((64, 64), int)
    few[5, 5] = 900  # fewer than the 0.1 % that the percentiles cut
    assert decode(grey16(few))[5, 5] == 255
    assert decode(grey16(np.full((4, 4), 900))).max() == 0


@pytest.mark.parametrize(
    "data, named",
    [
        (b"", "empty file"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"II*\0" + bytes(20), "TIFF"),
        (b"MM\0*" + bytes(20), "TIFF"),
        (bytes(128) + b"DICM" + bytes(20), "DICOM"),
        (b"BM\x46\0\0\0\0\0\0\0", "BMP"),
        (b"BMI;age\n21;60\n", "text"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"file,label\na.png,COVID\n", "text"),
        (b"\0\1\2\3\4", "unknown format"),
    ],
)
def test_other_formats_are_named(data, named):
    with pytest.raises(ValueError, match=named):
        decode(data)


@pytest.mark.parametrize("encode", [encode_png, jpeg, lambda image: jpeg(image, 60)])
def test_a_truncated_file_is_never_silently_half_grey(encode, capfd):
    data = encode(noise(40, 50))
    for length in range(8, len(data), 7):
        with pytest.raises(ValueError, match="truncated"):
            decode(data[:length])
    assert decode(data).shape == (40, 50)
    assert capfd.readouterr().err == ""


def test_the_end_marker_of_a_thumbnail_does_not_hide_truncation():
    thumbnail = jpeg(noise(8, 8))
    data = with_app1(jpeg(noise(40, 50)), b"Exif\0\0" + tiff_with_orientation(1) + thumbnail)
    assert decode(data).shape == (40, 50)
    with pytest.raises(ValueError, match="truncated"):
        decode(data[:-60])


def test_progressive_jpeg_and_bytes_after_the_end_are_fine():
    flags = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    data = cv2.imencode(".jpg", noise(40, 50), flags)[1].tobytes()
    assert decode(data + b"\0\0trailer").shape == (40, 50)
    with pytest.raises(ValueError, match="truncated"):
        decode(data[: len(data) // 2])


def test_damaged_data_is_refused_without_a_word_on_stderr(capfd):
    good = encode_png(noise(40, 50))
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    start, end = good[:33], chunk(b"IEND", b"")
    rubbish = start + chunk(b"IDAT", b"no zlib stream") + end
    rows_missing = start + chunk(b"IDAT", zlib.compress(bytes(51 * 20))) + end
    no_palette = png(1, 1, 8, PALETTE, [b"\0"])
    picture = jpeg(noise(40, 50))
    bad_marker = picture[:-40] + b"\xff\x55" + picture[-38:]
    cases = {
        "checksum": bytes(flipped),
        "compressed": rubbish,
        "rows are missing": rows_missing,
        "palette": no_palette,
        "marker": bad_marker,
        "12-bit": picture.replace(b"\xff\xc0\x00\x0b\x08", b"\xff\xc0\x00\x0b\x0c"),
    }
    for reason, data in cases.items():
        with pytest.raises(ValueError, match=reason):
            decode(data)
    assert capfd.readouterr().err == ""


def test_odd_metadata_neither_matters_nor_warns(capfd):
    image = noise(9, 9)
    data = encode_png(image)
    odd = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")) + chunk(b"sRGB", b"\xff")
    wrong_checksum = chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0"
    np.testing.assert_array_equal(decode(data[:33] + odd + wrong_checksum + data[33:]), image)
    assert capfd.readouterr().err == ""


def test_absurd_sizes_are_refused_from_the_header():
    with pytest.raises(ValueError, match="50000 x 50000 pixels"):
        decode(png(50000, 50000, 8, GREY, [b"\0"]))
    picture = bytearray(jpeg(noise(8, 8)))
    at = picture.index(b"\xff\xc0") + 5
    picture[at : at + 4] = struct.pack(">HH", 40000, 30000)
    with pytest.raises(ValueError, match="30000 x 40000 pixels"):
        decode(bytes(picture))
    with pytest.raises(ValueError, match="0 x 3 pixels"):
        decode(png(0, 3, 8, GREY, []))


def test_a_small_png_that_inflates_to_much_more_does_not_take_the_memory():
    start = png(2, 2, 8, GREY, [])[:33]
    bomb = start + chunk(b"IDAT", zlib.compress(bytes(10**7))) + chunk(b"IEND", b"")
    tracemalloc.start()
    try:
        assert decode(bomb).tolist() == [[0, 0], [0, 0]]
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


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
