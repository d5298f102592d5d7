"""What is shown of a radiograph in DICOM: window, tables, padding, bits, syntaxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", minversion="3.0")

from dicom_films import FULL, film, lut, saved, shown
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut

from keras_cxrgan.data.dicom import decode_dicom
from keras_cxrgan.data.images import decode


@pytest.mark.parametrize(
    "function, center, width, expected",
    [
        (None, 100, 11, {94: 0, 95: 13, 99: 115, 100: 140, 104: 242, 105: 255}),
        ("LINEAR", 2048, 4096, {0: 0, 1024: 64, 2048: 128, 3072: 191, 4095: 255}),
        ("LINEAR", 100, 1, {98: 0, 99: 0, 100: 255}),
        ("LINEAR_EXACT", 100, 10, {95: 0, 100: 128, 101: 153, 105: 255}),
        ("SIGMOID", 100, 40, {0: 0, 90: 69, 100: 128, 110: 186, 4095: 255}),
        (None, [100, 2048], [11, 4096], {94: 0, 100: 140, 105: 255}),  # the first of several
    ],
)
def test_window_functions_of_the_standard(function, center, width, expected):
    tags = {"VOILUTFunction": function} if function else {}
    tags.update(WindowCenter=center, WindowWidth=width)
    assert shown(list(expected), **tags) == list(expected.values())


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("slope, intercept", [(1, 0), (2.5, -1000), (-1, 4095)])
def test_windows_agree_with_those_of_pydicom(function, slope, intercept):
    pixels = np.random.RandomState(0).randint(0, 4096, (20, 30))
    dataset = film(pixels, WindowCenter=900.5, WindowWidth=1200, VOILUTFunction=function)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    windowed = apply_voi_lut(pixels * slope + intercept, dataset)
    ends = intercept, 4095 * slope + intercept
    expected = (windowed - ends[0]) / (ends[1] - ends[0]) * 255
    assert np.abs(decode_dicom(saved(dataset)) - expected).max() <= 0.5 + 1e-6


def test_rescale_comes_before_the_window():
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 0, "WindowWidth": 11}
    assert shown([497, 500, 503], **tags) == [0, 140, 255]


def test_a_negative_slope_turns_the_greys_round():
    assert shown([0, 4095], RescaleSlope=-1, RescaleIntercept=4095, **FULL) == [255, 0]
    assert shown([0, 64, 255], 8, RescaleSlope=-1, RescaleIntercept=0) == [255, 191, 0]


def test_monochrome1_is_inverted():
    tags = {"PhotometricInterpretation": "MONOCHROME1"}
    assert shown([0, 1024, 4095], **tags, **FULL) == [255, 191, 0]
    assert shown([0, 100, 255], 8, **tags) == [255, 155, 0]


@pytest.mark.parametrize("photometric, white", [("MONOCHROME1", 0), ("MONOCHROME2", 255)])
def test_padding_is_black_and_no_part_of_the_range(photometric, white):
    pixels = [4000] * 500 + [1000] * 250 + [2000] * 250
    tags = {"PixelPaddingValue": 4000, "PhotometricInterpretation": photometric}
    grey = shown(pixels, **tags)
    assert (grey[0], grey[500], grey[999]) == (0, 255 - white, white)


def test_both_ends_of_a_padding_range_and_what_lies_between_are_black():
    ends = {"PixelPaddingValue": 3002, "PixelPaddingRangeLimit": 3000}
    assert shown([2999, 3000, 3001, 3002, 3003], **ends, **FULL) == [187, 0, 0, 0, 187]


def test_padding_in_the_unused_bits_is_not_white():
    # 65535 cut to 12 bits would be the brightest value.
    assert shown([65535, 4095], PixelPaddingValue=65535, **FULL) == [0, 255]


def test_padding_of_signed_pixels_may_be_written_as_unsigned():
    dataset = film([-2000, -1000, 0], 16, WindowCenter=-500, WindowWidth=1001)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    assert decode_dicom(saved(dataset)).tolist() == [[0, 255, 0]]


def test_a_film_of_nothing_but_padding_is_refused():
    with pytest.raises(ValueError, match="every pixel is padding"):
        shown([7, 7], PixelPaddingValue=7)


def test_twelve_bits_in_sixteen_without_a_window_are_neither_black_nor_white():
    ramp = np.arange(4096).reshape(64, 64) // 2
    ramp[0, 0] = 4095  # one hot pixel
    grey = decode_dicom(saved(film(ramp)))
    assert (grey.min(), grey.max(), grey.dtype) == (0, 255, np.uint8)
    assert 126 < grey.mean() < 129


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_every_bit_depth_spans_all_grey_levels(bits):
    top = 2**bits - 1
    ends = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    assert shown([0, top // 2, top], bits, **ends) == [0, 127, 255]
    ramp = (np.arange(4096) / 4095 * top).astype(int).reshape(64, 64)
    grey = decode_dicom(saved(film(ramp, bits)))
    assert (grey.min(), grey.max()) == (0, 255) and 126 < grey.mean() < 129


def test_few_levels_and_one_level():
    few = np.zeros((64, 64), int)
    few[5, 5] = 900  # fewer than the 0.1 % that the percentiles cut
    assert decode_dicom(saved(film(few)))[5, 5] == 255
    assert shown([900, 900]) == [0, 0]


def test_signed_values():
    window = {"WindowCenter": 0, "WindowWidth": 4096}
    expected = [0, 128, 255]
    assert shown([-2048, 0, 2047], 12, **window) == expected
    assert shown([-2048, 0, 2047], 16, **window) == expected
    assert shown([-2048, 0, 2047], 12, syntax=uid.ImplicitVRLittleEndian, **window) == expected
    assert shown([-100, 0, 100], 16) == [0, 128, 255]


def test_signed_values_without_sign_extension():
    dataset = film([0x800, 0x000, 0x7FF], WindowCenter=0, WindowWidth=4096)
    dataset.PixelRepresentation = 1
    assert decode_dicom(saved(dataset)).tolist() == [[0, 128, 255]]


def test_an_overlay_in_the_unused_bits_does_not_change_the_film():
    assert shown([0x8000 | 1024, 0xF000 | 4095, 1024], **FULL) == [64, 255, 64]


def test_eight_bits_without_a_window_are_shown_as_in_a_png():
    assert shown([3, 100, 200, 250], 8) == [3, 100, 200, 250]


@pytest.mark.parametrize("window", [{"WindowWidth": 0}, {"WindowWidth": ""}, {"WindowWidth": -5}])
def test_a_window_that_cannot_be_is_as_good_as_none(window):
    assert shown([1000, 1500, 2000], WindowCenter=100, **window) == [0, 128, 255]


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_an_eight_bit_voi_lut_of_all_twelve_bit_values(vr):
    entries = np.arange(4096) // 16
    # pydicom 3.0 wraps around at 256 here.
    assert shown([0, 256, 2000, 4095], VOILUTSequence=lut(entries, 0, 8, vr)) == [0, 16, 125, 255]


def test_voi_lut_wins_over_the_window_and_clips_at_its_ends():
    table = lut([0, 16384, 65535], 1000, 16)
    pixels = [0, 1000, 1001, 1002, 4000]
    assert shown(pixels, VOILUTSequence=table, **FULL) == [0, 0, 64, 255, 255]


def test_voi_lut_with_a_negative_first_value_follows_the_rescale():
    tags = {"RescaleSlope": 0.5, "RescaleIntercept": -3, "VOILUTSequence": lut([0, 51, 255], -2, 8)}
    assert shown([2, 4, 6, 8], **tags) == [0, 51, 255, 255]


def test_more_bits_in_a_voi_lut_than_it_declares_are_not_all_white():
    assert shown([0, 1], VOILUTSequence=lut([16384, 65535], 0, 8)) == [64, 255]


def test_modality_lut_comes_before_the_window():
    table = lut(np.arange(255, -1, -1) * 16, 0, 12)
    grey = shown([0, 127, 255], 8, ModalityLUTSequence=table, **FULL)
    assert grey == [254, 128, 0]


def test_lookup_table_shorter_than_it_says_is_refused():
    table = lut([1, 2, 3], 0, 8)
    table[0].LUTDescriptor = [4096, 0, 8]
    with pytest.raises(ValueError, match="no valid lookup table"):
        shown([0, 1], VOILUTSequence=table)


def test_colour_becomes_luma():
    primaries = [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [100, 100, 100]]]
    assert shown(np.array(primaries), 8) == [76, 150, 29, 100]


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian],
)
def test_uncompressed_transfer_syntaxes(syntax):
    dataset = film([0, 1024, 4095], syntax=syntax, **FULL)
    if syntax == uid.ExplicitVRBigEndian:
        dataset.PixelData = np.array([0, 1024, 4095], ">u2").tobytes()
    assert decode_dicom(saved(dataset)).tolist() == [[0, 64, 255]]


def test_jpeg_pixels_are_those_of_the_jpeg():
    image = np.kron(np.arange(16).reshape(4, 4) * 16, np.ones((8, 8))).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 95))[1].tobytes()
    tags = {"syntax": uid.JPEGBaseline8Bit, "PixelData": encapsulate([jpeg])}
    data = saved(film(image, 8, **tags))
    assert np.abs(decode_dicom(data).astype(int) - decode(jpeg)).max() <= 1
    np.testing.assert_array_equal(decode(data), decode_dicom(data))
