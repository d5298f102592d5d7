import pytest

from keras_cxrgan.data.records import Record
from keras_cxrgan.data.sources import read_source
from keras_cxrgan.data.tables import read_table


def write(folder, text, name="films.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_table_lists_films_beside_it_and_far_away(tmp_path):
    path = write(tmp_path, "path,label,patient_id,split,source\na/1.png,NORMAL,p1,train,here\n"
                 "/far/2.png,,,test,\n")  # fmt: skip
    reading = read_table(path)
    assert reading.records == (
        Record(str(tmp_path / "a/1.png"), "NORMAL", "p1", "train", source="here"),
        Record("/far/2.png", split="test"),
    )
    assert reading.notes == (
        "films.csv (path, label, patient_id, split, source) lists 2 films in 2 rows",
    )


def test_a_film_of_several_rows_is_one_film(tmp_path):
    path = write(tmp_path, "image\tlabel\nb.png\tA\nb.png\tA\nc.png\tB\n", "films.tsv")
    assert [record.label for record in read_table(path).records] == ["A", "B"]


def test_what_one_row_of_a_film_leaves_empty_another_tells(tmp_path):
    """Its patient above all: left out, it would let the patient's other films be tested."""
    path = write(tmp_path, "file,label,patient,split\na.png,A,,train\na.png,A,p1,\n", "films.csv")
    (record,) = read_table(path).records
    assert (record.label, record.patient, record.split) == ("A", "p1", "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,label\na.png,A\n",
            "has the columns name, label: a table of films needs one of path",
        ),
        ("file,label\n", "lists no films"),
        ("file,label\n,A\n", "line 2 names no file: fill in file"),
        ("file,label\na.png,A\na.png,B\n", "gives a.png two labels .'A' and 'B'."),
        ("file,patient\na.png,1\na.png,2\n", "gives a.png two patients .'1' and '2'."),
        ("file,split\na.png,train\na.png,test\n", "gives a.png two splits .'train' and 'test'."),
        ("", "has the columns none"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_table(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_table_is_a_source_with_splits_and_classes(tmp_path):
    path = write(tmp_path, "file,label,split\na.png,A,train\nb.png,B,train\nc.png,A,test\n")
    reading, entries = read_source(path, ["A"], "train")
    assert [record.path for record in reading.records] == [str(tmp_path / "a.png")]
    assert reading.left_out == {"other split (--split)": 1, "other class (--class)": 1}
    assert (reading.layout, entries) == ("table", [])
