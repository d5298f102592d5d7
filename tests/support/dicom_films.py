"""DICOM films made by hand, and those that come with pydicom."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", minversion="3.0")

from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset

from keras_cxrgan.data.dicom import decode_dicom

DX = "1.2.840.10008.5.1.4.1.1.1.1"
FULL = {"WindowCenter": 2048, "WindowWidth": 4096}  # all of 12 bits


def film(pixels, bits=12, syntax=uid.ExplicitVRLittleEndian, **tags):
    """A DX data set of these stored values; a tag that is None is left out."""
    pixels = np.atleast_2d(pixels)
    signed = bool((pixels < 0).any())
    allocated = 8 if bits <= 8 else 16
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = DX
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    stored = pixels.astype(f"<{'i' if signed else 'u'}{allocated // 8}").tobytes()
    dataset.PixelData = stored + bytes(len(stored) % 2)
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated or allocated == 8 else "OW"
    return dataset


def saved(dataset):
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def shown(pixels, bits=12, **tags):
    return decode_dicom(saved(film(pixels, bits, **tags))).ravel().tolist()


def lut(entries, first, bits, vr="US"):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    little = np.asarray(entries, "<u2").tobytes()
    item.add_new("LUTData", vr, little if vr == "OW" else [int(entry) for entry in entries])
    return [item]


def bundled(name):
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom came without {name}")
    return Path(path)


def as_radiograph(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(bundled(name))
    dataset.Modality = "CR"
    return saved(dataset)
