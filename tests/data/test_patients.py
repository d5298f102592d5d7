import pytest

from keras_cxrgan.data.patients import compile_patient_regex, patient_of


@pytest.mark.parametrize(
    ("name", "layout", "patient"),
    [
        ("a/person1_virus_6.jpeg", "kermany", "person1"),
        ("BACTERIA-40699-0001.jpeg", "kermany", "40699"),
        ("00001280_004.jpg", "folder", "00001280"),
        ("1_2.png", "folder", None),
        ("20240131_093000.png", "folder", None),
        ("IM-0001-0001.dcm", "folder", None),
        ("person1_virus_6.jpeg", "folder", "person1"),
        ("CHNCXR_0001_0_mask.png", "shenzhen", None),
        ("MCUCXR_0001_0.png", "shenzhen", None),
        ("20200101_001.png", "folder", None),  # a date, and no patient of NIH
        ("COVID-1.png", "covid19-radiography", None),
        ("COVID-1.png", "covid-chestxray", None),
    ],
)
def test_patients_by_name(name, layout, patient):
    assert patient_of(name, layout) == patient


def test_a_patient_is_the_one_group_of_the_pattern():
    assert compile_patient_regex(r"p(\d+)_").search("a/p017_lat.png").group(1) == "017"


@pytest.mark.parametrize(
    ("regex", "reason"), [("(", "is wrong"), (r"\d+", "has 0 groups"), ("(a)(b)", "has 2 groups")]
)
def test_a_pattern_without_exactly_one_group_is_one_clear_line(regex, reason):
    with pytest.raises(ValueError, match=f"{reason}.*--patient-regex") as error:
        compile_patient_regex(regex)
    assert "\n" not in str(error.value)
