"""`cxrgan train --start-from`: what passes from one run to another, and what is said of it."""

import json

import numpy as np
import pytest

from keras_cxrgan import runs, workflows
from keras_cxrgan.data.images import write_png
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.training import state

TINY = Recipe().override(
    image_size=32, width=4, generator_max_width=8, discriminator_max_width=8, latent_dim=4,
    batch_size=8, epochs=1, discriminator_dropout="0.3,0,0",
)  # fmt: skip


def write_films(folder, seed):
    random = np.random.default_rng(seed)
    folder.mkdir()
    for index in range(16):
        write_png(folder / f"{index}.png", random.integers(0, 256, (32, 32), np.uint8))
    return str(folder)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """(run, its films) of a finished run."""
    top = tmp_path_factory.mktemp("parent")
    films = write_films(top / "films", 0)
    workflows.train(TINY, top / "run", data=films)
    return top / "run", films


@pytest.fixture(scope="module")
def child(parent, tmp_path_factory):
    """(run, its films) of one that began with it and did not move."""
    top = tmp_path_factory.mktemp("child")
    films = write_films(top / "films", 1)
    still = TINY.override(
        generator_learning_rate=1e-30, discriminator_learning_rate=1e-30, ema_half_life=0
    )
    workflows.train(still, top / "run", data=films, start_from=parent[0])
    return top / "run", films


def test_all_trained_weights_pass_on_with_the_head(parent, child):
    before, after = (state.read_newest(run / "backup")[0] for run, _ in (parent, child))
    kernels = 0
    for name, value in before.items():
        owner, _, index = name.partition("/")
        if owner in ("generator", "discriminator") and value.ndim > 1:
            np.testing.assert_array_equal(after[name], value, err_msg=name)
            kernels += 1
    assert kernels == 8  # base, three convolutions; three convolutions, logits
    assert int(after["images_seen"]) == 16  # of this run alone


def test_the_films_behind_the_weights_count_as_trained_on(parent, child, tmp_path):
    ours, theirs = runs.films_of(child[0]), runs.films_of(parent[0])
    assert len(theirs) == 16 and len(ours) == 32 and theirs < ours
    about = json.loads((child[0] / "data.json").read_text())
    assert about["count"] == 16
    assert about["started_from"] == {"recipe": "default", "images_seen": 16}
    with pytest.raises(ValueError, match="was trained on 16 of the 16 films"):
        workflows.generate(child[0], tmp_path / "out", 1, held_out=parent[1])


