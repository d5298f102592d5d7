"""The ablation of `small_data`: every row is a recipe that can be trained, and differs from it."""

import json

import pytest

from experiments import small_data
from keras_cxrgan.recipe import RECIPES


def planned(capsys, tmp_path, *words):
    with pytest.raises(SystemExit) as stopped:
        small_data.main(
            [*words, "--images", "1200", "--dry-run", "--json", "--out", str(tmp_path / "out")]
        )
    assert stopped.value.code == 0
    return json.loads(capsys.readouterr().out)


def test_a_change_that_all_rows_have_is_no_row(tmp_path, capsys):
    settings = ("beta_2=0.999", "minibatch_group=4", "minibatch_features=1", "width=8")
    words = [word for setting in settings for word in ("--set", setting)]
    rows = planned(capsys, tmp_path, *words)["rows"]
    assert len(rows) == 1 + len(small_data.CHANGES) - 2
    assert not {"long memory", "one stddev of four"} & {*rows}


@pytest.mark.parametrize(
    ("which", "changes"), [([], small_data.CHANGES), (["--tried"], small_data.TRIED)]
)
def test_every_change_is_of_the_recipe_and_changes_it(which, changes, tmp_path, capsys):
    about = planned(capsys, tmp_path, *which)
    assert about["recipe"] == RECIPES["small_data"].name
    rows = about["rows"]
    assert rows.pop("base") == {}
    assert len(rows) == len(changes)
    assert rows["no augmentation"]["augmentations"][1] == []
    assert all(rows.values())
