from pathlib import Path

import keras
import numpy as np
import pytest

from keras_cxrgan.evaluation import inception
from keras_cxrgan.evaluation.inception import SHAPES, build_inception, load_state_dict
from keras_cxrgan.evaluation.resize import prepare_for_inception

# What pytorch-fid (torch 2, CPU) gives for the first images of `golden_images` with the weights
# of `random_state_dict()`: features by "<height>x<width>_<tap>".
GOLDEN = np.load(Path(__file__).parent / "data" / "pytorch_fid_features.npz")
SIZES = ("64x64", "128x128", "320x400")
CONVOLUTIONS = [key.removesuffix(".conv.weight") for key in SHAPES if key.endswith("conv.weight")]


@pytest.fixture(scope="module")
def state():
    return inception.random_state_dict()


@pytest.fixture(scope="module")
def golden_images():
    random = np.random.RandomState(1)
    images = {}
    for size in SIZES:
        height, width = map(int, size.split("x"))
        images[size] = random.randint(0, 256, (2, height, width, 3)).astype(np.uint8)
    return images


@pytest.fixture(scope="module")
def features(state, golden_images):
    """Size -> tap -> features of the golden images, all from one network of all taps."""
    model = build_inception(inception.TAPS)
    load_state_dict(model, state)
    results = {}
    for size, images in golden_images.items():
        images = images[: len(GOLDEN[f"{size}_64"])]
        outputs = model(prepare_for_inception(images))
        results[size] = dict(zip(inception.TAPS, map(np.asarray, outputs), strict=True))
    return results


@pytest.fixture(scope="module")
def shallow(state):
    model = build_inception((64,))
    load_state_dict(model, state)
    return model


@pytest.fixture(scope="module")
def noise():
    return prepare_for_inception(np.random.RandomState(5).randint(0, 256, (32, 64, 64), np.uint8))


