"""Images and exports of a finished run."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from small_runs import TINY, contents, pngs, read_manifest, write_films

from keras_cxrgan import workflows
from keras_cxrgan.data.images import decode, image_grid, read_png_text, write_png
from keras_cxrgan.recipe import Recipe


def test_image_is_fixed_by_seed_and_index_whatever_the_count(finished, tmp_path):
    run = finished[0]
    workflows.generate(run, tmp_path / "many", 40, seed=3)
    workflows.generate(run, tmp_path / "few", 5, seed=3)
    workflows.generate(run, tmp_path / "other", 5, seed=4)
    many, few, other = (pngs(tmp_path / name) for name in ("many", "few", "other"))
    assert sorted(few) == [f"{index:06d}.png" for index in range(5)]
    assert few == {name: many[name] for name in few}
    images = [decode(data).tobytes() for data in [*many.values(), *other.values()]]
    assert len(set(images)) == 45


def test_image_does_not_depend_on_the_size_of_the_batches(finished, tmp_path):
    workflows.generate(finished[0], tmp_path / "large", 7, batch_size=32)
    workflows.generate(finished[0], tmp_path / "small", 7, batch_size=3)
    large, small = pngs(tmp_path / "large"), pngs(tmp_path / "small")
    for name in large:
        difference = decode(large[name]).astype(int) - decode(small[name])
        assert abs(difference).max() <= 1  # the last digit of a sum may differ, no more


def test_manifest_matches_the_files(finished, tmp_path):
    reports = []
    result = workflows.generate(
        finished[0],
        tmp_path / "out",
        5,
        seed=3,
        truncation=0.7,
        batch_size=2,
        report=lambda stage, done, total: reports.append((stage, done, total)),
    )
    rows = read_manifest(tmp_path / "out")
    assert [row["index"] for row in rows] == ["0", "1", "2", "3", "4"]
    for row in rows:
        data = (tmp_path / "out" / row["file"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert (row["seed"], row["truncation"]) == ("3", "0.7")
        assert row["model"] == result["model"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "manifest.csv", *(row["file"] for row in rows),
    }  # fmt: skip
    assert reports == [("generating", 2, 5), ("generating", 4, 5), ("generating", 5, 5)]


def test_image_says_that_it_is_synthetic_and_where_it_comes_from(finished, tmp_path):
    result = workflows.generate(finished[0], tmp_path / "out", 2, seed=3)
    text = read_png_text((tmp_path / "out" / "000001.png").read_bytes())
    assert "Synthetic" in text["Comment"] and "not a patient" in text["Comment"]
    assert (text["Seed"], text["Index"], text["Model"]) == ("3", "1", result["model"])
    assert "Truncation" not in text
    workflows.generate(finished[0], tmp_path / "near", 1, truncation=0.7)
    text = read_png_text((tmp_path / "near" / "000000.png").read_bytes())
    assert text["Truncation"] == "0.7"


def test_grid_shows_the_first_images(finished, tmp_path):
    workflows.generate(finished[0], tmp_path / "out", 70, grid=True)
    images = [decode(pngs(tmp_path / "out")[f"{index:06d}.png"]) for index in range(64)]
    grid = decode((tmp_path / "out" / "grid.png").read_bytes())
    np.testing.assert_array_equal(grid, image_grid(np.stack(images)))


def test_run_and_its_export_generate_the_same_images(finished, tmp_path):
    workflows.generate(finished[0], tmp_path / "run", 4, seed=1)
    workflows.generate(finished[0] / "export", tmp_path / "export", 4, seed=1)
    assert pngs(tmp_path / "run") == pngs(tmp_path / "export")
    assert read_manifest(tmp_path / "run") == read_manifest(tmp_path / "export")


def test_a_folder_with_files_is_left_alone_without_overwrite(finished, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "000000.png").write_text("mine")
    with pytest.raises(ValueError, match="already holds files.*--overwrite"):
        workflows.generate(finished[0], tmp_path / "out", 2)
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_folder_of_hidden_files_is_an_empty_one(finished, tmp_path):
    out = tmp_path / "repository"
    (out / ".git").mkdir(parents=True)
    workflows.generate(finished[0], out, 1)
    assert (out / "000000.png").is_file() and (out / ".git").is_dir()


def test_overwrite_leaves_no_image_of_an_earlier_call(finished, tmp_path):
    out = tmp_path / "out"
    workflows.generate(finished[0], out, 5, seed=1, grid=True)
    (out / "notes.txt").write_text("mine")
    write_png(out / "000004.png", np.zeros((8, 8), np.uint8))  # no longer what was generated
    workflows.generate(finished[0], out, 2, seed=2, overwrite=True)
    assert {path.name for path in out.iterdir()} == {
        "000000.png", "000001.png", "000004.png", "manifest.csv", "notes.txt",
    }  # fmt: skip
    assert [row["seed"] for row in read_manifest(out)] == ["2", "2"]


def test_overwrite_keeps_somebody_elses_manifest_and_its_images(finished, tmp_path):
    films = write_films(tmp_path / "films", 3)
    names = sorted(path.name for path in films.iterdir())
    (films / "manifest.csv").write_text("\n".join(["file", *names]))
    before = contents(films)
    with pytest.raises(ValueError, match="manifest.csv is another table.*choose another --out"):
        workflows.generate(finished[0], films, 1, overwrite=True)
    assert contents(films) == before


def test_memory_does_not_grow_with_the_count(finished, tmp_path, monkeypatch):
    """What is drawn and held at once is a batch: never `count` latents or images."""
    drawn, converted = [], []
    draw, convert = workflows.producing.indexed_latents, workflows.producing.to_uint8

    def watched_draw(seed, start, count, *rest):
        drawn.append(count)
        return draw(seed, start, count, *rest)

    def watched_convert(images):
        converted.append(len(images))
        return convert(images)

    monkeypatch.setattr(workflows.producing, "indexed_latents", watched_draw)
    monkeypatch.setattr(workflows.producing, "to_uint8", watched_convert)
    workflows.generate(finished[0], tmp_path / "out", 75, batch_size=16)
    assert set(drawn) == {16}
    assert converted == [16, 16, 16, 16, 11]


def test_smaller_truncation_gives_less_variety(finished, tmp_path):
    spread = {}
    for truncation in (None, 0.01):
        out = tmp_path / str(truncation)
        workflows.generate(finished[0], out, 16, truncation=truncation)
        spread[truncation] = np.stack([decode(data) for data in pngs(out).values()]).std(0).mean()
    assert spread[0.01] < 0.2 * spread[None]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"count": 0}, "-n must be 1 or more, got 0"),
        ({"truncation": 0.0}, "--truncation must be above 0, got 0.0"),
        ({"truncation": -1.0}, "--truncation must be above 0"),
        ({"truncation": float("nan")}, "--truncation must be above 0, got nan"),
        ({"seed": 2**63}, "--seed must fit in 64 bits"),
        ({"count": 10**12}, "1,000,000,000,000 images need some .* GiB .* ask for fewer"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_written(finished, tmp_path, options, message):
    options = {"count": 2, **options}
    with pytest.raises(ValueError, match=message):
        workflows.generate(finished[0], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_large_and_negative_seeds_are_seeds(finished, tmp_path):
    for seed in (2**40, -(2**40)):
        workflows.generate(finished[0], tmp_path / str(seed), 1, seed=seed)
    first, second = (pngs(tmp_path / str(seed))["000000.png"] for seed in (2**40, -(2**40)))
    assert (decode(first) != decode(second)).any()


def test_an_interrupted_generate_leaves_nothing_that_is_in_no_manifest(finished, tmp_path):
    def interrupt(stage, done, total):
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workflows.generate(finished[0], tmp_path / "out", 40, batch_size=8, report=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="is no run and no export.*cxrgan train"):
            workflows.generate(source, tmp_path / "out", 1)


def test_a_run_without_a_backup_yet_is_refused(run, tmp_path):
    shutil.rmtree(run / "backup")
    with pytest.raises(ValueError, match="holds no complete backup yet"):
        workflows.generate(run, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


# Models out


def test_export_describes_the_generator(finished, folder):
    card = json.loads((finished[0] / "export" / "card.json").read_text())
    assert card["images_seen"] == 64 and card["averaged_weights"]
    assert card["images"]["shape"] == [32, 32, 1]
    assert card["data"]["source"] == str(folder) and card["data"]["count"] == 32
    assert Recipe.from_json(json.dumps(card["recipe"])) == TINY


def test_export_of_batches_in_use_tells_how_to_use_it_and_makes_the_same_images(run, tmp_path):
    plain = json.loads((run / "export" / "card.json").read_text())
    assert "import" not in plain["images"]["generator.keras"]
    recipe = Recipe.from_json((run / "recipe.json").read_text()).override(batches_in_use=True)
    (run / "recipe.json").write_text(recipe.to_json())
    card = json.loads((workflows.export(run, overwrite=True) / "card.json").read_text())
    assert "import keras_cxrgan.models.layers" in card["images"]["generator.keras"]
    together = f"each {TINY.batch_size} consecutive are normalized together"
    assert together in card["signatures"]["serving_default"]
    for source, count in ((run, 5), (run / "export", 20)):
        workflows.generate(source, tmp_path / str(count), count, seed=3)
    few, many = pngs(tmp_path / "5"), pngs(tmp_path / "20")
    assert few == {name: many[name] for name in few}


def test_export_overwrites_only_when_told_and_only_an_export(run, tmp_path):
    with pytest.raises(ValueError, match="already holds files.*--overwrite"):
        workflows.export(run)
    (run / "export" / "card.json").write_text("{}")
    assert workflows.export(run, overwrite=True) == run / "export"
    assert json.loads((run / "export" / "card.json").read_text())["images_seen"] == 64
    before = contents(run)
    with pytest.raises(ValueError, match="holds more than an export"):
        workflows.export(run, run, overwrite=True)
    assert contents(run) == before


def test_export_to_a_place_that_cannot_be_written_is_one_clear_line(finished, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="cannot write the export to .*file/place.*--out") as error:
        workflows.export(finished[0], tmp_path / "file" / "place")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        workflows.export(finished[0], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_figure_is_refused_more_columns_than_the_run_has_images(finished, tmp_path):
    with pytest.raises(ValueError, match="reals.png holds 36 images; pass --columns 36 or less"):
        workflows.figure([str(finished[0])], tmp_path / "figure.png", columns=64)


def test_a_figure_replaces_no_file_unasked(finished, tmp_path):
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    with pytest.raises(ValueError, match="notes.txt is there already.*--overwrite"):
        workflows.figure([str(finished[0])], out)
    with pytest.raises(ValueError, match="--seed must fit in 64 bits"):
        workflows.figure([str(finished[0])], out, seed=2**63, overwrite=True)
    assert out.read_text() == "mine"
    workflows.figure([str(finished[0])], out, columns=36, overwrite=True)
    height, width = decode(out.read_bytes()).shape[:2]
    # Two rows of 36 images and a title: less would squeeze them.
    assert width == 2880 and height > 2 * width / 36 + 50
