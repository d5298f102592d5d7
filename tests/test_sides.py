import cv2
import numpy as np
import pytest

from keras_cxrgan.data.images import write_png
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.workflows.sides import (
    Preparation,
    choose_preparation,
    load_side,
    native_sizes,
    pair_warnings,
)


def write(folder, images, extension=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        (folder / f"{index:03d}{extension}").write_bytes(cv2.imencode(extension, image)[1])
    return str(folder)


def test_the_generated_images_decide_the_size(films, tmp_path):
    source = write(tmp_path / "fake", films)
    prepared = choose_preparation([source])
    assert (prepared.image_size, prepared.fit, prepared.clahe_clip_limit) == (32, "crop", 0)
    assert source in prepared.origin


def test_what_is_asked_for_goes_before_the_size_found(films, tmp_path):
    prepared = choose_preparation(
        [write(tmp_path / "fake", films)], image_size=48, fit="pad", clahe=2.0
    )
    assert (prepared.image_size, prepared.fit, prepared.clahe_clip_limit) == (48, "pad", 2.0)


def test_clahe_is_for_the_real_side_alone(films, tmp_path):
    source = write(tmp_path / "films", films)
    prepared = Preparation(32, clahe_clip_limit=4.0)
    np.testing.assert_array_equal(load_side(source, prepared, role="fake").images, films)
    assert (load_side(source, prepared, role="real").images != films).any()


def test_nested_folders_and_upper_case_names_are_counted(films, tmp_path):
    write(tmp_path / "all" / "a" / "b", films[:3], ".PNG")
    write(tmp_path / "all", films[3:5], ".jpg")
    side = load_side(str(tmp_path / "all"), Preparation(32), role="real")
    assert len(side.images) == 5
    assert side.about["codecs"] == {"PNG": 3, "JPEG": 2}


def test_mixed_sizes_are_brought_to_one_and_counted(films, tmp_path):
    source = write(tmp_path / "films", [*films[:5], np.zeros((40, 50), np.uint8)])
    side = load_side(source, Preparation(32), role="fake")
    assert side.images.shape == (6, 32, 32)
    assert any("2 sizes among 6 images, most often 32x32 (5)" in text for text in side.warnings)
    assert sorted(native_sizes(source)) == [(32, 32)] * 5 + [(40, 50)]


def test_16_bit_files_are_counted_with_what_was_done(films, tmp_path):
    source = write(tmp_path / "films", [*films[:4], films[4].astype(np.uint16) * 16])
    (text,) = load_side(source, Preparation(32), role="real").warnings
    assert "1 image of more than 8 bits" in text and "0.1 and 99.9 percentiles" in text


def test_a_corrupt_file_is_an_error_or_a_counted_omission(films, tmp_path):
    source = write(tmp_path / "films", films[:4])
    (tmp_path / "films" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(ValueError, match="bad.png"):
        load_side(source, Preparation(32), role="real")
    side = load_side(source, Preparation(32), role="real", on_bad_file="skip")
    assert len(side.images) == 4
    assert any("1 file: " in text and "bad.png" in text for text in side.warnings)


def test_a_count_draws_the_same_films_each_time(films, tmp_path):
    source = write(tmp_path / "films", films)
    first, again, other = (
        load_side(source, Preparation(32), role="fake", count=10, seed=seed) for seed in (0, 0, 1)
    )
    assert first.hashes == again.hashes != other.hashes
    assert first.about["count"] == 10 and first.about["found"] == 40


def test_repeated_files_are_counted(films, tmp_path):
    source = write(tmp_path / "films", [*films[:5], films[0]])
    (text,) = load_side(source, Preparation(32), role="real").warnings
    assert "1 file repeating another" in text


def test_the_same_file_on_both_sides_is_named(films, tmp_path):
    real = load_side(write(tmp_path / "real", films[:20]), Preparation(32), role="real")
    fake = load_side(write(tmp_path / "fake", films[18:]), Preparation(32), role="fake")
    assert any("2 of 22 images of fake are in real" in text for text in pair_warnings(real, fake))


def test_mixed_codecs_and_sizes_of_the_sides_are_named(films, tmp_path):
    large = [cv2.resize(film, (64, 64)) for film in films]
    real = load_side(write(tmp_path / "real", large, ".jpg"), Preparation(32), role="real")
    fake = load_side(write(tmp_path / "fake", films), Preparation(32), role="fake")
    text = " ".join(pair_warnings(real, fake))
    assert "mixed codecs (real: 40 JPEG; fake: 40 PNG)" in text
    assert "different preprocessing of the two sides: real came as 64x64, fake as 32x32" in text


def test_equal_sides_raise_no_suspicion(films, tmp_path):
    real = load_side(write(tmp_path / "real", films[:20]), Preparation(32), role="real")
    fake = load_side(write(tmp_path / "fake", films[20:]), Preparation(32), role="fake")
    assert pair_warnings(real, fake) == []


def test_held_out_phantoms_are_other_patients():
    real, held_out = (
        load_side("phantom", Preparation(32), role=role, count=5) for role in ("real", "held-out")
    )
    assert not set(real.hashes) & set(held_out.hashes)


def test_grey_and_rgb_files_of_one_image_give_one_array(films, tmp_path):
    (tmp_path / "grey").mkdir()
    (tmp_path / "rgb").mkdir()
    write_png(tmp_path / "grey" / "a.png", films[0])
    write_png(tmp_path / "rgb" / "a.png", np.repeat(films[0][..., np.newaxis], 3, axis=2))
    grey, rgb = (
        load_side(str(tmp_path / name), Preparation(32), role="fake").images
        for name in ("grey", "rgb")
    )
    np.testing.assert_array_equal(grey, rgb)


def test_tiles_of_an_equalization_that_is_off_keep_no_runs_apart(tmp_path):
    def run(name, **fields):
        (tmp_path / name).mkdir()
        recipe = Recipe().override(image_size=32, **fields)
        (tmp_path / name / "recipe.json").write_text(recipe.to_json())
        return str(tmp_path / name)

    same = [run("a"), run("b", clahe_clip_limit=0, clahe_tiles=4)]
    assert choose_preparation(same).clahe_clip_limit == 0
    with pytest.raises(ValueError, match="clahe_tiles 8 and 4.: evaluate them apart$"):
        choose_preparation(
            [run("c", clahe_clip_limit=2), run("d", clahe_clip_limit=2, clahe_tiles=4)]
        )


def test_classes_of_generated_images_are_those_of_their_folders(films, tmp_path):
    for name, count in (("covid", 3), ("normal", 5)):
        write(tmp_path / "fake" / name, films[:count])
    source = str(tmp_path / "fake")
    side = load_side(source, Preparation(32), role="fake", classes=("covid",))
    assert (len(side.images), side.about["classes"]) == (3, ["covid"])
    both = load_side(source, Preparation(32), role="fake")
    assert len(both.images) == 8
    other = load_side(source, Preparation(32), role="fake", classes=("film",))
    assert len(other.images) == 8
    assert f"all images of {source} were taken: none is of film" in other.warnings


def test_classes_of_generated_images_are_those_of_a_table(films, tmp_path):
    write(tmp_path, films[:4])
    table = tmp_path / "made.csv"
    rows = [f"{index:03d}.png,{'covid' if index else 'normal'}" for index in range(4)]
    table.write_text("\n".join(["file,label", *rows]))
    side = load_side(str(table), Preparation(32), role="fake", classes=("covid",))
    assert len(side.images) == 3


def test_the_overview_of_generated_images_in_a_folder_of_folders_is_none_of_them(films, tmp_path):
    write(tmp_path / "fake" / "covid", films[:3])
    folder = tmp_path / "fake" / "covid"
    (folder / "manifest.csv").write_text(
        "file,index,seed,truncation,sha256,model\n000.png,0,0,,0,m\n"
    )
    cv2.imwrite(str(folder / "grid.png"), np.zeros((64, 64), np.uint8))
    assert len(load_side(str(tmp_path / "fake"), Preparation(32), role="fake").images) == 3
