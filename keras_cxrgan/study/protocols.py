"""What the papers did to show that generated images help: their settings, tables and mistakes.

Only facts: `workflows/replicating.py` tests a study's networks in the same way and lays the result
beside the published one and beside the study's own, which has seeds, intervals and patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One table of a paper: the scores of one arm, of each class or of `all` films together.

    `recipe` is that of the GANs, where tables of one arm differ by it.
    """

    title: str
    arm: str
    scores: Mapping[str, Mapping[str, float]]
    recipe: str = ""


@dataclass(frozen=True)
class Protocol:
    """A paper's classifier study.

    Attributes:
        settings: options of `plan_study` that the paper states, or that its code has.
        tables: the paper's, each of one arm.
        scores: columns of the paper's tables -> name of the score in `replicating.SCORES`.
        passes: forward passes in training mode (dropout on, batch statistics of the tested films)
            whose scores the paper averages; 0 for one pass in inference mode.
        wrong: what is wrong with it, and what the study does in its place.
        left_open: what the paper does not say, and the reading taken.
    """

    name: str
    citation: str
    settings: Mapping[str, object]
    tables: tuple[Published, ...]
    scores: Mapping[str, str]
    wrong: tuple[str, ...]
    left_open: tuple[str, ...]
    passes: int = 0


def _davoodi(rows: str) -> dict[str, dict[str, float]]:
    names = ("accuracy", "sensitivity", "specificity", "F1")
    table = {}
    for line in rows.strip().splitlines():
        label, *values = line.split()
        table[label] = dict(zip(names, map(float, values)))
    return table


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="davoodi2021",
            citation=(
                "B. Davoodi and M. Lo Giudice, Synthetic of Chest X-ray Images, tables 4a and 4b"
            ),
            settings={
                "arms": ("real", "classic", "classic+gan"),
                "classifier": "cnn",
                "optimizer": "sgd",
                "learning_rates": (0.01,),
                "batch_size": 256,
                "steps": 1200,
                "recipe": "davoodi2021",
            },
            tables=(
                Published(
                    "4a",
                    "classic",
                    {
                        "all": {"accuracy": 0.780},
                        **_davoodi("""
                            covid .988 .962 .997 .978
                            normal .898 .635 .985 .767
                            pneumonia_bac .82 .716 .855 .776
                            pneumonia_vir .855 .808 .87 .835
                        """),
                    },
                ),
                Published(
                    "4b",
                    "classic+gan",
                    {
                        "all": {"accuracy": 0.818},
                        **_davoodi("""
                            covid 1 1 1 1
                            normal .948 .802 .997 .888
                            pneumonia_bac .82 .636 .882 .733
                            pneumonia_vir .867 .833 .878 .852
                        """),
                    },
                ),
            ),
            scores={
                "accuracy": "accuracy",
                "sensitivity": "sensitivity",
                "specificity": "specificity",
                "F1": "harmonic",
            },
            passes=500,
            wrong=(
                "The network is tested in training mode, its dropout on and its batch statistics"
                " those of the tested films, 500 times; the mean is reported. A user's network is"
                " in inference mode and sees one film at a time.",
                "The F1 is the harmonic mean of sensitivity and specificity, which does not know"
                " precision: at one film in four, .767 is a true F1 of .756 and .776 one of .666.",
                "4-fold names the number of classes; nothing is cross-validated. 36 films are"
                " tested: 95 % of chance alone reach 13 points to either side.",
                "One training of each network, and no interval: other trainings of one setting of"
                " the public code differ by more than the published gain of 3.8 points.",
                "The sensitivity to bacterial pneumonia falls, from .716 to .636, and the text does"
                " not say so.",
            ),
            left_open=(
                "The classifier is not described: it is the one of the public code, as are SGD"
                " with Nesterov's momentum .9, batches of 256, and four of them an epoch, 300"
                " epochs.",
                "Classic copies are made anew for each batch, in the place of 1,000 once.",
                "The GANs are trained on the films themselves, not on classic copies of them.",
                "Among several states, the one that films held back choose is tested.",
            ),
        ),
        Protocol(
            name="ng2023",
            citation=(
                "M. F. Ng and C. A. Hargreaves, Engineering Proceedings 31(1):84, 2023, table 4"
            ),
            settings={
                "arms": ("real", "oversampled", "gan-even"),
                "classifier": "inception",
                "recipe": "ng2023_dcgan",
            },
            tables=(
                Published(
                    "4, films alone",
                    "real",
                    {"covid": {"accuracy": 0.96, "precision": 0.94, "recall": 0.97, "F1": 0.95}},
                ),
                Published(
                    "4, with images of the DCGAN",
                    "gan-even",
                    {"covid": {"accuracy": 0.98, "precision": 0.97, "recall": 1.0, "F1": 0.98}},
                    recipe="ng2023_dcgan",
                ),
                Published(
                    "4, with images of the WGAN-GP",
                    "gan-even",
                    {"covid": {"accuracy": 0.98, "precision": 0.99, "recall": 0.98, "F1": 0.98}},
                    recipe="ng2023_wgan_gp",
                ),
            ),
            scores={
                "accuracy": "accuracy",
                "precision": "precision",
                "recall": "sensitivity",
                "F1": "f1",
            },
            wrong=(
                "One training of one network on one division of the films, and no interval.",
                "Patients are not mentioned: films of one may be on both sides.",
                "That no GAN saw a tested film is not said.",
                "Images of one class are added and compared with nothing added: that the classes"
                " then have other shares is an effect of its own (the row oversampled shows it).",
            ),
            left_open=(
                "Which films stand against COVID, how many are tested, and how the network is"
                " trained is not said: the other classes of the films given, patient-wise parts,"
                " InceptionV3.",
                "The paper adds 1,000 images of COVID to 500 to 2,000 films; here as many as even"
                " the classes out.",
                "The scores are read as those of COVID against the rest.",
            ),
        ),
    )
}
