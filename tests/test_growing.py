"""A run with stages: each grows from the last, resumes, and is refused when it cannot fit."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan import runs, workflows
from keras_cxrgan.data.images import decode, write_png
from keras_cxrgan.recipe import RECIPES, Recipe
from keras_cxrgan.stages import by_stage
from keras_cxrgan.training import runtime, state
from keras_cxrgan.workflows import growing, planning, running, sides

TINY = Recipe().override(
    image_size=128,
    stages=(32, 64, 128),
    grown_from=32,
    growth_width=(2,),
    width=2,
    latent_dim=4,
    batch_size=4,
    stage_epochs=(1, 2, 1),
    stage_accumulations=(1, 2, 1),
    fade_in=8,
    native_ramp=10,
    convention="keras",
    upsampling="transpose",
    generator_kernel_size=4,
)


@pytest.fixture(scope="module", autouse=True)
def known_speed():
    """Estimates of time decide nothing, and measuring takes seconds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(planning, "measure_speed", lambda stages, strategy: 1e9)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight films of 100x90 pixels."""
    folder = tmp_path_factory.mktemp("films")
    random = np.random.default_rng(3)
    for index in range(8):
        film = random.integers(0, 256, (10, 9)).repeat(10, 0).repeat(10, 1)
        write_png(folder / f"{index}.png", film.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def grown(folder, tmp_path_factory):
    """(run, result, what was told) of a finished run; tests do not change it."""
    run, told = tmp_path_factory.mktemp("runs") / "run", []
    result = workflows.train(
        TINY,
        run,
        data=str(folder),
        backup_seconds=0,
        report=lambda stage, done, total, note="": told.append((stage, note)),
    )
    return run, result, told


@pytest.fixture
def run(grown, tmp_path):
    """A copy of the finished run that a test may change."""
    return shutil.copytree(grown[0], tmp_path / "run")


def arrays(run, size):
    path = max((runs.stage_folder(run, size) / "backup").glob("*.npz"))
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_each_stage_is_a_run_of_its_own(grown):
    run, result, _ = grown
    assert sorted(path.name for path in (run / "stages").iterdir()) == ["0032", "0064", "0128"]
    for size, stage, seen in zip((32, 64, 128), by_stage(TINY), (8, 16, 8)):
        folder = runs.stage_folder(run, size)
        assert Recipe.load(str(folder / "recipe.json")) == stage
        card = json.loads((folder / "export" / "card.json").read_text())
        assert card["images_seen"] == seen
        assert card["images"]["shape"] == [size, size, 1]
    assert Recipe.load(str(run / "recipe.json")) == TINY
    assert (result.state, result.images, result.images_seen) == ("finished", 8, 8)
    assert result.run == str(run / "stages" / "0128")


def test_costs_are_told_before_the_first_step_and_measured_after(grown):
    run, result, told = grown
    first = next(index for index, (stage, _) in enumerate(told) if stage.startswith("training"))
    table = "\n".join(note for _, note in told[:first])
    for row in result.stages:
        assert f"{row['generator_parameters']:,}" in table
        assert row["seconds_per_image"] > 0 and row["memory"] > 0
        assert row["measured_seconds"] > 0 and row["measured_seconds_per_image"] > 0
    assert "8 of 8 films looked at are smaller than 128 pixels (most often 90)" in table
    assert json.loads((run / "stages.json").read_text()) == list(result.stages)
    assert {stage for stage, _ in told} >= {"training 32", "training 64", "training 128"}


def test_a_stage_starts_from_what_the_one_before_has_learnt(grown, tmp_path, folder, monkeypatch):
    run, begun = grown[0], {}
    monkeypatch.setattr(
        workflows.running, "_fit", lambda gan, *_: begun.update(gan=gan) or grown[1]
    )
    stage = by_stage(TINY)[1]
    workflows.train(stage, tmp_path / "next", data=str(folder), start_from=run / "stages" / "0032")
    before = arrays(run, 32)
    gan = begun["gan"]
    dense = gan.generator.get_layer("base").get_weights()
    np.testing.assert_array_equal(dense[0], before["generator/000"])
    logits = gan.discriminator.get_layer("logits").get_weights()[0]
    assert any(np.array_equal(logits, value) for value in before.values())
    for ours, theirs in zip(gan.ema_generator.get_weights(), gan.generator.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    assert float(gan.generator_optimizer.iterations) == 0


def test_what_has_come_in_does_not_fade_in_again(grown, tmp_path, folder):
    last = grown[0] / "stages" / "0128"
    stage = Recipe.load(str(last / "recipe.json"))
    assert stage.fade_in
    with pytest.raises(ValueError, match="128 pixels as this run has.*: pass --set fade_in=0"):
        workflows.train(stage, tmp_path / "again", data=str(folder), start_from=last)
    assert not (tmp_path / "again" / "recipe.json").exists()


def test_films_that_stay_enlarged_to_the_end_of_a_stage_are_named():
    stages = by_stage(RECIPES["incremental"])
    assert stages[1].native_ramp == 690 and stages[1].epochs == 20
    assert growing._unfinished_ramps(stages, 35) == []
    (line,) = growing._unfinished_ramps(stages, 20)
    assert "128, 256, 512, 1024, 2048 pixels: 400 images" in line and "native_ramp=200" in line


def begin(recipe, first, films, out, monkeypatch):
    """Return the GAN that a recipe's second stage begins with after this run of its first."""
    begun = {}
    with monkeypatch.context() as patch:
        patch.setattr(running, "_fit", lambda gan, *_: begun.update(gan=gan))
        workflows.train(by_stage(recipe)[1], out / "second", data=films, start_from=first)
    return begun["gan"]


