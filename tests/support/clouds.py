"""Cloudy images of one law, and folders of them."""

import cv2
import numpy as np

SIDE = 32


def clouds(count, seed):
    """Cloudy images of one law, all different."""
    random = np.random.default_rng(seed)
    fields = random.normal(size=(count, SIDE, SIDE))
    fields = np.stack([cv2.GaussianBlur(field, (0, 0), 2) for field in fields])
    scales = random.uniform(25, 50, (count, 1, 1)) / fields.std(axis=(1, 2), keepdims=True)
    return np.clip(127.5 + scales * fields, 0, 255).astype(np.uint8)


def write(folder, images, extension=".png"):
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        (folder / f"{index:03d}{extension}").write_bytes(cv2.imencode(extension, image)[1])
    return str(folder)


def only(result):
    return result["extractors"][0]["scores"][0]
