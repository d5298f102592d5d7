"""`cxr_phantom`: the digital chest phantom, computed; no download and no patient."""

from __future__ import annotations

import tensorflow_datasets as tfds

from keras_cxrgan.data.images import encode_png
from keras_cxrgan.data.phantom import LABELS, phantom
from keras_cxrgan.data.records import content_hash

from . import films

# Films of one number are of one simulated patient: the splits have numbers of their own.
_SPLITS = {"train": range(0, 1200), "test": range(1200, 1500)}


class CxrPhantom(tfds.core.GeneratorBasedBuilder):
    """1,500 simulated films in three classes, for teaching and tests: no medical images.

    The configuration names the side in pixels: `cxr_phantom/128`.
    """

    name = "cxr_phantom"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=str(size), description=f"{size} x {size} pixels")
        for size in (64, 128, 256)
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=films.features(label=tfds.features.ClassLabel(names=LABELS)),
            supervised_keys=("image", "label"),
            license="of the software that computes it",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(numbers) for split, numbers in _SPLITS.items()}

    def _generate_examples(self, numbers: range):
        for number in numbers:
            label = LABELS[number % len(LABELS)]
            png = encode_png(phantom(number, int(self.builder_config.name), label))
            film = {
                "image": png,
                "label": label,
                "patient": f"phantom{number:06d}",
                "file": f"{label}/{number:06d}.png",
                "sha256": content_hash(png),
            }
            yield number, film