def former_generator(recipe, first):
    generator, _ = workflows.assembly.build_networks(by_stage(recipe)[0])
    found, _ = state.read_newest(first / "backup")
    generator.set_weights(state.weights_of("generator", found))
    return generator


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_a_stage_can_start_from_the_former_images(
    distribution, grown, folder, tmp_path, monkeypatch
):
    recipe = TINY.override(
        fade_in=0, growth_start="former_image", latent_distribution=distribution, growth_width=(4,)
    )
    first = grown[0] / "stages" / "0032"
    if distribution == "uniform":
        first = tmp_path / "first"
        workflows.train(by_stage(recipe)[0], first, data=str(folder))
    gan = begin(recipe, first, str(folder), tmp_path, monkeypatch)
    latents = np.random.default_rng(5).normal(size=(4, 4)).astype("float32")
    former = np.asarray(former_generator(recipe, first)(latents))
    enlarged = former.repeat(2, axis=1).repeat(2, axis=2)
    for network in (gan.generator, gan.ema_generator):
        np.testing.assert_allclose(network(latents), enlarged, atol=1 / 255)
    assert former.std() > 1e-3
    # Moments of real films, not the initial ones.
    normalization = gan.discriminator.get_layer("normalization_16")
    assert (normalization.moving_variance.numpy() != 1).all()


def test_a_random_start_is_what_it_always_was(grown, folder, tmp_path, monkeypatch):
    recipe = TINY.override(fade_in=0)
    gan = begin(recipe, grown[0] / "stages" / "0032", str(folder), tmp_path, monkeypatch)
    fresh = workflows.build_gan(by_stage(recipe)[1], runtime.start("cpu", seed=recipe.seed))
    for owner in ("generator", "discriminator"):
        ours, untouched = getattr(gan, owner), getattr(fresh, owner)
        appended = ["image_convolution"]
        appended += {
            "generator": ["convolution_32", "normalization_32"],
            "discriminator": ["convolution_16", "normalization_16"],
        }[owner]
        for name in appended:
            weights = zip(
                ours.get_layer(name).get_weights(), untouched.get_layer(name).get_weights()
            )
            for begun, drawn in weights:
                np.testing.assert_array_equal(begun, drawn)


def test_resumed_inside_a_stage_and_between_stages_it_ends_the_same(run, grown, folder):
    shutil.rmtree(run / "stages" / "0128")
    newest = max((run / "stages" / "0064" / "backup").glob("*.npz"))
    assert newest.stem == "000000000016"
    newest.unlink()
    result = workflows.train(TINY, run, data=str(folder), backup_seconds=0)
    assert result.state == "finished"
    for size in (64, 128):
        ours, theirs = arrays(run, size), arrays(grown[0], size)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()] == []


