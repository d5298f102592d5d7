import hashlib

import keras
import numpy as np
import pytest

from keras_cxrgan.evaluation import torch_weights
from keras_cxrgan.evaluation.extractors import build_extractor
from keras_cxrgan.evaluation.features import extract
from keras_cxrgan.evaluation.inception import build_inception, load_state_dict, random_state_dict
from keras_cxrgan.evaluation.resize import prepare_for_inception


@pytest.fixture
def small_model():
    return keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(5, 3, activation="relu")]
    )


@pytest.fixture
def small_path(small_model, tmp_path):
    small_model.save(tmp_path / "small.keras")
    return tmp_path / "small.keras"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="fid2016"), "--features must be cxr, fid2015, imagenet, random or the path"),
        (dict(name="random", mode="bicubic"), "--mode must be one of pytorch-fid, legacy-tf, clean"),
        (dict(name="random", dims=1024), "--dims of random must be one of 64, 192, 768, 2048, got 1024"),
        (dict(name="imagenet", dims=64), "--dims of imagenet must be one of 768, 2048, got 64"),
        (dict(name="random", dims="logits_unbiased"), "--dims of random"),
    ],
)  # fmt: skip
def test_a_wrong_choice_is_answered_with_the_right_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_extractor(**arguments)


def test_random_is_the_inception_of_its_seed_and_no_fid(films):
    extractor = build_extractor("random", dims=64)
    model = build_inception((64,))
    load_state_dict(model, random_state_dict(0))
    expected = model(prepare_for_inception(films[:3], "pytorch-fid")).numpy()
    np.testing.assert_allclose(extract(extractor, films[:3]), expected, rtol=1e-5, atol=1e-6)
    assert extractor.score == "FD-random64"
    assert not extractor.verified
    assert build_extractor("random", dims=64, seed=1).weights != extractor.weights


def test_the_mode_changes_the_features(films):
    pytorch, legacy = (
        extract(build_extractor("random", dims=64, mode=mode), films[:4])
        for mode in ("pytorch-fid", "legacy-tf")
    )
    assert np.abs(pytorch - legacy).max() > 1e-3


def test_fid2015_is_named_by_its_layer_and_verified(films, tmp_path, monkeypatch):
    state = random_state_dict(0)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"stands for the file that is read below")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(torch_weights.FID_WEIGHTS, "sha256", digest)
    monkeypatch.setattr(torch_weights, "read_state_dict", lambda _: state)
    extractor = build_extractor("fid2015", dims=192, weights=path)
    assert (extractor.score, extractor.weights, extractor.verified) == ("FID192", digest, True)
    np.testing.assert_array_equal(
        extract(extractor, films[:2]), extract(build_extractor("random", dims=192), films[:2])
    )


def test_imagenet_reads_keras_own_file_and_is_never_called_fid(films, tmp_path):
    whole = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(299, 299, 3)
    )
    path = tmp_path / "notop.weights.h5"
    whole.save_weights(path)
    extractor = build_extractor("imagenet", weights=path)
    assert extractor.score == "FID-keras-imagenet768"
    assert not extractor.verified  # not the published file
    prepared = prepare_for_inception(films[:2], "pytorch-fid")
    taps = keras.Model(whole.input, whole.get_layer("mixed7").output)(prepared).numpy()
    np.testing.assert_allclose(
        extract(extractor, films[:2]), taps.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6
    )


def test_offline_imagenet_names_the_file_the_address_and_the_option(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(keras.utils, "get_file", offline)
    with pytest.raises(ValueError) as error:
        build_extractor("imagenet")
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "https://",
        "--weights",
    ):
        assert part in message


def test_a_download_does_not_write_to_stdout(monkeypatch, capsys):
    def chatty(*args, **kwargs):
        print("Downloading data from somewhere")
        raise OSError("no route to host")

    monkeypatch.setattr(keras.utils, "get_file", chatty)
    with pytest.raises(ValueError):
        build_extractor("imagenet")
    assert capsys.readouterr().out == ""


def test_a_file_of_other_weights_is_refused_in_one_line(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(
        ValueError, match="does not hold the weights of Keras' InceptionV3"
    ) as error:
        build_extractor("imagenet", weights=path)
    assert "\n" not in str(error.value)


def test_a_keras_model_of_ones_own_is_fed_as_stated(small_model, small_path, films):
    extractor = build_extractor(str(small_path), preparation="range=-1:1")
    assert (extractor.dims, extractor.score) == (5, "FD-small")
    assert extractor.preparation == "size=16,range=-1:1,channels=3"
    white = np.full((1, 32, 32), 255, np.uint8)
    expected = small_model(np.ones((1, 16, 16, 3), np.float32)).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(extract(extractor, white), expected, rtol=1e-5, atol=1e-6)
    assert extract(extractor, films).shape == (40, 5)


def test_a_saved_model_gives_the_features_of_its_keras_model(
    small_model, small_path, films, tmp_path
):
    small_model.export(tmp_path / "saved", verbose=False)
    of_keras, of_saved = (
        build_extractor(str(path), preparation="range=0:255")
        for path in (small_path, tmp_path / "saved")
    )
    np.testing.assert_allclose(
        extract(of_keras, films), extract(of_saved, films), rtol=1e-5, atol=1e-5
    )
    assert len(of_saved.weights) == 64


@pytest.mark.parametrize(
    "preparation",
    [None, "", "size=16", "range=1:0", "range=a:b", "range=0:1,colour=3", "range=0:1,size=x"],
)
def test_a_model_without_a_stated_preparation_is_refused(small_path, preparation):
    with pytest.raises(ValueError, match=r"--preparation range=LOW:HIGH\[,size=PIXELS\]"):
        build_extractor(str(small_path), preparation=preparation)


def test_a_model_of_any_size_wants_its_size_stated(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3), keras.layers.GlobalMaxPooling2D()]
    )
    model.save(tmp_path / "any.keras")
    path = str(tmp_path / "any.keras")
    with pytest.raises(ValueError, match="add size=PIXELS to --preparation"):
        build_extractor(path, preparation="range=0:1")
    assert build_extractor(path, preparation="range=0:1,size=20").dims == 2


def test_what_is_no_model_is_refused_in_one_line(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="is no Keras model") as error:
        build_extractor(str(path), preparation="range=0:1")
    assert "\n" not in str(error.value)


def test_a_model_that_takes_no_images_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    model.save(tmp_path / "dense.keras")
    with pytest.raises(ValueError, match="must take images"):
        build_extractor(str(tmp_path / "dense.keras"), preparation="range=0:1")
