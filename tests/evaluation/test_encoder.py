import hashlib

import keras
import numpy as np
import pytest

from keras_cxrgan.data.phantom import phantoms
from keras_cxrgan.evaluation import encoder
from keras_cxrgan.evaluation.degradations import DEGRADATIONS
from keras_cxrgan.evaluation.frechet import frechet


@pytest.fixture(scope="module")
def network():
    return encoder.load_encoder()[0]


@pytest.fixture(scope="module")
def extract(network):
    return lambda images: network.predict_on_batch(encoder.prepare_for_encoder(images))


def test_the_shipped_weights_are_small_and_those_of_the_card():
    _, digest = encoder.load_encoder()
    assert digest == encoder.card()["sha256"]
    assert digest == hashlib.sha256(encoder.WEIGHTS.read_bytes()).hexdigest()
    assert encoder.WEIGHTS.stat().st_size <= 3_000_000


def test_the_card_says_what_a_reader_must_know(network):
    card = encoder.card()
    assert card["dims"] == network.output_shape[-1]
    assert card["parameters"] == network.count_params()
    assert card["trained_on"]["films"] > card["trained_on"]["patients"] > 0
    low, high = card["linear_probe"]["interval_95"]
    assert low < card["linear_probe"]["accuracy"] < high
    assert card["limits"]


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    damaged = tmp_path / "cxr_encoder.npz"
    damaged.write_bytes(encoder.WEIGHTS.read_bytes()[:-1] + b"!")
    monkeypatch.setattr(encoder, "WEIGHTS", damaged)
    with pytest.raises(ValueError, match="is damaged"):
        encoder.load_encoder()


def test_weights_survive_saving_and_reading(network, tmp_path):
    digest = encoder.save_encoder(network, tmp_path / "again.npz")
    assert digest == hashlib.sha256((tmp_path / "again.npz").read_bytes()).hexdigest()
    again = encoder.read_encoder(tmp_path / "again.npz")
    for one, other in zip(network.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_features_of_a_phantom_are_the_recorded_ones(extract):
    features = extract(phantoms(2, 64, seed=11)[0])
    assert features.dtype == np.float32
    expected = [
        [-4.2665887, 1.4582047, 2.3578992, 0.6841784, -0.3341468],
        [-3.0744850, 2.3604126, 1.3312371, -0.0927306, 0.8534387],
    ]
    np.testing.assert_allclose(features[:, [0, 1, 2, 50, 100]], expected, rtol=1e-4, atol=1e-5)


def test_a_run_in_half_precision_does_not_change_the_features(extract):
    films = phantoms(2, 64, seed=1)[0]
    keras.config.set_dtype_policy("mixed_bfloat16")
    network, _ = encoder.load_encoder()
    features = network.predict_on_batch(encoder.prepare_for_encoder(films))
    np.testing.assert_allclose(features, extract(films), rtol=1e-5, atol=1e-6)


def test_features_do_not_depend_on_the_batch(extract):
    films = phantoms(9, 64, seed=1)[0]
    together = extract(films)
    assert np.isfinite(together).all()
    apart = np.concatenate([extract(films[:1]), extract(films[1:3]), extract(films[3:])])
    np.testing.assert_allclose(apart, together, atol=1e-5 * np.abs(together).max())


@pytest.fixture(scope="module")
def halves(extract):
    """Features of 60 phantoms, 60 other phantoms, and the distance between the two."""
    films = phantoms(120, 64, seed=5)[0]
    reference, others = extract(films[:60]), films[60:]
    return reference, others, frechet(reference, extract(others))


@pytest.mark.parametrize("name", ["blur", "noise", "checkerboard"])
def test_frechet_orders_clean_before_mild_before_strong(extract, halves, name):
    reference, others, clean = halves
    mild, strong = (
        frechet(reference, extract(DEGRADATIONS[name](others, severity, seed=0)))
        for severity in (0.25, 1.0)
    )
    assert clean < mild < strong


@pytest.mark.parametrize("size", [64, 128, 256])
def test_prepared_films_have_one_size_and_keep_their_levels(size):
    levels = np.array([0, 128, 255], np.uint8)
    prepared = encoder.prepare_for_encoder(levels[:, None, None].repeat(size, 1).repeat(size, 2))
    assert prepared.shape == (3, encoder.IMAGE_SIZE, encoder.IMAGE_SIZE, 1)
    assert prepared.dtype == np.float32
    np.testing.assert_allclose(prepared[:, 5, 7, 0], [-1, 128 / 127.5 - 1, 1], atol=1e-6)


def test_shrinking_averages_areas():
    size = encoder.IMAGE_SIZE
    image = np.zeros((1, 2 * size, 2 * size), np.uint8)
    image[0, 0, 0] = 255  # a quarter of the first area
    prepared = encoder.prepare_for_encoder(image)
    assert prepared[0, 0, 0, 0] == pytest.approx(-1 + 2 / 4)
    assert (prepared[0].ravel()[1:] == -1).all()


def test_a_checkerboard_of_single_pixels_is_lost_at_256_and_seen_at_64():
    # The documented limit: if this ever changes, so must the card.
    def board(size):
        rows, columns = np.indices((size, size))
        return np.where((rows + columns) % 2, 120, 80).astype(np.uint8)[None]

    assert np.ptp(encoder.prepare_for_encoder(board(256))) == 0
    assert np.ptp(encoder.prepare_for_encoder(board(64))) > 0.1


def test_an_axis_that_shrinks_is_averaged_while_the_other_grows():
    size = encoder.IMAGE_SIZE
    stripes = np.tile(np.array([0, 255], np.uint8), (64, size))[None]  # (1, 64, 2 * size)
    np.testing.assert_allclose(encoder.prepare_for_encoder(stripes), 0, atol=1e-6)


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8)), np.zeros((8, 8), np.uint8)])
def test_images_that_are_no_uint8_stack_are_refused(images):
    with pytest.raises(ValueError, match="uint8 images"):
        encoder.prepare_for_encoder(images)
