"""A DICOM radiograph to the grey image that a viewer shows (needs the extra `[dicom]`).

The order is that of DICOM PS3.3 C.11 and PS3.4 N.2: stored value, modality LUT or rescale, VOI
LUT or window, polarity. All of it depends on the stored value alone, so it is worked out once
per value of 8 or 16 bits instead of once per pixel.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

MODALITIES = ("CR", "DX", "RF", "RG", "OT")
"""Computed, digital, fluoroscopic and scanned radiographs; OT is what converters write."""

# Anonymisers blank the modality; then the beginning of the SOP class's name has to do.
_CLASSES = (
    "Computed Radiography", "Digital X-Ray", "X-Ray Radiofluoroscopic", "Secondary Capture",
    "DICOM",
)  # fmt: skip

_TAGS = {
    "patient_id": "PatientID",
    "modality": "Modality",
    "view_position": "ViewPosition",
    "rows": "Rows",
    "columns": "Columns",
    "bits_stored": "BitsStored",
    "photometric": "PhotometricInterpretation",
    "manufacturer": "Manufacturer",
    "body_part": "BodyPartExamined",
    "study_date": "StudyDate",
}
_MAX_TAG_BYTES = 256 * 2**20

_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_state = warnings.catch_warnings(), logging.NOTSET


def decode_dicom(data: bytes, max_pixels: int = 100_000_000) -> np.ndarray:
    """Decodes a single-frame radiograph to uint8 grey (H, W), as it is meant to be seen.

    The modality LUT or rescale is followed by the VOI LUT or, without one, the first window; a
    film with neither is windowed between the 0.1 and 99.9 percentiles of what is not padding,
    or shown as it is when it has 8 bits or fewer. MONOCHROME1 is inverted, padding is black,
    8-bit colour becomes luma. Raises ValueError with the reason, in one line, for other
    modalities, several frames, missing or truncated pixel data, transfer syntaxes that nothing
    installed decodes, more than `max_pixels` pixels, and when pydicom is not installed.

    >>> decode_dicom(open("film.dcm", "rb").read()).shape  # doctest: +SKIP
    (2022, 2022)
    """
    with _quiet():
        dataset = _parse(data, 3 * max_pixels)
        _check(dataset, max_pixels)
        pixels = _pixels(dataset)
        if pixels.ndim == 3:
            return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
        return _show(pixels, dataset)


def read_tags(data: bytes) -> dict[str, str | int | None]:
    """What a DICOM file says of itself, without decoding its pixels; None where it is silent.

    Keys: patient_id, modality, view_position, rows, columns, bits_stored, photometric,
    manufacturer, body_part, study_date (YYYYMMDD). Patient names are not read. The patient id
    and the study date are personal data: they are for splitting by patient and never to be
    written to outputs; `pseudonym` is. The file up to its pixels is enough, if it is not
    deflated. Raises ValueError (one line) when it cannot be read or pydicom is not installed.
    """
    with _quiet():
        keywords = ["SpecificCharacterSet", *_TAGS.values()]
        dataset = _parse(data, _MAX_TAG_BYTES, stop_before_pixels=True, specific_tags=keywords)
        tags: dict[str, str | int | None] = {}
        for name, keyword in _TAGS.items():
            read = _integer if name in ("rows", "columns", "bits_stored") else _text
            tags[name] = read(dataset, keyword)
        return tags


def pseudonym(patient_id: str) -> str:
    """A name to write instead of a PatientID: the same for the same id, in every data set.

    It is no anonymisation: who knows the ids, or can try all of them, finds the patient.

    >>> pseudonym("P 7")
    'patient-20648ef6'
    """
    return f"patient-{hashlib.sha256(patient_id.encode()).hexdigest()[:8]}"


def _parse(data: bytes, max_bytes: int, **options: Any) -> Dataset:
    try:
        import pydicom
        import pydicom.pixels  # from 3.0 on
    except ImportError:
        message = "a DICOM file: pip install 'keras_cxrgan[dicom]' to read it"
        raise ValueError(message) from None
    with _refusing("damaged DICOM"):
        return pydicom.dcmread(_Guarded(data, max_bytes), **options)


class _Guarded(BytesIO):
    """A file whose rest pydicom may inflate: it reads all of it at once only to do that."""

    def __init__(self, data: bytes, max_bytes: int):
        super().__init__(data)
        self.max_bytes = max_bytes

    def read(self, size: int | None = -1) -> bytes:
        rest = super().read(size)
        if size is None or size < 0:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            inflater.decompress(rest, self.max_bytes)
            if inflater.unconsumed_tail:
                raise ValueError(f"deflated from more than {self.max_bytes // 10**6} MB")
            if not inflater.eof:
                raise ValueError("truncated, the end of the deflated data set is missing")
        return rest


def _check(dataset: Dataset, max_pixels: int) -> None:
    """Refuses what is no single-frame radiograph with pixels, before any pixel is decoded."""
    kind = _kind(dataset)
    modality = _text(dataset, "Modality")
    if (modality not in MODALITIES) if modality else not kind.startswith(_CLASSES):
        named = f"of modality {modality}" if modality else "without a modality"
        raise ValueError(f"{kind} {named}: only {', '.join(MODALITIES)} are read")
    if "PixelData" not in dataset:
        raise ValueError(f"{kind} without pixel data: nothing to show")
    frames = _integer(dataset, "NumberOfFrames") or 1
    if frames != 1:
        raise ValueError(f"{kind} of {frames} frames: only single frames are read")
    width, height = _integer(dataset, "Columns") or 0, _integer(dataset, "Rows") or 0
    if not 0 < width * height <= max_pixels:
        limit = max_pixels // 10**6
        raise ValueError(f"{width} x {height} pixels: the limit is 1 to {limit} million of them")
    photometric = _text(dataset, "PhotometricInterpretation")
    grey = photometric in ("MONOCHROME1", "MONOCHROME2")
    colour = photometric in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
    samples = _integer(dataset, "SamplesPerPixel") or 1
    if not (grey and samples == 1 or colour and samples == 3):
        raise ValueError(f"{samples} x {photometric} per pixel: needs MONOCHROME1 or 2, or RGB")
    allocated, stored = (_integer(dataset, f"Bits{name}") or 0 for name in ("Allocated", "Stored"))
    if allocated not in ((8, 16) if grey else (8,)) or not 1 <= stored <= allocated:
        wanted = "8 or 16 for grey" if grey else "8 for colour"
        raise ValueError(f"{stored} bits stored in {allocated}: needs {wanted}")
    high_bit = _integer(dataset, "HighBit")
    if high_bit not in (None, stored - 1):
        raise ValueError(f"the high bit is {high_bit}, not bits stored - 1 = {stored - 1}")
    size = len(_element(dataset, "PixelData") or b"")
    expected = width * height * samples * allocated // 8
    # Also keeps the run-length decoder from inflating far beyond the stated size.
    if size >= 2 * expected + 4096:
        raise ValueError(f"{size} bytes of pixel data for one frame of {expected}")


def _pixels(dataset: Dataset) -> np.ndarray:
    """Stored values (H, W) of 8 or 16 bits, or RGB uint8 (H, W, 3)."""
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder, pixel_array

    syntax = _element(dataset.file_meta, "TransferSyntaxUID")
    if not syntax:
        raise ValueError("damaged DICOM: no transfer syntax")
    with _refusing("damaged DICOM: transfer syntax"):
        name, encapsulated = _line(f"{syntax.name} ({syntax})"), syntax.is_encapsulated
    hint = ""
    if encapsulated:
        if find_spec("pylibjpeg") is None:
            hint = "; pip install 'pylibjpeg[all]' for more decoders"
        try:
            available = get_decoder(syntax).is_available
        except NotImplementedError:
            raise ValueError(f"{name} pixel data: no decoder is known, convert it") from None
        if not available:
            raise ValueError(f"{name} pixel data: nothing installed decodes it{hint}")
    with _refusing(f"damaged or unusual pixels, {name}", hint):
        if syntax.startswith("1.2.840.10008.1.2.4."):  # JPEG, JPEG-LS, JPEG 2000
            # pylibjpeg shows what is left of a truncated JPEG or JPEG-LS instead of failing.
            end = get_frame(dataset.PixelData, 0, number_of_frames=1)[-64:]
            if b"\xff\xd9" not in end:
                raise ValueError("truncated, the end of the compressed image is missing")
        # Padding may lie in the unused bits, which pydicom clears otherwise.
        pixels = pixel_array(dataset, correct_unused_bits=False)
    expected = (dataset.Rows, dataset.Columns, *((3,) if dataset.SamplesPerPixel == 3 else ()))
    if pixels.shape != expected:
        raise ValueError(f"damaged DICOM: pixels of shape {pixels.shape}, not {expected}")
    return pixels


def _show(pixels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored values (H, W) to grey, through one table over all of them."""
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    codes = native.view(f"u{native.dtype.itemsize}")
    bits, stored_bits = 8 * codes.dtype.itemsize, _integer(dataset, "BitsStored")
    every = np.arange(2**bits)
    stored = every & (2**stored_bits - 1)
    signed = _integer(dataset, "PixelRepresentation") == 1
    if signed:
        every, stored = _signed(every, bits), _signed(stored, stored_bits)
    padding = _padding(dataset, every)

    values = stored.astype(np.float64)
    if item := _item(dataset, "ModalityLUTSequence"):
        values, _ = _look_up(values, item, dataset)
    else:
        slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
        if slope is not None and intercept is not None:
            values = values * slope + intercept
    if item := _item(dataset, "VOILUTSequence"):
        entries, top = _look_up(values, item, dataset)
        grey = entries / top
    else:
        grey = _window(values, dataset)
    if grey is None and stored_bits <= 8 and not signed and np.array_equal(values, stored):
        grey = values / (2**stored_bits - 1)
    if grey is None:
        counts = np.bincount(codes.ravel(), minlength=2**bits)
        low, high = _percentiles(values, np.where(padding, 0, counts))
        grey = (values - low) / ((high - low) or 1.0)
    table = np.rint(np.clip(grey, 0.0, 1.0) * 255).astype(np.uint8)
    if _text(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        table = 255 - table
    table[padding] = 0
    return table[codes]


def _signed(codes: np.ndarray, bits: int) -> np.ndarray:
    return np.where(codes >= 2 ** (bits - 1), codes - 2**bits, codes)


def _padding(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    """Which values are background (PS3.3 C.7.5.1.1.2); both ends of the range belong to it."""
    value, limit = (_integer(dataset, f"PixelPadding{end}") for end in ("Value", "RangeLimit"))
    if value is None:
        return np.zeros(len(values), bool)
    # The value may be written as unsigned although the pixels are signed, and the reverse.
    limit = value if limit is None else limit
    low, high = sorted(values[end % len(values)] for end in (value, limit))
    return (values >= low) & (values <= high)


def _look_up(values: np.ndarray, item: Dataset, dataset: Dataset) -> tuple[np.ndarray, int]:
    """Entries of a modality or VOI LUT (PS3.3 C.11.1.1.1) and their largest possible value.

    Not pydicom's functions: those of 3.0 wrap around in an 8-bit LUT of more than 256 entries,
    and fail on a negative first value and on modality LUTs of 10 to 15 bits.
    """
    with _refusing("damaged DICOM: no valid lookup table"):
        entries, first, bits = (int(value) for value in item.LUTDescriptor)
        table = item.LUTData
        if isinstance(table, bytes):
            little = dataset.original_encoding[1]
            wide = len(table) >= 2 * (entries or 2**16)
            table = np.frombuffer(table, ("<u2" if little else ">u2") if wide else np.uint8)
        table = np.asarray(table, np.float64).ravel()[: entries or 2**16]
        if len(table) < (entries or 2**16) or not 1 <= bits <= 16:
            raise ValueError(f"{len(table)} of {entries} entries of {bits} bits")
    top = 2**bits - 1
    # Entries above the declared bits would all be white.
    top = top if table.max() <= top else 2**16 - 1
    index = np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.intp)
    return table[index], top


def _window(values: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Grey in [0, 1] of the first window (PS3.3 C.11.2.1), None where there is no valid one."""
    center, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = (_text(dataset, "VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or width < (1 if function == "LINEAR" else 1e-9):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -50, 50)))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    if function == "LINEAR":
        return (values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5
    raise ValueError(f"the window function {function}: needs LINEAR, LINEAR_EXACT or SIGMOID")


def _percentiles(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The 0.1 and 99.9 percentiles of values that occur so many times; the ends if equal."""
    seen = np.flatnonzero(counts)
    if not len(seen):
        raise ValueError("every pixel is padding: nothing to show")
    seen = seen[np.argsort(values[seen], kind="stable")]
    ranks = np.cumsum(counts[seen])
    low, high = values[seen[np.searchsorted(ranks, np.array([0.001, 0.999]) * ranks[-1])]]
    return (low, high) if low < high else (values[seen[0]], values[seen[-1]])


def _item(dataset: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence."""
    items = _element(dataset, keyword)
    with _refusing(f"damaged DICOM: {keyword}"):
        return items[0] if items else None


def _number(dataset: Dataset, keyword: str) -> float | None:
    """The first value; None when it is missing or empty."""
    value = _element(dataset, keyword)
    if hasattr(value, "append"):  # of several values
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    try:
        number = float(value)
        if np.isfinite(number):
            return number
    except (TypeError, ValueError):
        pass
    raise ValueError(f"damaged DICOM: {keyword} is {_line(value)!r}, no number")


def _integer(dataset: Dataset, keyword: str) -> int | None:
    number = _number(dataset, keyword)
    return None if number is None else int(number)


def _text(dataset: Dataset, keyword: str) -> str | None:
    value = _element(dataset, keyword)
    return None if value is None else _line(value) or None


def _element(dataset: Dataset, keyword: str) -> Any:
    with _refusing(f"damaged DICOM: {keyword}"):  # values are converted only now
        return dataset.get(keyword)


def _kind(dataset: Dataset) -> str:
    """What the SOP class calls the file: "CT Image Storage"."""
    uid = _element(dataset, "SOPClassUID")
    uid = uid or _element(dataset.file_meta, "MediaStorageSOPClassUID")
    return _line(getattr(uid, "name", "")) or "DICOM file"


def _line(value: object) -> str:
    """Text of a file or an error, safe to print: one line without control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(value)[:400])
    return " ".join(text.split())


@contextmanager
def _refusing(reason: str, hint: str = "") -> Iterator[None]:
    """Turns whatever is raised on a damaged file into one line."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  pydicom and its decoders can raise anything.
        raise ValueError(f"{reason}: {_line(error) or type(error).__name__}{hint}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps pydicom's remarks on odd files off the terminal: what matters is refused instead.

    Warning filters belong to the whole process, so several decoding threads share one change:
    the first one in makes it and the last one out undoes it.
    """
    global _quiet_users, _quiet_state
    logger = logging.getLogger("pydicom")
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet_state = warnings.catch_warnings(), logger.level
            _quiet_state[0].__enter__()
            warnings.simplefilter("ignore")
            logger.setLevel(logging.CRITICAL + 1)
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                _quiet_state[0].__exit__(None, None, None)
                logger.setLevel(_quiet_state[1])
