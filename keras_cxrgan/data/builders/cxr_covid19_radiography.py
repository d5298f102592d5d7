"""`cxr_covid19_radiography`: the COVID-19 Radiography Database (Chowdhury 2020, Rahman 2021)."""

from __future__ import annotations

import tensorflow_datasets as tfds

from . import films

_PAGE = "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database"
_LABELS = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")


class CxrCovid19Radiography(tfds.core.GeneratorBasedBuilder):
    """21,165 films of 299 x 299 pixels in four classes, without the lung masks."""

    name = "cxr_covid19_radiography"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    Log in at {_PAGE}, download covid19-radiography-database.zip (a browser calls it archive.zip:
    rename it) and put it, or its folder COVID-19_Radiography_Dataset, into the manual directory.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                f"{self.__doc__} Each class comes from other sources, which may tell it, and no"
                " patients are published."
            ),
            features=films.features(label=tfds.features.ClassLabel(names=_LABELS)),
            supervised_keys=("image", "label"),
            homepage=_PAGE,
            license="for academic use; each source has terms of its own",
            citation="""\
@article{chowdhury2020can,
  title={Can {AI} help in screening viral and {COVID-19} pneumonia?},
  author={Chowdhury, Muhammad E. H. and Rahman, Tawsifur and Khandakar, Amith and others},
  journal={IEEE Access}, volume={8}, pages={132665--132676}, year={2020}
}
@article{rahman2021exploring,
  title={Exploring the effect of image enhancement techniques on {COVID-19} detection using chest
    {X}-ray images},
  author={Rahman, Tawsifur and Khandakar, Amith and Qiblawey, Yazan and others},
  journal={Computers in Biology and Medicine}, volume={132}, pages={104319}, year={2021}
}""",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        source = films.find_set(
            self,
            dl_manager.manual_dir,
            (
                "covid19-radiography-database.zip",
                "COVID-19_Radiography_Dataset",
                "COVID-19_Radiography_Dataset.zip",
            ),
            ("COVID", "COVID.metadata.xlsx"),
        )
        reading = films.read_set(self, source, "covid19-radiography")
        splits = films.by_split(reading).items()
        return {split: self._generate_examples(named) for split, named in splits}

    def _generate_examples(self, named):
        return films.examples(self, named, lambda record: {"label": _class_of(record.label)})


def _class_of(folder: str) -> str:
    """The class of a folder; older versions of the set write COVID-19 and NORMAL."""
    known = {label.lower(): label for label in _LABELS}
    return known.get(folder.lower().removesuffix("-19"), folder)
