import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.training import losses

REAL = tf.constant([[2.0], [-1.0]])
FAKE = tf.constant([[0.5], [-3.0]])

# By hand from the papers' formulas, with s(x) = 1 / (1 + exp(-x)):
# -log s(2) = 0.126928, -log s(-1) = 1.313262, -log(1 - s(0.5)) = 0.974077,
# -log(1 - s(-3)) = 0.048587, -log s(0.5) = 0.474077, -log s(-3) = 3.048587.
EXPECTED = {
    "non_saturating": (0.720095 + 0.511332, 1.761332),
    "minimax": (0.720095 + 0.511332, -0.511332),
    "wasserstein": (-1.25 - 0.5, 1.25),
    "hinge": ((0 + 2) / 2 + (1.5 + 0) / 2, 1.25),
    "least_squares": (0.5 * (1 + 4) / 2 + 0.5 * (0.25 + 9) / 2, 0.5 * (0.25 + 16) / 2),
}


@pytest.mark.parametrize("name", losses.LOSSES)
def test_losses_have_the_values_of_their_formulas(name):
    discriminator_loss, generator_loss = losses.LOSSES[name]
    expected_discriminator, expected_generator = EXPECTED[name]
    assert float(discriminator_loss(REAL, FAKE)) == pytest.approx(expected_discriminator, abs=2e-6)
    assert float(generator_loss(FAKE)) == pytest.approx(expected_generator, abs=2e-6)


def test_label_smoothing_is_one_sided():
    # real label 0.9: 0.9 * -log s(x) + 0.1 * -log(1 - s(x)); the fake term stays.
    # -log(1 - s(2)) = 2.126928, -log(1 - s(-1)) = 0.313262
    real = np.mean([0.9 * 0.126928 + 0.1 * 2.126928, 0.9 * 1.313262 + 0.1 * 0.313262])
    loss = losses.cross_entropy_discriminator_loss(REAL, FAKE, label_smoothing=0.1)
    assert float(loss) == pytest.approx(real + 0.511332, abs=2e-6)


def test_cross_entropy_is_finite_for_a_discriminator_that_is_sure():
    sure = tf.constant([[1000.0]])
    assert float(losses.cross_entropy_discriminator_loss(-sure, sure)) == pytest.approx(2000)
    assert float(losses.non_saturating_generator_loss(-sure)) == pytest.approx(1000)


def linear(weights):
    return lambda images: tf.reduce_sum(images * weights, axis=[1, 2, 3])[:, None]


def test_gradient_penalty_of_a_linear_critic_is_its_closed_form():
    weights = tf.random.stateless_normal([4, 4, 1], [0, 1])
    norm = float(tf.norm(weights))
    real, fake = tf.zeros([3, 4, 4, 1]), tf.ones([3, 4, 4, 1])
    mixing = tf.constant([0.1, 0.5, 0.9])[:, None, None, None]
    penalty, mean_norm = losses.gradient_penalty(linear(weights), real, fake, mixing)
    assert float(penalty) == pytest.approx((norm - 1) ** 2, rel=1e-5)
    assert float(mean_norm) == pytest.approx(norm, rel=1e-5)


def test_gradient_penalty_is_taken_on_the_line_between_each_pair():
    # For D(x) = |x|^2 / 2 the gradient at x^ is x^ itself, so the norms tell where x^ lies.
    def critic(images):
        return 0.5 * tf.reduce_sum(tf.square(images), axis=[1, 2, 3])

    real, fake = tf.zeros([2, 2, 2, 1]), tf.fill([2, 2, 2, 1], 2.0)  # |fake| = 4
    mixing = tf.constant([0.25, 0.75])[:, None, None, None]
    penalty, mean_norm = losses.gradient_penalty(critic, real, fake, mixing)
    assert float(mean_norm) == pytest.approx((1 + 3) / 2, rel=1e-5)
    assert float(penalty) == pytest.approx((0 + 4) / 2, rel=1e-5)


def test_penalties_are_per_image_and_not_of_the_batch():
    weights = tf.ones([4, 4, 1]) / 4  # norm 1 for each image; sqrt(8) for a batch of eight
    images = tf.random.stateless_normal([8, 4, 4, 1], [0, 2])
    penalty, _ = losses.gradient_penalty(linear(weights), images, -images, tf.zeros([8, 1, 1, 1]))
    assert float(penalty) == pytest.approx(0, abs=1e-6)


def test_gradient_penalty_of_a_constant_critic_has_finite_gradients():
    scale = tf.Variable(0.0)
    images = tf.ones([2, 4, 4, 1])
    with tf.GradientTape() as tape:
        penalty, _ = losses.gradient_penalty(
            lambda x: scale * tf.reduce_sum(x, axis=[1, 2, 3]),
            images,
            images,
            tf.zeros([2, 1, 1, 1]),
        )
    assert float(penalty) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(float(tape.gradient(penalty, scale)))


def test_r1_of_a_linear_discriminator_is_half_its_squared_norm():
    weights = tf.random.stateless_normal([4, 4, 1], [0, 3])
    images = tf.random.stateless_normal([5, 4, 4, 1], [0, 4])
    penalty, mean_norm = losses.r1_penalty(linear(weights), images)
    assert float(penalty) == pytest.approx(0.5 * float(tf.norm(weights)) ** 2, rel=1e-5)
    assert float(mean_norm) == pytest.approx(float(tf.norm(weights)), rel=1e-5)