def test_a_run_that_goes_on_keeps_what_it_began_with(child):
    still = TINY.override(
        generator_learning_rate=1e-30, discriminator_learning_rate=1e-30, ema_half_life=0, epochs=2
    )
    result = workflows.train(still, child[0], data=child[1], extend=True)  # without the option
    assert result.resumed_from == 16
    assert len(runs.films_of(child[0])) == 32


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"width": 2}, "has networks of width 4 and not 2: pass --set width=4 "),
        (
            {"image_size": 64, "discriminator_dropout": "0.3,0,0,0", "generator_max_width": 8},
            "has networks of image_size 32 and not 64: pass --set image_size=32$",
        ),
        # Whose weights would fit all the same.
        ({"residual": True}, "of residual False and not True: pass --set residual=false$"),
        ({"generator_activation": "leaky_relu"}, "pass --set generator_activation=relu$"),
        ({"latent_distribution": "uniform"}, "pass --set latent_distribution=normal$"),
    ],
)
def test_other_networks_are_refused_and_nothing_is_written(parent, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        workflows.train(
            TINY.override(**fields), tmp_path / "run", data=parent[1], start_from=parent[0]
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_a_generator_that_hears_its_latents_at_each_size_begins_as_one_that_did_not(
    parent, tmp_path
):
    run, films = parent
    still = TINY.override(
        generator_learning_rate=1e-30, discriminator_learning_rate=1e-30, ema_half_life=0,
        self_modulation=True,
    )  # fmt: skip
    workflows.train(still, tmp_path / "run", data=films, start_from=run)
    before, after = (state.read_newest(each / "backup")[0] for each in (run, tmp_path / "run"))
    kernels, others = (
        [
            value
            for name, value in sorted(arrays.items())
            if name.startswith("generator/") and value.ndim == 4
        ]
        for arrays in (before, after)
    )
    assert len(kernels) == len(others) == 3
    for kernel, other in zip(kernels, others):
        np.testing.assert_array_equal(kernel, other)
    scales = [value for name, value in after.items() if name.startswith("generator/")]
    scales = [value for value in scales if value.ndim == 2 and value.shape[0] == 32]
    # 1 and 0 for all latents, in the three normalizations.
    assert len(scales) == 6 and all(np.abs(scale).max() < 1e-20 for scale in scales)
    advised_once = "self_modulation True and not False: pass --set self_.*no equal\\)$"
    with pytest.raises(ValueError, match=advised_once):
        workflows.train(TINY, tmp_path / "back", data=films, start_from=tmp_path / "run")


def test_a_folder_that_is_no_run_is_refused(parent, tmp_path):
    with pytest.raises(ValueError, match="is no run to start from"):
        workflows.train(TINY, tmp_path / "run", data=parent[1], start_from=tmp_path / "none")


def test_a_run_ended_before_its_first_state_begins_with_what_it_is_given_now(
    parent, child, tmp_path
):
    begun = tmp_path / "run"
    begun.mkdir()
    for given, inherited in ((parent[0], 16), (None, 0)):
        for earlier in ({}, {"started_from": {"recipe": "default"}, "inherited": ["a" * 64]}):
            (begun / "data.json").write_text(json.dumps({"images": [], **earlier}))
            about = runs.describe_start(begun, given)
            assert len(about.get("inherited", ())) == inherited


def test_a_run_with_a_state_of_its_own_is_not_given_another(parent, child):
    with pytest.raises(ValueError, match="began without --start-from .* leave --start-from out"):
        workflows.train(
            TINY.override(epochs=2), parent[0], data=parent[1], extend=True, start_from=child[0]
        )
    assert runs.describe_start(child[0], parent[0])["started_from"]["images_seen"] == 16


def test_another_start_of_a_run_that_goes_on_is_refused(parent, child, tmp_path):
    run, films = child
    other = tmp_path / "other"
    workflows.train(TINY, other, data=write_films(tmp_path / "films", 7))
    recipe = runs.read_recipe(run)
    with pytest.raises(ValueError, match="began from a run of other films"):
        workflows.train(recipe, run, data=films, start_from=other)
    assert workflows.train(recipe, run, data=films, start_from=parent[0]).state == "complete"
    # What it began with may be gone by then: the same command goes on.
    gone = tmp_path / "gone"
    assert workflows.train(recipe, run, data=films, start_from=gone).state == "complete"


def test_what_comes_in_blends_with_the_size_that_the_other_run_learnt(tmp_path):
    films = write_films(tmp_path / "films", 0)
    grown = TINY.override(grown_from=32, growth_width=(2,), discriminator_dropout=())
    workflows.train(grown, tmp_path / "small", data=films)
    larger = grown.override(image_size=128, fade_in=4)
    with pytest.raises(ValueError, match="blend with those of 64: pass --set previous_size=32"):
        workflows.train(larger, tmp_path / "large", data=films, start_from=tmp_path / "small")
    long = larger.override(previous_size=32, fade_in=17)
    with pytest.raises(ValueError, match="ends after 16 images, before .*: pass --set fade_in=8"):
        workflows.train(long, tmp_path / "large", data=films, start_from=tmp_path / "small")


def test_no_layer_begins_in_silence_without_what_the_earlier_run_has_learnt(tmp_path):
    films = write_films(tmp_path / "films", 0)
    plain = TINY.override(
        generator_normalization="none", normalize_base=False, discriminator_normalization="none"
    )
    workflows.train(plain, tmp_path / "plain", data=films)
    for name in ("generator_normalization", "discriminator_normalization"):
        with pytest.raises(ValueError, match=f"none and not batch: pass --set {name}=none$"):
            recipe = plain.override(**{name: "batch"})
            workflows.train(recipe, tmp_path / "run", data=films, start_from=tmp_path / "plain")
