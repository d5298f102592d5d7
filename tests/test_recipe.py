import dataclasses
import json

import pytest

from keras_cxrgan.recipe import RECIPES, Recipe


def test_every_recipe_passes_its_own_check():
    for name, recipe in RECIPES.items():
        assert recipe.check() is recipe
        assert recipe.name == name
        assert recipe.summary


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("venu2020", {"image_size": 128, "channels": 1, "epochs": 500, "upsampling": "resize"}),
        (
            "ng2023_dcgan",
            {
                "channels": 3,
                "generator_learning_rate": 0.0002,
                "beta_1": 0.5,
                "batch_size": 128,
                "clahe_clip_limit": 2.0,
            },
        ),
        (
            "ng2023_wgan_gp",
            {
                "generator_learning_rate": 0.0001,
                "discriminator_learning_rate": 0.0001,
                "beta_1": 0.5,
                "beta_2": 0.9,
                "critic_steps": 5,
                "penalty_weight": 10.0,
                "discriminator_normalization": "instance",
            },
        ),
        ("incremental_stage64", {"width": 8, "batch_size": 8, "generator_learning_rate": 0.0001}),
        ("noori2024", {"beta_1": 0.55, "batch_size": 50, "epochs": 500, "channels": 1}),
        (
            "davoodi2021",
            {
                "latent_distribution": "uniform",
                "discriminator_dropout": (0.5, 0.0, 0.5, 0.25),
                "batch_size": 32,
                "epochs": 200,
                "beta_2": 0.999,
            },
        ),
    ],
)
def test_paper_recipes_hold_the_published_settings(name, published):
    fields = dataclasses.asdict(RECIPES[name])
    assert {field: fields[field] for field in published} == published


def test_unknown_field_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean batch_size"):
        Recipe().override(batchsize=4)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean venu2020"):
        Recipe.load("venu")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", "many", "batch_size must be a whole number, got 'many'"),
        ("batch_size", "8.5", "batch_size must be a whole number"),
        ("batch_size", 8.5, "batch_size must be a whole number"),
        ("batch_size", True, "batch_size must be a whole number"),
        ("beta_1", "nan", "beta_1 must be a number"),
        ("normalize_base", "perhaps", "normalize_base must be true or false"),
        ("discriminator_dropout", "0.5,x", "discriminator_dropout must be a number"),
        ("loss", "wassertein", "loss must be one of non_saturating"),
        ("batch_size", 0, "batch_size must be above 0, got 0"),
        ("beta_1", 1.0, "beta_1 must be at least 0 and below 1"),
        ("channels", 2, "channels must be 1 or 3, got 2"),
        ("evaluate_interval", -1, "evaluate_interval must not be negative, got -1"),
        ("evaluate_count", 9, "evaluate_count must be 0 or at least 10, got 9"),
        ("evaluate_metric", "fid", "evaluate_metric must be one of kid, frechet, precision"),
    ],
)
def test_wrong_values_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        Recipe().override(**{field: value})


@pytest.mark.parametrize(("size", "nearest"), [(100, 128), (31, 32), (90, 64), (2048, 1024)])
def test_image_size_that_is_no_power_of_two_names_the_nearest(size, nearest):
    with pytest.raises(ValueError, match=rf"got {size}; the nearest is --image-size {nearest}$"):
        Recipe().override(image_size=size)


def test_text_from_the_command_line_takes_the_type_of_its_field():
    recipe = RECIPES["davoodi2021"].override(
        normalize_base="false", beta_1="0.9", batch_size="7", discriminator_dropout="0.1,0,0,0.2"
    )
    assert recipe.normalize_base is False
    assert recipe.beta_1 == 0.9
    assert recipe.batch_size == 7
    assert recipe.discriminator_dropout == (0.1, 0.0, 0.0, 0.2)


def test_dropout_needs_one_rate_a_block():
    with pytest.raises(ValueError, match="each of the 5 blocks at image_size 128, got 4"):
        RECIPES["davoodi2021"].override(image_size=128)


def test_float16_with_a_penalty_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="overflow float16"):
        RECIPES["ng2023_wgan_gp"].override(precision="mixed_float16")


def test_gradient_penalty_with_batch_normalization_is_refused():
    with pytest.raises(ValueError, match="mixes the images of a batch"):
        Recipe().override(penalty="gradient_penalty")


def test_json_round_trip_keeps_every_field():
    for recipe in RECIPES.values():
        assert Recipe.from_json(recipe.to_json()) == recipe


def test_json_with_an_unknown_field_is_refused():
    fields = json.loads(Recipe().to_json()) | {"epoch": 3}
    with pytest.raises(ValueError, match="did you mean epochs"):
        Recipe.from_json(json.dumps(fields))


def test_recipe_file_is_loaded(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"epochs": 3, "width": 16}')
    assert Recipe.load(str(path)) == Recipe().override(epochs=3, width=16)


def test_difference_lists_what_changed_and_not_the_name():
    ours, theirs = Recipe().override(epochs=3, name="mine"), Recipe()
    assert ours.difference(theirs) == {"epochs": (3, theirs.epochs)}


def test_how_a_run_is_watched_is_no_difference():
    watched = Recipe().override(
        sample_interval=5, evaluate_interval=9, evaluate_count=20,
        evaluate_features="imagenet", evaluate_metric="recall",
    )  # fmt: skip
    assert watched.difference(Recipe()) == {}