def test_a_finished_run_is_complete(run, grown, folder):
    result = workflows.train(TINY, run, data=str(folder))
    assert result.state == "complete"
    assert result.stages == grown[1].stages


def test_another_recipe_in_the_same_directory_is_refused(run, folder):
    with pytest.raises(ValueError, match="another recipe:\n  native_ramp: 10 in the run, 9 now"):
        workflows.train(TINY.override(native_ramp=9), run, data=str(folder))


def test_the_directory_stands_for_its_newest_stage(run, tmp_path):
    workflows.generate(run, tmp_path / "out", 2)
    assert decode((tmp_path / "out" / "000001.png").read_bytes()).shape == (128, 128)
    shutil.rmtree(run / "stages" / "0128")
    workflows.generate(run, tmp_path / "smaller", 1)
    assert decode((tmp_path / "smaller" / "000000.png").read_bytes()).shape == (64, 64)
    assert sides.recipe_of(run)["image_size"] == 64


def test_an_exported_grown_generator_makes_the_runs_images(run, tmp_path):
    out = workflows.export(run, tmp_path / "export")
    workflows.generate(run, tmp_path / "run_images", 2)
    workflows.generate(out, tmp_path / "export_images", 2)
    for name in ("000000.png", "000001.png"):
        ours, theirs = (tmp_path / place / name for place in ("run_images", "export_images"))
        np.testing.assert_array_equal(decode(ours.read_bytes()), decode(theirs.read_bytes()))
    sample = tf.saved_model.load(str(out / "saved_model")).signatures["sample"]
    images = sample(n=tf.constant(2), seed=tf.constant(0))["images"].numpy()
    assert images.shape == (2, 128, 128, 1) and images.dtype == np.uint8
    model = keras.models.load_model(out / "generator.keras")
    assert model.get_layer("fade_in").alpha.numpy() == 1  # all in, at the end of the stage


def test_a_stage_that_cannot_fit_is_refused_before_the_first_step(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(growing.running, "train", None)
    stages = by_stage(TINY)
    largest = planning.estimate_memory(stages[2], 8)
    with pytest.raises(ValueError, match="stage 128 needs about") as error:
        workflows.grow(TINY, tmp_path / "run", data=str(folder), memory_limit=int(largest) - 1)
    assert "--set stage_accumulations=1,2,2" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="stage 32 needs about.*single images do not fit either"):
        workflows.grow(TINY, tmp_path / "run", data=str(folder), memory_limit=10**6)
    assert not (tmp_path / "run").exists()


def test_memory_falls_with_accumulation_and_precision():
    stage = by_stage(RECIPES["incremental"])[-1]
    whole = planning.estimate_memory(stage, 40)
    assert 5.0 < whole / 2**30 < 7.5  # 5.0 GiB were measured
    halves = planning.estimate_memory(stage.override(accumulation=2), 40)
    films = planning.PROCESS + 2 * 40 * 2048**2
    assert halves - films == pytest.approx((whole - films) / 2)
    assert planning.estimate_memory(stage.override(precision="mixed_bfloat16"), 40) < whole


