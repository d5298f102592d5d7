"""Builders of tensorflow-datasets for the public chest X-ray sets; importing this registers them.

>>> import tensorflow_datasets as tfds, keras_cxrgan.data.builders
>>> films = tfds.load("cxr_kermany", split="train")  # doctest: +SKIP
"""

from .cxr_covid19_radiography import CxrCovid19Radiography
from .cxr_covid_chestxray import CxrCovidChestxray
from .cxr_kermany import CxrKermany
from .cxr_nih import CxrNih
from .cxr_phantom import CxrPhantom

_BUILDERS = (CxrKermany, CxrCovid19Radiography, CxrCovidChestxray, CxrNih, CxrPhantom)

NAMES = tuple(builder.name for builder in _BUILDERS)
"""What `tfds.load` calls them."""

__all__ = ["NAMES", *(builder.__name__ for builder in _BUILDERS)]