def relative_error(found, expected):
    difference = found.astype(np.float64) - expected
    return max(
        (np.linalg.norm(difference, order, axis=1) / np.linalg.norm(expected, order, axis=1)).max()
        for order in (2, np.inf)
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tap", [64, 192, 768, 2048, "logits"])
def test_features_are_those_of_pytorch_fid(features, size, tap):
    assert relative_error(features[size][tap], GOLDEN[f"{size}_{tap}"]) <= 1e-5


def test_an_average_pool_in_the_last_block_spoils_only_the_last_192_features(
    features, state, golden_images, monkeypatch
):
    average = [
        inception._block_8("Mixed_7c.", "average")
        if getattr(step, "prefix", None) == "Mixed_7c."
        else step
        for step in inception.NETWORK
    ]
    assert sum(a != b for a, b in zip(average, inception.NETWORK, strict=True)) == 1
    monkeypatch.setattr(inception, "NETWORK", average)
    model = build_inception((768, 2048))
    load_state_dict(model, state)
    mixed_6, mixed_7 = map(np.asarray, model(prepare_for_inception(golden_images["64x64"])))
    right = features["64x64"]
    assert relative_error(mixed_6, right[768]) <= 1e-6
    assert relative_error(mixed_7[:, :1856], right[2048][:, :1856]) <= 1e-6
    assert relative_error(mixed_7[:, 1856:], right[2048][:, 1856:]) > 0.1


def test_the_weights_are_those_of_the_published_file():
    assert len(CONVOLUTIONS) == 94
    assert len(SHAPES) == 94 * 5 + 2 == 472
    # The file of 95,628,359 bytes holds this many float32, and the names.
    assert sum(int(np.prod(shape)) for shape in SHAPES.values()) == 23_885_392
    assert SHAPES["Mixed_6c.branch7x7dbl_2.conv.weight"] == (160, 160, 7, 1)
    assert SHAPES["Mixed_7b.branch3x3dbl_3a.conv.weight"] == (384, 384, 1, 3)
    assert SHAPES["Mixed_7a.branch7x7x3_4.bn.running_var"] == (192,)


def test_filling_layers_in_the_order_keras_lists_them_would_be_wrong(state, golden_images):
    # The usual way to convert these weights: zip(model.layers, the file), where shapes allow it.
    model = build_inception((768,))
    listed = [layer.name for layer in model.layers if layer.weights]
    stored = [name for name in CONVOLUTIONS if name in listed]
    assert sorted(listed) == sorted(stored) and listed != stored
    zipped = dict(state)
    for target, source in zip(listed, stored, strict=True):
        keys = [key.removeprefix(target) for key in SHAPES if key.startswith(f"{target}.")]
        if all(SHAPES[target + key] == SHAPES[source + key] for key in keys):
            zipped |= {target + key: state[source + key] for key in keys}
    load_state_dict(model, zipped)
    found = np.asarray(model(prepare_for_inception(golden_images["64x64"])))
    assert relative_error(found, GOLDEN["64x64_768"]) > 0.1


def test_folding_equals_convolution_then_batch_normalization(shallow, state, noise):
    # Also for gammas that are negative or zero, which a square root of them would not survive.
    random = np.random.default_rng(3)
    signed = dict(state)
    for name in CONVOLUTIONS[:3]:
        gamma = random.uniform(-1.5, 1.5, SHAPES[f"{name}.bn.weight"]).astype(np.float32)
        gamma[::5] = 0
        signed[f"{name}.bn.weight"] = gamma
    try:
        load_state_dict(shallow, signed)
        folded = np.asarray(shallow(noise[:4]))
    finally:
        load_state_dict(shallow, state)
    maps = noise[:4]
    for name, strides, padding in zip(CONVOLUTIONS, (2, 1, 1), ("valid", "valid", "same")):
        kernel = signed[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
        maps = np.asarray(keras.ops.conv(maps, kernel, strides, padding))
        gamma, beta, mean, variance = (
            signed[f"{name}.bn.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        maps = np.maximum((maps - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
    pooled = keras.ops.max_pool(maps, 3, 2)
    assert relative_error(folded, np.mean(pooled, axis=(1, 2))) <= 1e-5


def test_weights_that_are_not_exactly_right_are_refused_even_if_the_network_is_cut(shallow, state):
    missing = {key: value for key, value in state.items() if key != "fc.bias"}
    with pytest.raises(ValueError, match=r"1 missing: fc.bias\)$"):
        load_state_dict(shallow, missing)
    with pytest.raises(ValueError, match="1 extra: AuxLogits.fc.weight"):
        load_state_dict(shallow, state | {"AuxLogits.fc.weight": state["fc.bias"]})
    with pytest.raises(ValueError, match=r"1 misshaped: fc.bias \(1000,\) instead of \(1008,\)"):
        load_state_dict(shallow, state | {"fc.bias": state["fc.bias"][:1000]})
    keys = list(state)
    shuffled = dict(zip(keys, (state[key] for key in keys[1:] + keys[:1]), strict=True))
    with pytest.raises(ValueError, match="misshaped: Conv2d_1a_3x3.conv.weight"):
        load_state_dict(shallow, shuffled)


def test_weights_are_matched_by_name_and_not_by_order(shallow, state, noise):
    expected = np.asarray(shallow(noise[:2]))
    counters = {f"{name}.bn.num_batches_tracked": np.array(0) for name in CONVOLUTIONS}
    load_state_dict(shallow, counters | dict(reversed(state.items())))
    assert relative_error(np.asarray(shallow(noise[:2])), expected) <= 1e-6


def test_the_network_is_cut_at_the_deepest_tap(shallow):
    names = [layer.name for layer in shallow.layers if layer.weights]
    assert names == ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"]
    model = build_inception((192, 64))
    assert [layer.name for layer in model.layers if layer.weights] == [
        *names, "Conv2d_3b_1x1", "Conv2d_4a_3x3",
    ]  # fmt: skip
    assert [output.shape[1] for output in model.outputs] == [192, 64]


def test_features_do_not_depend_on_the_batch(shallow, noise):
    whole = np.asarray(shallow(noise))
    for size in (1, 7):
        batches = [shallow(noise[start : start + size]) for start in range(0, 32, size)]
        np.testing.assert_allclose(np.concatenate(batches), whole, rtol=0, atol=1e-5)


def test_training_mode_cannot_change_a_feature(shallow, noise):
    # Batch normalization left in training mode has doubled published scores.
    training, inference = (np.asarray(shallow(noise[:4], training=on)) for on in (True, False))
    assert relative_error(training, inference) <= 1e-6


def test_features_stay_float32_under_a_policy_of_half_precision(shallow, state, noise):
    keras.config.set_dtype_policy("mixed_float16")
    model = build_inception((64,))
    load_state_dict(model, state)
    found = np.asarray(model(noise[:2]))
    assert found.dtype == np.float32
    assert relative_error(found, np.asarray(shallow(noise[:2]))) <= 1e-6


def test_unbiased_logits_leave_out_the_bias_alone(features, state):
    for taps in features.values():
        difference = taps["logits"] - taps["logits_unbiased"]
        np.testing.assert_allclose(
            difference, np.tile(state["fc.bias"], (len(difference), 1)), atol=1e-5
        )


def test_another_seed_draws_every_array_anew(state):
    other = inception.random_state_dict(seed=1)
    assert {key: array.shape for key, array in other.items()} == SHAPES
    assert not any(np.array_equal(other[key], state[key]) for key in SHAPES)


@pytest.mark.parametrize("taps", [(), (100,), (64, "pool3")])
def test_unknown_taps_are_refused(taps):
    with pytest.raises(ValueError, match="64, 192, 768, 2048, 'logits'"):
        build_inception(taps)
