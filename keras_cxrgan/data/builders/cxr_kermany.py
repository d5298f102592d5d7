"""`cxr_kermany`: chest films of children, normal and pneumonia (Kermany 2018)."""

from __future__ import annotations

import tensorflow_datasets as tfds

from . import films

_PAGE = "https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia"


class CxrKermany(tfds.core.GeneratorBasedBuilder):
    """5,856 frontal films of children aged one to five, with the splits train, val and test."""

    name = "cxr_kermany"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    Log in at {_PAGE}, download chest-xray-pneumonia.zip (a browser calls it archive.zip: rename
    it) and put it, or its folder chest_xray, into the manual directory; or ChestXRay2017.zip of
    https://data.mendeley.com/datasets/rscbjbr9sj.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.__doc__} `val` has 16 films only: split again by patient.",
            features=films.features(label=tfds.features.ClassLabel(names=["NORMAL", "PNEUMONIA"])),
            supervised_keys=("image", "label"),
            homepage=_PAGE,
            license="CC BY 4.0",
            citation="""\
@article{kermany2018identifying,
  title={Identifying medical diagnoses and treatable diseases by image-based deep learning},
  author={Kermany, Daniel S. and Goldbaum, Michael and Cai, Wenjia and others},
  journal={Cell}, volume={172}, number={5}, pages={1122--1131}, year={2018}
}""",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        source = films.find_set(
            self,
            dl_manager.manual_dir,
            ("chest-xray-pneumonia.zip", "chest_xray", "ChestXRay2017.zip"),
            ("train", "test"),
        )
        reading = films.read_set(self, source, "kermany")
        splits = films.by_split(reading).items()
        return {split: self._generate_examples(named) for split, named in splits}

    def _generate_examples(self, named):
        return films.examples(self, named, lambda record: {"label": record.label})
