"""`cxrgan generate --without-copies-of`: near copies of the films are left out."""

import json
import shlex
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from clouds import clouds, write
from small_runs import pngs, read_manifest

from keras_cxrgan import workflows
from keras_cxrgan.cli import main
from keras_cxrgan.data.images import decode
from keras_cxrgan.workflows.screening import films_to_screen


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """An export, which does not list its films, so that any folder may stand for them."""
    return str(workflows.export(trained[1], tmp_path_factory.mktemp("exported") / "export"))


@pytest.fixture(scope="module")
def unscreened(exported, tmp_path_factory):
    """The bytes of images 0 to 79 by name."""
    out = tmp_path_factory.mktemp("unscreened") / "out"
    workflows.generate(exported, out, 80, seed=3)
    return pngs(out)


@pytest.fixture(scope="module")
def planted(unscreened, tmp_path_factory):
    """A folder of forty films; two of them are images 2 and 4 of the generator."""
    folder = tmp_path_factory.mktemp("planted") / "films"
    write(folder, clouds(38, 11))
    for index in (2, 4):
        (folder / f"copied{index}.png").write_bytes(unscreened[f"00000{index}.png"])
    return str(folder)


@pytest.fixture(scope="module")
def flagged(exported, planted):
    """The images, of the first twenty, that an audit flags: the planted ones and some like them."""
    found = workflows.audit(planted, exported, count=20, seed=3, cache=False)["audit"]["flagged"]
    indices = sorted({pair["fake"] for pair in found})
    assert {2, 4} <= set(indices) and len(indices) < 10
    return indices


def test_what_an_audit_would_flag_is_left_out_and_others_take_its_place(
    exported, planted, flagged, unscreened, tmp_path
):
    result = workflows.generate(exported, tmp_path / "out", 6, seed=3, without_copies_of=planted)
    kept = [index for index in range(20) if index not in flagged][:6]
    expected = [f"{index:06d}.png" for index in kept]
    assert pngs(tmp_path / "out") == {name: unscreened[name] for name in expected}
    assert [row["file"] for row in read_manifest(tmp_path / "out")] == expected
    left_out = [f"{index:06d}.png" for index in flagged if index < kept[-1]]
    assert result["left_out"] == left_out and "000002.png" in left_out


def test_a_generator_that_has_learnt_its_films_by_heart_is_named_and_leaves_nothing(
    exported, unscreened, tmp_path
):
    films = tmp_path / "films"
    films.mkdir()
    for name, data in unscreened.items():
        (films / name).write_bytes(data)
    with pytest.raises(ValueError, match="69 of the first 69 images lie .* learnt its films"):
        workflows.generate(exported, tmp_path / "out", 5, seed=3, without_copies_of=str(films))
    assert list((tmp_path / "out").iterdir()) == []


def test_films_that_a_run_was_not_trained_on_are_left_aside(trained, sets, unscreened, tmp_path):
    folder = tmp_path / "films"
    shutil.copytree(sets["real"], folder)
    (folder / "later.png").write_bytes(unscreened["000002.png"])
    result = workflows.generate(
        trained[1], tmp_path / "out", 4, seed=3, without_copies_of=str(folder)
    )
    assert (result["left_out"], result["warnings"]) == ([], [])
    other = write(tmp_path / "other", clouds(30, 12))
    with pytest.raises(ValueError, match="trained on none of the films"):
        workflows.generate(trained[1], tmp_path / "none", 4, without_copies_of=other)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="would be taken for films"):
        workflows.generate(trained[1], folder / "made", 4, without_copies_of=str(folder))


def test_films_that_are_missing_are_told(trained, sets, tmp_path):
    folder = tmp_path / "films"
    shutil.copytree(sets["real"], folder)
    for index in range(20):
        (folder / f"{index:03d}.png").unlink()
    result = workflows.generate(trained[1], tmp_path / "out", 4, without_copies_of=str(folder))
    assert len(result["warnings"]) == 1
    assert "does not hold: copies of these are not found" in result["warnings"][0]


