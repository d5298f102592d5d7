from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

from keras_cxrgan.data.images import decode, encode_png

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


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_png_is_turned_as_exif_says(orientation, order):
    rows = [bytes([0, 50, 100]), bytes([150, 200, 250])]
    exif = chunk(b"eXIf", tiff_with_orientation(orientation, order))
    assert decode(png(3, 2, 8, GREY, rows, exif)).tolist() == ORIENTED[orientation]


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


@pytest.mark.parametrize("depth, row", [(1, b"\x40"), (2, b"\x10"), (4, b"\x01\x00")])
def test_palettes_of_few_bits(depth, row):
    palette = chunk(b"PLTE", b"\xff\0\0" + b"\x64\x64\x64")
    assert decode(png(3, 1, depth, PALETTE, [row], palette)).tolist() == [[76, 100, 76]]


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


def test_sixteen_bit_colour_with_alpha():
    levels = np.arange(1000, 5096).repeat(4).reshape(64, 64, 4)
    levels[..., 3] = 65535
    rows = [row.astype(">u2").tobytes() for row in levels]
    colour = decode(png(64, 64, 16, RGB_ALPHA, rows))
    np.testing.assert_array_equal(colour, decode(grey16(levels[..., 0])))


def wide(values):
    return np.array(values, ">u2").tobytes()


def test_sixteen_bit_colour_and_grey_with_alpha_in_a_stated_window():
    primaries = wide([[65535, 0, 0], [0, 65535, 0], [0, 0, 65535], [25700] * 3])
    assert decode(png(4, 1, 16, RGB, [primaries]), (0, 65535)).tolist() == [[76, 150, 29, 100]]
    grey = wide([[51400, 65535], [51400, 0], [51400, 13107]])
    assert decode(png(3, 1, 16, GREY_ALPHA, [grey]), (0, 65535)).tolist() == [[200, 0, 40]]


def test_a_stated_window_comes_before_the_turning():
    exif = chunk(b"eXIf", tiff_with_orientation(6))
    data = png(2, 1, 16, GREY, [wide([100, 200])], exif)
    assert decode(data, (100, 200)).tolist() == [[0], [255]]


def test_cmyk_jpegs_have_light_where_there_is_no_ink():
    image = pytest.importorskip("PIL.Image")
    inks = np.zeros((16, 64, 4), np.uint8)
    inks[:, 16:32, 3] = 255  # black
    inks[:, 32:48, :3] = 255  # cyan, magenta and yellow
    inks[:, 48:, 3] = 127
    file = io.BytesIO()
    image.fromarray(inks, "CMYK").save(file, "JPEG", quality=100)
    assert np.abs(decode(file.getvalue())[8, 8::16].astype(int) - [255, 0, 0, 128]).max() <= 2


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
    with pytest.raises(ValueError, match="100000 x 100000 pixels: the limit is 1 to 100 million"):
        decode(png(100_000, 100_000, 8, GREY, [b"\0"]))
    picture = bytearray(jpeg(noise(8, 8)))
    at = picture.index(b"\xff\xc0") + 5
    for height, width in ((40000, 30000), (65535, 65535), (1, 0)):
        picture[at : at + 4] = struct.pack(">HH", height, width)
        with pytest.raises(ValueError, match=f"{width} x {height} pixels: the limit is 1 to 100"):
            decode(bytes(picture))
    with pytest.raises(ValueError, match="0 x 3 pixels"):
        decode(png(0, 3, 8, GREY, []))


def test_pixels_that_inflate_to_more_bytes_than_the_limit_are_not_inflated():
    data = png(9000, 9000, 16, RGB_ALPHA, [b"\0"])
    with pytest.raises(ValueError, match="618 MiB when inflated: the limit is 256 MiB"):
        decode(data)


def test_a_small_png_that_inflates_to_much_more_does_not_take_the_memory():
    start = png(2, 2, 8, GREY, [])[:33]
    bomb = start + chunk(b"IDAT", zlib.compress(bytes(10**7))) + chunk(b"IEND", b"")
    tracemalloc.start()
    try:
        assert decode(bomb).tolist() == [[0, 0], [0, 0]]
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
