import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.data.images import from_uint8
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.training import callbacks
from keras_cxrgan.training.gan import GAN
from keras_cxrgan.training.watching import WatchCollapse, pairwise_distance

HEALTHY = {"real_score": 0.7, "fake_score_before": 0.3, "discriminator_gradient_norm": 8.0}
LOST = HEALTHY | {"real_score": 0.995, "fake_score_before": 0.005}
EXPLODED = HEALTHY | {"discriminator_gradient_norm": 2000.0}


class Scripted:
    """A GAN whose images lie as far apart as `spread` says, in grey levels."""

    def __init__(self, loss="non_saturating", seen=0):
        self.loss_name, self.spread, self.seeds = loss, 50.0, []
        self.images_seen = tf.Variable(seen)

    def generate(self, count, *, seed):
        self.seeds.append((count, seed))
        half = self.spread / 255
        return np.stack([np.full((4, 4, 1), half * (-1) ** (i % 2), np.float32) for i in range(2)])


def run(watch, ticks, logs=HEALTHY, images=3000, start=0):
    """Run ticks of the callback; return their logs."""
    kept = []
    for tick in range(start, start + ticks):
        kept.append(dict(logs, images_seen=images * (tick + 1)))
        watch.on_epoch_end(tick, kept[-1])
    return kept


def watching(model=None, **options):
    watch = WatchCollapse(**{"real_distance": 50.0, "seed": 3, **options})
    watch.set_model(model or Scripted())
    watch.on_train_begin()
    return watch


@pytest.fixture
def watch():
    return watching()


def test_pairwise_distance_of_black_grey_and_white_is_in_grey_levels():
    images = np.stack([np.full((4, 4, 1), level, np.float32) for level in (-1, 0, 1)])
    assert pairwise_distance(images) == pytest.approx((127.5 + 127.5 + 255) / 3)


def test_pairwise_distance_is_the_root_of_the_mean_square_over_pixels():
    images = np.zeros((2, 2, 2, 1), np.float32)
    images[1, 0, 0] = 1  # one pixel of four: sqrt(1 / 4)
    assert pairwise_distance(images) == pytest.approx(63.75)


def test_pairwise_distance_does_not_lose_small_differences_in_large_numbers():
    images = np.full((2, 64, 64, 1), 0.9, np.float32)
    assert pairwise_distance(np.repeat(images, 8, axis=0)) == 0
    images[1] -= 1e-4
    assert pairwise_distance(images) == pytest.approx(127.5e-4, rel=1e-2)


def test_pairwise_distance_of_bytes_in_parts_is_that_of_floats_at_once(monkeypatch):
    films = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    flat = films.reshape(5, -1).astype(float)
    pairs = [np.sqrt(np.mean((a - b) ** 2)) for i, a in enumerate(flat) for b in flat[:i]]
    assert pairwise_distance(films) == pytest.approx(np.mean(pairs), rel=1e-5)
    monkeypatch.setattr(
        "keras_cxrgan.training.watching.PIXELS_AT_ONCE", 7
    )  # which does not divide 64
    assert pairwise_distance(films) == pytest.approx(np.mean(pairs), rel=1e-5)
    assert pairwise_distance(from_uint8(films)) == pytest.approx(np.mean(pairs), rel=1e-5)


def test_pairwise_distance_needs_two_images():
    with pytest.raises(ValueError, match="2 or more, got 1"):
        pairwise_distance(np.zeros((1, 4, 4, 1), np.float32))


def test_collapse_is_warned_of_once_when_it_has_lasted(watch):
    lines = []
    watch.report = lines.append
    run(watch, 2)
    watch.model.spread = 12.0  # 0.24 of the real films' 50
    run(watch, 9, start=2)  # from 9,000 to 33,000 images
    assert lines == []
    run(watch, 5, start=11)
    assert len(lines) == 1
    assert "collapsed: at 36,000 images seen" in lines[0]
    assert "differ by 12.0 grey levels, real ones by 50.0" in lines[0]
    assert watch.warnings == lines


def test_a_few_looks_far_apart_are_not_yet_a_collapse(watch):
    watch.model.spread = 1.0
    run(watch, 4, images=50_000)
    assert watch.warnings == []
    run(watch, 1, images=50_000, start=4)
    assert len(watch.warnings) == 1


