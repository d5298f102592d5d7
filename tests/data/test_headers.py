import struct
import sys

import cv2
import numpy as np
import pytest

from keras_cxrgan.data.headers import Header, read_header


def encode(extension, image, *options):
    return cv2.imencode(extension, image, list(options))[1].tobytes()


def png(bits, colour):
    """A PNG file up to the end of its header."""
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    return start + struct.pack(">IIBBBBB", 40, 30, bits, colour, 0, 0, 0)


def jpeg(components, bits=8):
    """A JPEG file up to the end of its frame header."""
    frame = struct.pack(">BHHB", bits, 30, 40, components) + b"\1\x11\0" * components
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (encode(".png", np.zeros((30, 40), np.uint8)), Header("PNG", 30, 40, 8, "grey")),
        (encode(".png", np.zeros((30, 40), np.uint16)), Header("PNG", 30, 40, 16, "grey")),
        (encode(".png", np.zeros((30, 40, 4), np.uint8)), Header("PNG", 30, 40, 8, "RGB + alpha")),
        (encode(".jpg", np.zeros((30, 40), np.uint8)), Header("JPEG", 30, 40, 8, "grey")),
        (
            encode(".jpg", np.zeros((7, 9, 3), np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
            Header("JPEG", 7, 9, 8, "RGB"),
        ),
    ],
    ids=["png", "png-16-bit", "png-with-alpha", "jpeg", "progressive-jpeg-in-colour"],
)
def test_headers_tell_format_size_bits_and_mode(data, header):
    assert read_header(data) == header


@pytest.mark.parametrize(
    ("data", "bits", "mode"),
    [
        (png(1, 0), 1, "grey"),
        (png(16, 2), 16, "RGB"),
        (png(4, 3), 4, "palette"),
        (png(8, 4), 8, "grey + alpha"),
        (png(16, 6), 16, "RGB + alpha"),
        (png(8, 5), 8, "other"),
        (jpeg(1), 8, "grey"),
        (jpeg(3, 12), 12, "RGB"),
        (jpeg(4), 8, "CMYK"),
        (jpeg(2), 8, "other"),
    ],
)
def test_every_mode_has_its_name(data, bits, mode):
    header = read_header(data)
    assert (header.height, header.width, header.bits, header.mode) == (30, 40, bits, mode)


def test_a_comment_before_the_frame_is_stepped_over():
    data = encode(".jpg", np.zeros((30, 40), np.uint8))
    comment = b"\xff\xfe" + (2 + 5).to_bytes(2, "big") + b"\xff\xc0abc"
    assert read_header(data[:2] + comment + data[2:]) == Header("JPEG", 30, 40, 8, "grey")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xfe\0",
        jpeg(1)[:11],
        png(8, 0)[:25],
        bytes(128) + b"DICM",
        bytes(128) + b"DICM\x02\0\x10\0UI\xff\xff1.2",
    ],
)
def test_other_and_cut_files_have_no_header(data):
    assert read_header(data) is None


def dicom(**tags):
    pydicom = pytest.importorskip("pydicom", minversion="3.0")
    from io import BytesIO

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


FILM = {"Rows": 30, "Columns": 40, "BitsAllocated": 16, "BitsStored": 12}


def test_a_dicom_header_has_the_bits_stored_and_the_photometric_interpretation():
    data = dicom(**FILM, PhotometricInterpretation="MONOCHROME1")
    assert read_header(data) == Header("DICOM", 30, 40, 12, "MONOCHROME1")
    assert read_header(dicom(**FILM)).mode == "other"


def test_a_dicom_file_without_an_image_has_no_header():
    assert read_header(dicom(Modality="SR")) is None


def test_without_pydicom_a_dicom_file_has_no_header(monkeypatch):
    data = dicom(**FILM)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert read_header(data) is None
