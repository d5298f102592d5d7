"""`cxr_nih`: NIH ChestX-ray14 (Wang 2017)."""

from __future__ import annotations

import tensorflow_datasets as tfds

from . import films

_PAGE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip


class CxrNih(tfds.core.GeneratorBasedBuilder):
    """112,120 frontal films of 30,805 patients, with 14 findings mined from the reports."""

    name = "cxr_nih"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    Download images_001.tar.gz to images_012.tar.gz, Data_Entry_2017.csv (or Data_Entry_2017_v2020),
    train_val_list.txt and test_list.txt from {_PAGE}, put them into a folder cxr_nih in the manual
    directory, and unpack the twelve archives there, beside Data_Entry_2017.csv.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                f"{self.__doc__} `label` is the text of all findings (A|B, or No Finding), `labels`"
                " the findings; the splits are the official ones, by patient."
            ),
            features=films.features(
                label=tfds.features.Text(),
                labels=tfds.features.Sequence(tfds.features.ClassLabel(names=_FINDINGS)),
            ),
            supervised_keys=("image", "labels"),
            homepage=_PAGE,
            license="free to use with attribution to the NIH Clinical Center and a citation",
            citation="""\
@inproceedings{wang2017chestx,
  title={{ChestX-ray8}: Hospital-scale chest {X}-ray database and benchmarks on weakly-supervised
    classification and localization of common thorax diseases},
  author={Wang, Xiaosong and Peng, Yifan and Lu, Le and Lu, Zhiyong and Bagheri, Mohammadhadi and
    Summers, Ronald M.},
  booktitle={CVPR}, pages={2097--2106}, year={2017}
}""",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        tables = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
        source = films.find_set(self, dl_manager.manual_dir, ("cxr_nih", "CXR8"), tables)
        reading = films.read_set(self, source, "nih")
        splits = films.by_split(reading).items()
        return {split: self._generate_examples(named) for split, named in splits}

    def _generate_examples(self, named):
        return films.examples(self, named, _labels)


def _labels(record) -> dict:
    findings = (record.label or "").split("|")
    return {
        "label": record.label or "",
        "labels": [finding for finding in findings if finding in _FINDINGS],
    }