def test_held_out_films_set_the_thresholds(trained, sets, tmp_path, monkeypatch):
    given = []

    def finder(*arrays):
        given.extend(map(len, arrays))
        return lambda pixels, features: np.zeros(len(pixels), bool)

    monkeypatch.setattr(workflows.screening, "copy_finder", finder)
    manifest, run = trained
    workflows.generate(
        run, tmp_path / "out", 4,
        without_copies_of=f"{manifest}:train", held_out=f"{manifest}:test",
    )  # fmt: skip
    assert given == [48, 48, 32, 32]  # pixels and features of the films, and of those held out


@pytest.fixture
def every_second(monkeypatch):
    """Every image of odd index is taken for a copy."""

    def screen(*arguments, **options):
        seen = [0]

        def is_copy(images):
            seen[0] += len(images)
            return np.arange(seen[0] - len(images), seen[0]) % 2 == 1

        return is_copy, []

    monkeypatch.setattr(workflows.generating.screening, "screen", screen)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_as_many_images_come_as_were_asked_for_whatever_the_batch(
    exported, every_second, batch_size, tmp_path
):
    result = workflows.generate(
        exported, tmp_path / "out", 5, seed=3, grid=True, batch_size=batch_size,
        without_copies_of="films",
    )  # fmt: skip
    kept = [f"00000{index}.png" for index in (0, 2, 4, 6, 8)]
    assert sorted(pngs(tmp_path / "out")) == kept
    assert result["left_out"] == [f"00000{index}.png" for index in (1, 3, 5, 7)]
    assert result["images"] == 5
    grid = decode((tmp_path / "out" / "grid.png").read_bytes())
    shown = [grid[y : y + 32, x : x + 32] for y in (0, 34) for x in (0, 34, 68)][:5]
    for name, image in zip(kept, shown):
        np.testing.assert_array_equal(image, decode((tmp_path / "out" / name).read_bytes()))


def test_the_command_says_what_it_left_out(exported, planted, flagged, tmp_path):
    command = ["generate", exported, "-n", "6", "--seed", "3", "--without-copies-of", planted]
    told = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "a")])
    assert told.exit_code == 0, told.output
    assert "as near to a film as a copy: 00000" in told.stdout and "000004.png" in told.stdout
    as_json = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "b"), "--json"])
    left_out = json.loads(as_json.stdout)["left_out"]
    assert left_out == [f"{index:06d}.png" for index in flagged][: len(left_out)] != []


def test_the_command_that_training_ends_with_makes_images_without_copies(
    trained, tmp_path, monkeypatch
):
    manifest, run = trained
    command = ["train", "--data", manifest, "--split", "train", "--recipe", f"{run}/recipe.json"]
    told = CliRunner().invoke(main, [*command, "--out", run])
    assert told.exit_code == 0, told.output
    rows = (shlex.split(row) for row in told.stdout.splitlines())
    ((program, *given),) = (words for title, *words in filter(None, rows) if title == "next")
    assert (program, given[-2:]) == ("cxrgan", ["--without-copies-of", f"{manifest}:train"])
    given[given.index("-n") + 1] = "4"
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(main, given)
    assert made.exit_code == 0, made.output
    assert len(pngs(tmp_path / "run-images")) == 4 and "left out" in made.stdout


@pytest.mark.parametrize(
    ("data", "split", "layout", "count", "films"),
    [
        ("films/", None, "auto", 20, "films/"),
        ("m.csv", "train", "auto", 500, "m.csv:train"),
        ("films/", None, "auto", 19, None),  # which `generate` would refuse
        ("films/", None, "flat", 500, None),  # as it might not find them
        (None, None, "auto", 500, None),
    ],
)
def test_films_are_named_only_where_images_can_be_compared_with_them(
    data, split, layout, count, films
):
    assert films_to_screen(data, split, layout, count) == films


@pytest.mark.parametrize(
    ("films", "message"),
    [("nowhere", "nowhere"), ("few", "20 are needed")],
)
def test_films_that_cannot_be_compared_with_are_one_line(exported, tmp_path, films, message):
    write(tmp_path / "few", clouds(5, 1))
    out = str(tmp_path / "out")
    command = ["generate", exported, "--out", out, "--without-copies-of", str(tmp_path / films)]
    told = CliRunner().invoke(main, command)
    assert told.exit_code == 1
    assert told.stderr.splitlines()[-1].startswith("Error: ") and message in told.stderr
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "out").exists()