def test_time_is_proportional_to_the_multiplications_of_a_step():
    plans = planning.plan_stages(by_stage(TINY), 10, speed=1e6)
    half = planning.plan_stages(by_stage(TINY), 10, speed=2e6)
    for ours, theirs in zip(plans, half):
        assert ours.seconds_per_image == pytest.approx(2 * theirs.seconds_per_image)
        assert ours.seconds == pytest.approx(ours.seconds_per_image * ours.epochs * 10)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"fade_in": 9}, {}, "stage 128 ends after 8 images .*--set fade_in=4 or less"),
        ({"batch_size": 12}, {}, "8 images are fewer than one batch of 12"),
        ({}, {"extend": True}, "--extend does not apply to a recipe with stages"),
        ({}, {"devices": "multiworker"}, "--devices multiworker does not apply"),
        ({}, {"data": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_grown_is_refused_and_leaves_nothing(
    changes, options, message, folder, tmp_path
):
    options = {"data": str(folder), **options}
    with pytest.raises(ValueError, match=message):
        workflows.train(TINY.override(**changes), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_bad_films_leave_nothing_behind(folder, tmp_path):
    films = shutil.copytree(folder, tmp_path / "films")
    (films / "bad.png").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 9 images cannot be used"):
        workflows.train(TINY, tmp_path / "run", data=str(films))
    assert not (tmp_path / "run").exists()


def test_what_a_later_stage_cannot_do_is_said_before_the_first(folder, tmp_path):
    with pytest.raises(ValueError, match="accumulation=2 works on one device, and there are 2"):
        workflows.train(TINY, tmp_path / "run", data=str(folder), devices="cpu:2")
    assert not (tmp_path / "run").exists()


def test_a_signal_in_the_last_moments_of_a_stage_ends_the_run(folder, tmp_path, monkeypatch):
    real, trained = running.train, []

    def train(stage, *args, **options):
        result = real(stage, *args, **options)
        trained.append(stage.image_size)
        return dataclasses.replace(result, interrupted=True)  # too late to be stopped by it

    monkeypatch.setattr(running, "train", train)
    result = growing.grow(TINY, tmp_path / "run", data=str(folder))
    assert (trained, result.state) == ([32], "stopped")


def test_the_record_of_stages_outlives_a_stop_and_a_failure(folder, tmp_path, monkeypatch):
    ended = {"images": 8, "steps": 2, "epochs": 1.0, "images_per_second": 4.0, "metrics": {}}

    def call(*states):
        """Run `grow`; the stages end so in their order, or raise."""
        states = iter(states)

        def train(stage, folder, **options):
            state = next(states)
            if isinstance(state, BaseException):
                raise state
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "recipe.json").write_text(stage.to_json())
            return running.RunResult(
                str(folder), state, 0, images_seen=8, seconds=2.0, export=None,
                interrupted=state == "stopped", **ended,
            )  # fmt: skip

        monkeypatch.setattr(running, "train", train)
        try:
            growing.grow(TINY, tmp_path / "run", data=str(folder))
        except (KeyboardInterrupt, ValueError):
            pass
        rows = json.loads((tmp_path / "run" / "stages.json").read_text())
        return {row["image_size"]: row["state"] for row in rows}

    assert call("stopped") == {32: "stopped"}
    # It ends, and its export fails: the next call finds it complete.
    assert call(ValueError("the disk is full")) == {32: "stopped"}
    everything = {32: "finished", 64: "finished", 128: "finished"}
    assert call("complete", "finished", "finished") == everything
    assert call("complete", KeyboardInterrupt()) == everything


def test_accumulation_over_replicas_is_refused(folder):
    strategy = runtime.start("cpu:2")
    with pytest.raises(ValueError, match="accumulation=2 works on one device, and there are 2"):
        workflows.build_gan(by_stage(TINY)[1], strategy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fade_in": 5}, "needs fade_in=0"),
        ({"growth_width": (4, 1)}, r"needs growth_width of 2 or more.*got \(4, 1\)"),
        ({"channels": 3}, "needs growth_width of 6 or more"),
        ({"generator_normalization": "instance"}, "needs generator_normalization=batch or none"),
        ({"discriminator_normalization_affine": False}, "needs discriminator_normalization_affine"),
        ({"discriminator_kernel_size": 1}, "needs kernels of 2 pixels or more"),
        ({"residual": True}, "needs residual=false"),
        ({"discriminator_spectral": True}, "needs discriminator_spectral=false"),
    ],
)
def test_a_start_that_cannot_be_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=f"growth_start=former_image {message}") as error:
        TINY.override(**{"fade_in": 0, "growth_start": "former_image", **changes})
    assert "\n" not in str(error.value)


def test_ways_around_blocks_and_fading_in_are_refused_before_the_first_stage():
    with pytest.raises(ValueError, match="fade_in has no place in networks with ways around"):
        TINY.override(residual=True, fade_in=5)


def test_a_start_is_of_networks_that_grow():
    with pytest.raises(ValueError, match="growth_start is of networks that grow"):
        Recipe().override(growth_start="former_image")
    with pytest.raises(ValueError, match="growth_start must be one of random, former_image"):
        TINY.override(growth_start="warm")
    assert RECIPES["incremental"].growth_start == "random"
