from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.evaluation.resize import prepare_for_inception, resize, resize_matrix

# 21 x 21 pixels of images resized to 299 x 299 on the scale 0..1, edges and corners included:
# torch.nn.functional.interpolate (2.13, bilinear, align_corners=False), and Pillow BICUBIC, mode F.
RESIZED = np.load(Path(__file__).parent / "data" / "resized.npz")
SAMPLED = np.ix_(*[np.rint(np.linspace(0, 298, 21)).astype(int)] * 2)
SIZES = [(64, 64), (128, 128), (320, 400), (1024, 1024)]


def noise(height, width):
    return np.random.RandomState(height + width).randint(0, 256, (height, width)).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("library", "method"), [("torch", "bilinear"), ("pillow", "bicubic_antialias")]
)
def test_resizing_is_that_of_the_library_the_mode_is_named_after(library, method, size):
    expected = RESIZED["{}_{}x{}".format(library, *size)]
    resized = resize(noise(*size)[None], 299, method)[0] / 255
    np.testing.assert_allclose(resized[SAMPLED], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_legacy_resizing_is_that_of_the_operation_in_the_tensorflow_graph(size):
    image = noise(*size)
    expected = tf.raw_ops.ResizeBilinear(
        images=image[None, ..., None], size=[299, 299], half_pixel_centers=False
    )
    resized = resize(image[None], 299, "bilinear_tf1")[0]
    np.testing.assert_allclose(resized / 255, expected[0, ..., 0] / 255, rtol=0, atol=1e-6)


def test_the_modes_give_different_images_so_a_score_must_name_its_mode():
    image = noise(64, 64)[None]
    results = [
        resize(image, 299, m) / 255 for m in ("bilinear", "bilinear_tf1", "bicubic_antialias")
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(results[one] - results[other]).max() > 0.05


@pytest.mark.parametrize("method", ["bilinear", "bilinear_tf1", "bicubic_antialias"])
@pytest.mark.parametrize("size_in", [1, 2, 64, 299, 300, 1024])
def test_resizing_keeps_a_constant_and_the_identity(method, size_in):
    matrix = resize_matrix(size_in, 299, method)
    assert matrix.shape == (299, size_in) and matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-12)
    if size_in == 299:
        np.testing.assert_allclose(matrix, np.eye(299), rtol=0, atol=2e-5)


def test_rows_and_columns_are_not_exchanged():
    image = np.zeros((1, 10, 20), np.uint8)
    image[0, 0] = 255
    resized = resize(image, 40, "bilinear")[0]
    assert resized[0].min() == 255 and resized[-1].max() == 0


def test_normalization_of_each_mode_at_black_middle_and_white():
    # A score compares with a published one only if these numbers are right.
    levels = np.array([0, 128, 255], np.uint8)
    images = np.broadcast_to(levels[:, None, None], (3, 8, 8))
    for mode, expected in {
        "pytorch-fid": [-1, 0.5 / 127.5, 1],
        "legacy-tf": [-1, 0, 0.9921875],
        "clean": [-1, 0, 0.9921875],
    }.items():
        prepared = prepare_for_inception(images, mode)
        assert prepared.shape == (3, 299, 299, 3) and prepared.dtype == np.float32
        np.testing.assert_allclose(prepared[:, 150, 150, 0], expected, rtol=0, atol=1e-6)


def test_grey_equals_the_same_image_in_three_channels():
    grey = np.stack([noise(20, 30), noise(30, 20).T])
    colour = np.repeat(grey[..., None], 3, axis=3)
    np.testing.assert_array_equal(prepare_for_inception(grey), prepare_for_inception(colour))


def test_channels_stay_apart():
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[..., 1] = 255
    prepared = prepare_for_inception(image)
    expected = np.broadcast_to(np.float32([-1, 1, -1]), prepared.shape)
    np.testing.assert_allclose(prepared, expected, rtol=0, atol=1e-6)


def test_a_read_only_memory_map_is_read(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, noise(16, 16)[None])
    mapped = np.load(path, mmap_mode="r")
    np.testing.assert_array_equal(
        prepare_for_inception(mapped), prepare_for_inception(noise(16, 16)[None])
    )


def test_what_cannot_be_prepared_is_refused():
    grey = np.zeros((1, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="'tf'.*pytorch-fid, legacy-tf, clean"):
        prepare_for_inception(grey, "tf")
    with pytest.raises(ValueError, match="float32: needs uint8"):
        prepare_for_inception(grey.astype(np.float32))
    for wrong in (grey[0], grey[..., None]):
        with pytest.raises(ValueError, match="needs \\(N, H, W\\) or \\(N, H, W, 3\\)"):
            prepare_for_inception(wrong)
    with pytest.raises(ValueError, match="'cubic'.*bicubic_antialias"):
        resize(grey, 16, "cubic")
