import json

import pytest

from keras_cxrgan.evaluation import report
from keras_cxrgan.evaluation.report import Table, check_out, plus_minus, provenance, write


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.3456, 0.0789, "12.35 ± 0.08"),
        (0.012, 0.0034, "0.012 ± 0.003"),
        (61.2, 1.7, "61 ± 2"),
        (-0.3, 0.72, "-0.3 ± 0.7"),
        (149505844.0, 1036195.0, "1.5e+08 ± 1e+06"),
        (3.14159, 0.0, "3.14"),
    ],
)
def test_a_value_is_printed_to_the_digits_its_error_leaves(value, error, text):
    assert plus_minus(value, error) == text


@pytest.mark.parametrize(("p", "text"), [(0.0184, "0.018"), (1e-30, "< 0.001"), (1.0, "1.000")])
def test_p_values_do_not_print_as_zero(p, text):
    assert report.p_value(p) == text


def test_provenance_sees_every_difference_and_no_order_of_keys():
    one = provenance({"mode": "clean", "dims": 768})
    assert one == provenance({"dims": 768, "mode": "clean"})
    assert one != provenance({"mode": "clean", "dims": 2048})
    assert len(one) == 64


def test_markdown_tables_have_one_cell_for_each_column():
    lines = report.markdown_table(Table("title", ("", "a", "b"), (("  x", "1", "2"),), "note"))
    assert lines == [
        "## title",
        "",
        "|  | a | b |",
        "|---|---:|---:|",
        "| x | 1 | 2 |",
        "",
        "note",
        "",
    ]


def test_a_result_is_written_whole_and_read_back(tmp_path):
    write(tmp_path / "out", "metrics.json", {"inputs": "x", "value": 0.1}, "report.md", "# page")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["metrics.json", "report.md"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["value"] == 0.1


def test_only_the_same_evaluation_is_written_over(tmp_path):
    out = tmp_path / "out"
    check_out("x", out, overwrite=False)
    write(out, "metrics.json", {"inputs": "x"}, "report.md", "")
    check_out("x", out, overwrite=False)
    check_out("y", out, overwrite=True)
    with pytest.raises(ValueError, match="--overwrite"):
        check_out("y", out, overwrite=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        check_out("x", tmp_path / "file", overwrite=True)
