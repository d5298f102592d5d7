"""`cxr_covid_chestxray`: the COVID-19 image data collection (Cohen 2020)."""

from __future__ import annotations

import tensorflow_datasets as tfds

from . import films

_PAGE = "https://github.com/ieee8023/covid-chestxray-dataset"


class CxrCovidChestxray(tfds.core.GeneratorBasedBuilder):
    """Frontal films of COVID-19 and other pneumonias from publications, with their patients."""

    name = "cxr_covid_chestxray"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    It is downloaded from {_PAGE} by itself. Where there is no network, put that repository's
    covid-chestxray-dataset-master.zip, or its folder, into the manual directory.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.__doc__} CT and lateral views are left out.",
            # The findings are open-ended: Pneumonia/Viral/COVID-19, Pneumonia, ...
            features=films.features(label=tfds.features.Text()),
            supervised_keys=("image", "label"),
            homepage=_PAGE,
            license="of each image, as metadata.csv states it",
            citation="""\
@article{cohen2020covid,
  title={{COVID-19} Image Data Collection: Prospective Predictions Are the Future},
  author={Cohen, Joseph Paul and Morrison, Paul and Dao, Lan and Roth, Karsten and Duong, Tim Q.
    and Ghassemi, Marzyeh},
  journal={Machine Learning for Biomedical Imaging}, volume={1}, pages={1--38}, year={2020}
}""",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        names = (
            "covid-chestxray-dataset-master.zip",
            "covid-chestxray-dataset-master",
            "covid-chestxray-dataset",
        )
        try:
            source = films.find_set(self, dl_manager.manual_dir, names, ("metadata.csv",))
        # TFDS asserts that the manual directory is there and not empty.
        except (AssertionError, ValueError):
            source = dl_manager.download(f"{_PAGE}/archive/refs/heads/master.zip")
        reading = films.read_set(self, source, "covid-chestxray")
        splits = films.by_split(reading).items()
        return {split: self._generate_examples(named) for split, named in splits}

    def _generate_examples(self, named):
        return films.examples(self, named, lambda record: {"label": record.label})
