import dataclasses
import json

import pytest

from keras_cxrgan.fields import meanings, spell
from keras_cxrgan.recipe import RECIPES, Recipe, recipe_for
from keras_cxrgan.rules import check_effect
from keras_cxrgan.stages import by_stage
from keras_cxrgan.workflows.assembly import images_together


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
        (
            "incremental",
            {
                "width": 8,
                "growth_width": (8,),
                "batch_size": 8,
                "generator_learning_rate": 0.0001,
                "image_size": 2048,
                "grown_from": 64,
            },
        ),
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
        ("balanced", True, "balanced is of the classes of a conditional recipe"),
        ("evaluate_metric", "fid", "evaluate_metric must be one of kid, frechet, precision"),
    ],
)
def test_wrong_values_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        Recipe().override(**{field: value})


@pytest.mark.parametrize(("size", "nearest"), [(100, 128), (31, 32), (90, 64), (4096, 2048)])
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


def test_a_value_as_it_is_spelled_is_read_again():
    recipe = RECIPES["incremental"]
    spelled = {
        field.name: spell(getattr(recipe, field.name)) for field in dataclasses.fields(recipe)
    }
    assert spelled["stages"] == "64,128,256,512,1024,2048"
    assert (spelled["window"], spelled["residual"]) == ("()", "false")
    assert Recipe().override(**spelled) == recipe


def test_every_field_says_what_it_means():
    told = [name for section in meanings(Recipe).values() for name in section]
    assert ["name", "summary", *told] == [field.name for field in dataclasses.fields(Recipe)]
    assert meanings(Recipe)["Optimization"]["beta_2"] == (
        "share that it keeps of the mean squared gradient"
    )


def test_dropout_needs_one_rate_a_block():
    with pytest.raises(ValueError, match="each of the 5 blocks at image_size 128, got 4"):
        RECIPES["davoodi2021"].override(image_size=128)


def test_no_name_of_a_field_ends_in_a_traceback():
    for name in ("self", "fields", "recipe"):
        with pytest.raises(ValueError, match=f"the recipe has no field '{name}'"):
            Recipe().override(**{name: "1"})


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


GROWN = Recipe().override(image_size=256, grown_from=64, stages=(64, 256), epochs=7)


def test_a_training_has_so_many_epochs_or_so_many_images():
    passes = Recipe().override(epochs=3)
    counted = passes.override(training_images=500)
    assert [passes.total_images(films) for films in (60, 1000)] == [180, 3000]
    assert [counted.total_images(films) for films in (60, 1000)] == [500, 500]
    # Who names epochs means them.
    assert counted.override(epochs="7").total_images(60) == 420
    assert counted.override(width=8).total_images(60) == 500
    assert counted.override(epochs=7, training_images=90).total_images(60) == 90
    assert Recipe.from_json(counted.to_json()) == counted


def test_small_sets_get_the_recipe_for_them():
    assert [recipe_for(films).name for films in (1, 4999, 5000)] == [
        "small_data", "small_data", "default",
    ]  # fmt: skip


def test_each_stage_is_a_recipe_of_one_size():
    recipe = GROWN.override(
        fade_in=50, native_ramp=30, stage_batch_sizes="16,4", stage_precisions="float32,mixed_bfloat16",
        stage_learning_rates="0.1,0.2", stage_accumulations="1,2",
    )  # fmt: skip
    first, second = by_stage(recipe)
    assert (first.image_size, first.previous_size, first.fade_in, first.native_ramp) == (
        64,
        0,
        0,
        0,
    )
    assert (second.image_size, second.previous_size) == (256, 64)
    assert (second.fade_in, second.native_ramp) == (50, 30)
    assert (first.batch_size, second.batch_size) == (16, 4)
    assert (first.accumulation, second.accumulation) == (1, 2)
    assert (first.precision, second.precision) == ("float32", "mixed_bfloat16")
    for stage, rate in ((first, 0.1), (second, 0.2)):
        assert stage.generator_learning_rate == stage.discriminator_learning_rate == rate
        assert stage.epochs == 7
        assert stage.stages == stage.stage_batch_sizes == () and by_stage(stage) == []
        assert Recipe.from_json(stage.to_json()) == stage


