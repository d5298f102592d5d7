"""Which patient a film is of, as its name tells it."""

from __future__ import annotations

import re

from keras_cxrgan.data.listing import stem

_NAME_RULES = {
    "kermany": re.compile(
        r"(person\d+)_(?:bacteria|virus)_\d+.*|((?:NORMAL2-)?IM-\d+)-\d+.*"
        r"|(?:NORMAL|BACTERIA|VIRUS)-(\d+)-\d+.*"
    ),
    # Its patients are 00000001 to 00030805; eight digits of any kind would take dates for them.
    "nih": re.compile(r"(000[0-3]\d{4})_\d{3}"),
    "montgomery": re.compile(r"(MCUCXR_\d+)_[01]"),
    "shenzhen": re.compile(r"(CHNCXR_\d+)_[01]"),
}


def patient_of(name: str, layout: str) -> str | None:
    """The patient that a file's name tells by the rule of `layout`; None where it tells none.

    `folder` tries the names that are unmistakable: of NIH, Kermany, Montgomery and Shenzhen.

    >>> patient_of("train/PNEUMONIA/person1000_virus_1681.jpeg", "kermany")
    'person1000'
    >>> patient_of("00001280_004.png", "folder")
    '00001280'
    """
    rules = (layout,) if layout != "folder" else ("nih", "montgomery", "shenzhen", "kermany")
    # Viewers export IM-0001-0001.dcm or .jpg for everybody; only Kermany's files are .jpeg.
    if layout == "folder" and not name.lower().endswith(".jpeg"):
        rules = rules[:-1]
    for rule in rules:
        match = rule in _NAME_RULES and _NAME_RULES[rule].fullmatch(stem(name))
        if match:
            return next(group for group in match.groups() if group)
    return None


def compile_patient_regex(regex: str) -> re.Pattern:
    """A pattern whose one group is the patient in a file's name (`--patient-regex`).

    Raises ValueError for an expression that is not valid or has not exactly one group.

    >>> compile_patient_regex(r"p([0-9]+)_").search("site2/p017_lat.png").group(1)
    '017'
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ValueError(
            f"the pattern {regex!r} is wrong ({error}): such as 'person(\\d+)_' (--patient-regex)"
        ) from None
    if pattern.groups != 1:
        raise ValueError(
            f"the pattern {regex!r} has {pattern.groups} groups: it needs one, in brackets around "
            "the patient, such as 'person(\\d+)_' (--patient-regex)"
        )
    return pattern