def test_a_generator_that_recovers_in_time_is_not_warned_of(watch):
    for start in (0, 8, 16):
        watch.model.spread = 1.0
        run(watch, 7, start=start)
        watch.model.spread = 13.0  # 0.26
        run(watch, 1, start=start + 7)
    assert watch.warnings == []


def test_a_discriminator_that_has_won_is_warned_of_once(watch):
    run(watch, 20, LOST)
    (line,) = watch.warnings
    assert "discriminator has won: at 30,000 images seen it gives real films 0.99" in line
    assert "generated ones 0.01" in line


def test_a_discriminator_that_wins_only_at_times_is_not_warned_of(watch):
    for start in (0, 9, 18):
        run(watch, 8, LOST, start=start)
        run(watch, 1, start=start + 8)
    assert watch.warnings == []


def test_raw_scores_of_a_critic_are_not_taken_for_probabilities():
    watch = watching(Scripted("wasserstein"))
    run(watch, 20, dict(LOST, real_score=40.0, fake_score_before=-40.0))
    assert watch.warnings == []


def test_an_explosion_of_one_tick_is_warned_of_once(watch):
    run(watch, 30)
    run(watch, 1, EXPLODED, start=30)
    run(watch, 5, start=31)
    run(watch, 1, EXPLODED, start=36)
    (line,) = watch.warnings
    assert "exploded: at 93,000 images seen" in line
    assert "gradient was 250 times as large as it used to be" in line
    assert "--set beta_2=0.99" in line


def test_large_gradients_at_the_start_and_a_few_times_the_usual_are_no_explosion(watch):
    run(watch, 10, EXPLODED)
    run(watch, 40, start=10)
    run(watch, 1, HEALTHY | {"discriminator_gradient_norm": 180.0}, start=50)
    run(watch, 1, HEALTHY | {"discriminator_gradient_norm": np.inf}, start=51)
    assert watch.warnings == []


@pytest.mark.parametrize("seen, looked", [(0, [9_000, 18_000, 24_000]), (9_000, [18_000, 24_000])])
def test_looks_are_at_the_same_images_wherever_a_run_goes_on(seen, looked):
    watch = watching(Scripted(seen=seen), latent_count=16, interval=8000, real_distance=40.0)
    logs = run(watch, 8 - seen // 3000, start=seen // 3000)
    found = [record for record in logs if "sample_distance" in record]
    assert [record["images_seen"] for record in found] == looked
    assert found[-1]["sample_distance"] == pytest.approx(50)
    assert found[-1]["sample_distance_ratio"] == pytest.approx(1.25)
    assert watch.model.seeds == [(16, 3)] * len(looked)  # the same latents


def test_a_stop_within_a_tick_changes_no_later_look():
    """Ticks end at 6,000, 12,000, ...; the run stopped at 9,000, after one look was due."""
    watch = watching(
        Scripted(seen=9000), latent_count=16, interval=8000, tick=6000, real_distance=40.0
    )
    (record,) = run(watch, 1, start=3)
    assert record["images_seen"] == 12_000 and "sample_distance" in record


def test_real_films_that_are_all_the_same_are_refused():
    with pytest.raises(ValueError, match="all the same film"):
        WatchCollapse(real_distance=0.0)


def test_a_run_is_logged_with_its_distance_and_learns_what_it_learns_unwatched(films, tmp_path):
    weights, path = [], tmp_path / "log.jsonl"
    for watched in (False, True):
        keras.utils.set_random_seed(0)
        gan = GAN(build_generator(32, latent_dim=8, width=4), build_discriminator(32, width=4))
        gan.compile(keras.optimizers.Adam(2e-4), keras.optimizers.Adam(2e-4), jit_compile=False)
        watchers = [callbacks.Clock(32, 40)]
        if watched:
            real = pairwise_distance(from_uint8(films))
            watch = WatchCollapse(real_distance=real, latent_count=8, seed=5)
            watchers += [watch, callbacks.RunLog(path)]
        batches = training_batches(films, 8)
        gan.fit(batches, epochs=2, steps_per_epoch=2, shuffle=False, verbose=0, callbacks=watchers)
        weights.append(gan.generator.get_weights())
    for plain, other in zip(*weights):
        np.testing.assert_array_equal(plain, other)
    first = callbacks.read_log(path)[0]
    assert 0 < first["sample_distance"] < 20  # a fresh generator makes grey and nothing else
    ratio = first["sample_distance"] / watch.real_distance
    assert first["sample_distance_ratio"] == pytest.approx(ratio, rel=1e-4)