def test_the_papers_list_without_256_is_possible():
    recipe = RECIPES["incremental"].override(stages="64,128,512,1024,2048")
    assert [stage.previous_size for stage in by_stage(recipe)] == [0, 64, 128, 512, 1024]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": (64, 128)}, "stages must rise from grown_from = 64 to image_size = 256"),
        ({"stages": (64, 96, 256)}, "such as --set stages=64,128,256; got 64,96,256"),
        ({"stages": (256, 64)}, "stages must rise"),
        ({"grown_from": 0}, "stages is of networks that grow: set grown_from=64 too"),
        ({"grown_from": 96}, "grown_from must be a power of two from 16"),
        ({"grown_from": 512}, r"to 256 \(image_size\), got 512"),
        ({"previous_size": 256}, "previous_size must be a power of two .* got 256"),
        ({"growth_width": (8, 4, 0)}, "growth_width needs one number above 0"),
        ({"growth_width": ()}, "one for each of the 2 blocks from 64 to 256"),
        ({"training_images": 999}, "training_images has no place .*; set stage_epochs"),
        ({"stage_epochs": (3,)}, "stage_epochs needs one value for each of the 2 stages, got 1"),
        ({"stage_epochs": (3, 0)}, "epochs must be above 0, got 0"),
        ({"stage_epochs": "3,x"}, "stage_epochs must be a whole number"),
        ({"stage_precisions": "float32,half"}, "precision must be one of .* got 'half'"),
        ({"stage_accumulations": (1, 5)}, "accumulation must divide batch_size = 32, got 5"),
        ({"accumulation": 0}, "accumulation must be above 0"),
        ({"accumulation": 2, "precision": "mixed_float16"}, "cannot be used with mixed_float16"),
    ],
)  # fmt: skip
def test_growth_that_cannot_be_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        GROWN.override(**fields)


@pytest.mark.parametrize(
    "fields, said",
    [
        (
            {"batch_size": 4, "accumulation": 2, "augmentation_memory": 1},
            "augmentation_target .* whose 2 images are too few .* use augmentation_memory=256",
        ),
        (
            {"batch_size": 4, "accumulation": 4, "augmentation_target": 0.0},
            "minibatch_stddev compares the images of a step, which has 1",
        ),
    ],
)
def test_what_compares_images_needs_some_at_a_time(fields, said):
    with pytest.raises(ValueError, match=said):
        RECIPES["small_data"].override(**fields).check()
    RECIPES["small_data"].override(batch_size=8, accumulation=2, augmentation_memory=1).check()
    RECIPES["small_data"].override(batch_size=4, accumulation=2).check()
    with pytest.raises(ValueError, match="minibatch_group must be 2 or more.*got 1"):
        RECIPES["small_data"].override(minibatch_group=1)
    with pytest.raises(ValueError, match="minibatch_features must be above 0, got 0"):
        RECIPES["small_data"].override(minibatch_features=0)


def test_batches_are_normalized_together_in_use_where_they_were_in_training():
    recipe = RECIPES["small_data_long"]
    assert images_together(recipe) == 16
    assert images_together(recipe.override(accumulation=2)) == 8
    for other in (
        {"batches_in_use": False},
        {"conditional": True},  # a group of one class is no batch of training
        {"generator_normalization": "instance"},
    ):
        assert images_together(recipe.override(**other)) == 0


def test_what_is_not_normalized_cannot_be_modulated():
    with pytest.raises(
        ValueError, match="self_modulation scales what is normalized: set generator_"
    ):
        RECIPES["small_data"].override(generator_normalization="none", self_modulation=True)
    RECIPES["small_data"].override(generator_normalization="instance", self_modulation=True)


def test_a_number_too_long_for_a_float_is_no_traceback():
    with pytest.raises(ValueError, match="seed must be a whole number"):
        RECIPES["small_data"].override(seed="9" * 400)


def test_a_field_that_each_stage_has_of_its_own_is_not_taken_in_silence():
    recipe = RECIPES["incremental"].override(stage_epochs="5,4,3,2,1,1")
    with pytest.raises(ValueError, match=r"epochs would change nothing: .* stage_epochs=5,4,3,2,1"):
        recipe.override(epochs=1)
    assert recipe.override(epochs=1, stage_epochs=()).epochs == 1


@pytest.mark.parametrize(
    "name, fields, said",
    [
        ("default", {"penalty_weight": 3}, "for penalty is none: set penalty too"),
        ("default", {"minibatch_group": 8}, "for minibatch_stddev is false: set minibatch_stddev"),
        ("default", {"clahe_tiles": 4}, "for clahe_clip_limit is 0.0: set clahe_clip_limit too"),
        ("default", {"growth_width": "4"}, "for grown_from is 0: set grown_from too"),
        ("default", {"augmentation_probability": 0.5}, r"for augmentations is \(\): set"),
        ("default", {"evaluate_metric": "recall"}, "for evaluate_interval is 0: set"),
        (
            "small_data",
            {"discriminator_normalization_affine": False},
            "for discriminator_normalization is none: set",
        ),
    ],
)
def test_a_field_that_would_change_nothing_is_not_taken_in_silence(name, fields, said):
    recipe = RECIPES[name].override(**fields)
    with pytest.raises(ValueError, match="would change nothing, " + said):
        check_effect([recipe], fields)


def test_fields_that_have_an_effect_somewhere_are_taken():
    penalized = RECIPES["default"].override(penalty="r1")
    without = RECIPES["default"]
    check_effect([penalized], {"penalty_weight": 3, "width": 8})
    check_effect([without, penalized], {"penalty_weight": 3})
    # Who names the switch too says what is meant, as a stored recipe does.
    check_effect([without], {"penalty": "none", "penalty_weight": 3})
