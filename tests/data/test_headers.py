import cv2
import numpy as np
import pytest

from keras_cxrgan.data.headers import Header, read_header


def encode(extension, image, *options):
    return cv2.imencode(extension, image, list(options))[1].tobytes()


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (encode(".png", np.zeros((30, 40), np.uint8)), Header("PNG", 30, 40, 8)),
        (encode(".png", np.zeros((30, 40), np.uint16)), Header("PNG", 30, 40, 16)),
        (encode(".jpg", np.zeros((30, 40), np.uint8)), Header("JPEG", 30, 40, 8)),
        (
            encode(".jpg", np.zeros((7, 9, 3), np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
            Header("JPEG", 7, 9, 8),
        ),
    ],
    ids=["png", "png-16-bit", "jpeg", "progressive-jpeg-in-colour"],
)
def test_headers_tell_format_size_and_bits(data, header):
    assert read_header(data) == header


def test_a_comment_before_the_frame_is_stepped_over():
    data = encode(".jpg", np.zeros((30, 40), np.uint8))
    comment = b"\xff\xfe" + (2 + 5).to_bytes(2, "big") + b"\xff\xc0abc"
    assert read_header(data[:2] + comment + data[2:]) == Header("JPEG", 30, 40, 8)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff"]
)
def test_other_and_cut_files_have_no_header(data):
    assert read_header(data) is None
