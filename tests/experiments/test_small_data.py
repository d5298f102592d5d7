"""The ablation of `small_data`: every row is a recipe that can be trained, and differs from it."""

import json

import pytest

from experiments import small_data
from keras_cxrgan.recipe import RECIPES


@pytest.mark.parametrize(
    ("which", "changes"), [([], small_data.CHANGES), (["--tried"], small_data.TRIED)]
)
def test_every_change_is_of_the_recipe_and_changes_it(which, changes, tmp_path, capsys):
    words = ["--images", "1200", "--dry-run", "--json", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        small_data.main([*which, *words])
    assert stopped.value.code == 0
    about = json.loads(capsys.readouterr().out)
    assert about["recipe"] == RECIPES["small_data"].name
    rows = about["rows"]
    assert rows.pop("base") == {}
    assert len(rows) == len(changes)
    assert rows["no augmentation"]["augmentations"][1] == []
    assert all(rows.values())
