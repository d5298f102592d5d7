import errno

import keras
import numpy as np
import pytest

from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.training import state
from keras_cxrgan.training.gan import GAN
from keras_cxrgan.training.state import (
    best_weights,
    generator_weights,
    load_state,
    read_best,
    save_best,
    save_state,
    saved_states,
    state_variables,
)


def build(width=4, ema_half_life=32):
    gan = GAN(
        build_generator(32, latent_dim=8, width=width),
        # Dropout has a random counter of its own, which must be saved too.
        build_discriminator(32, width=width, dropout=(0.5, 0.0, 0.5)),
        ema_half_life=ema_half_life,
    )
    gan.compile(
        keras.optimizers.Adam(2e-4, 0.5),
        keras.optimizers.Adam(2e-4, 0.5),
        jit_compile=False,
        run_eagerly=True,
    )
    return gan


def fit(gan, films, steps):
    start = int(gan.images_seen.numpy())
    data = training_batches(films, 8, seed=1, start=start)
    gan.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)


def values(gan):
    return {name: variable.numpy() for name, variable in state_variables(gan).items()}


def test_four_steps_are_two_and_a_resume_and_two(films, tmp_path):
    keras.utils.set_random_seed(5)
    whole = build()
    fit(whole, films, 4)

    keras.utils.set_random_seed(5)
    first = build()
    fit(first, films, 2)
    save_state(first, tmp_path)

    keras.utils.set_random_seed(999)  # the rest must come from the file
    second = build()
    assert load_state(second, tmp_path) == (16, [])
    fit(second, films, 2)

    expected, resumed = values(whole), values(second)
    assert expected.keys() == resumed.keys()
    for name in expected:
        np.testing.assert_array_equal(resumed[name], expected[name], err_msg=name)


def test_state_holds_both_optimizers_moments(films, tmp_path):
    gan = build()
    fit(gan, films, 1)
    save_state(gan, tmp_path)
    with np.load(saved_states(tmp_path)[0]) as arrays:
        for owner in ("generator_optimizer", "discriminator_optimizer"):
            moments = [arrays[name] for name in arrays if name.startswith(owner + "/")]
            # iterations, learning rate, and two moments for each trainable weight
            network = getattr(gan, owner.removesuffix("_optimizer"))
            assert len(moments) == 2 + 2 * len(network.trainable_variables)
            assert sum(np.abs(moment).sum() > 0 for moment in moments) > 10


def test_damaged_newest_file_is_passed_over_and_named(films, tmp_path):
    gan = build()
    for _ in range(2):
        fit(gan, films, 1)
        save_state(gan, tmp_path)
    newest = saved_states(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    seen, notes = load_state(build(), tmp_path)
    assert seen == 8
    assert len(notes) == 1 and "000000000016.npz is damaged" in notes[0]


def test_two_newest_states_are_kept(films, tmp_path):
    gan = build()
    for seen in (8, 16, 24):
        gan.images_seen.assign(seen)
        save_state(gan, tmp_path)
    assert [int(path.stem) for path in saved_states(tmp_path)] == [24, 16]


def test_what_a_killed_process_had_begun_does_not_stay(tmp_path, monkeypatch):
    gan = build()
    with monkeypatch.context() as killed:
        killed.setattr("os.getpid", lambda: 1)
        killed.setattr("os.replace", lambda *_: None)
        killed.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        save_state(gan, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    path = save_state(gan, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_earlier_state_and_nothing_half_written(tmp_path, monkeypatch):
    gan = build()
    gan.images_seen.assign(8)
    save_state(gan, tmp_path)

    def fill(file, **arrays):
        file.write(b"half of a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", fill)
    gan.images_seen.assign(16)
    with pytest.raises(OSError, match="No space left"):
        save_state(gan, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000008.npz"]
    assert load_state(build(), tmp_path) == (8, [])


def test_no_state_is_a_fresh_start(tmp_path):
    assert load_state(build(), tmp_path / "nothing") == (0, [])


def test_state_of_other_networks_is_refused_before_anything_changes(tmp_path):
    save_state(build(width=4), tmp_path)
    other = build(width=8)
    before = values(other)
    with pytest.raises(ValueError, match="saved by other networks"):
        load_state(other, tmp_path)
    for name, value in values(other).items():
        np.testing.assert_array_equal(value, before[name])


def test_state_without_an_average_is_refused_by_a_gan_with_one(tmp_path):
    save_state(build(ema_half_life=0), tmp_path)
    with pytest.raises(ValueError, match="ema_generator"):
        load_state(build(ema_half_life=32), tmp_path)


@pytest.mark.parametrize("ema_half_life", [0, 32])
def test_generator_weights_are_the_average_where_there_is_one(films, tmp_path, ema_half_life):
    gan = build(ema_half_life=ema_half_life)
    fit(gan, films, 2)
    save_state(gan, tmp_path)
    weights, seen = generator_weights(tmp_path)
    assert seen == 16
    expected = (gan.ema_generator or gan.generator).get_weights()
    assert len(weights) == len(expected)
    for ours, theirs in zip(weights, expected):
        np.testing.assert_array_equal(ours, theirs)


def test_generator_weights_of_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no complete backup yet"):
        generator_weights(tmp_path)


RECORD = {"metric": "kid", "value": 0.1, "images_seen": 8, "evaluations": 1}


def test_best_weights_and_words_stay_together_whenever_a_process_is_killed(tmp_path, monkeypatch):
    first, second = build(), build()
    save_best(first, tmp_path, RECORD)

    def kill(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(state, "write_best", kill)  # after the weights, before the words
        save_best(second, tmp_path, RECORD | {"value": 0.05, "images_seen": 16})
    weights, record = best_weights(tmp_path)
    assert (record["value"], record["images_seen"]) == (0.05, 16)
    for ours, theirs in zip(weights, second.ema_generator.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_number_of_evaluations_grows_without_new_weights(tmp_path):
    save_best(build(), tmp_path, RECORD)
    before = (tmp_path / "best.npz").read_bytes()
    state.write_best(tmp_path, RECORD | {"evaluations": 9})
    assert read_best(tmp_path)["evaluations"] == 9
    assert (tmp_path / "best.npz").read_bytes() == before


def test_a_best_checkpoint_that_is_missing_or_damaged_says_what_to_do(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    with pytest.raises(ValueError, match="run keeps no best checkpoint.*--evaluate-every"):
        best_weights(folder)
    save_best(build(), folder, RECORD)
    (folder / "best.npz").write_bytes((folder / "best.npz").read_bytes()[:1000])
    with pytest.raises(ValueError, match="best.npz is damaged.*leave --best out") as error:
        best_weights(folder)
    assert "\n" not in str(error.value)
    assert read_best(folder) is None  # so that a run that goes on writes a new one


def test_a_full_disk_leaves_the_earlier_best(tmp_path, monkeypatch):
    save_best(build(), tmp_path, RECORD)

    def fill(file, **arrays):
        file.write(b"half of a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", fill)
    with pytest.raises(OSError, match="No space left"):
        save_best(build(), tmp_path, RECORD | {"value": 0.05})
    assert read_best(tmp_path) == RECORD
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.json", "best.npz"]
