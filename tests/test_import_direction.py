"""The rooms and who may enter which: the table in README.md, "Architecture", read off the code."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "keras_cxrgan"
HEAVY = {"tensorflow", "keras", "cv2", "matplotlib", "scipy", "tensorflow_datasets", "pydicom"}

# room -> what it may import of the package, and of heavy libraries
MAY_IMPORT = {
    "__init__": (set(), set()),
    "__main__": ({"cli"}, set()),
    "fields": (set(), set()),
    "stages": (set(), set()),
    "rules": ({"fields"}, set()),
    "recipe": ({"fields", "rules", "stages"}, set()),
    "terminal": (set(), {"tensorflow", "keras"}),
    "data.anatomy": (set(), set()),
    "data.phantom": ({"data.anatomy"}, set()),
    "data.records": ({"data.tfrecords"}, set()),
    "data.headers": ({"data.dicom"}, set()),
    "data.codecs": (set(), {"cv2"}),
    "data.images": ({"data.codecs", "data.dicom"}, {"cv2"}),
    "data.dicom": (set(), {"cv2", "pydicom"}),
    "data.listing": ({"data.generated", "data.records"}, set()),
    "data.patients": ({"data.listing"}, set()),
    "data.tables": ({"data.listing", "data.records"}, set()),
    "data.layouts": ({"data.listing", "data.patients", "data.records", "data.tables"}, set()),
    "data.tfrecords": (
        {"data.builders", "data.patients", "data.records", "data.tables"},
        {"tensorflow", "tensorflow_datasets"},
    ),
    "data.builders.films": (
        {"data.images", "data.layouts", "data.prepare", "data.records", "data.tables"},
        {"tensorflow_datasets"},
    ),
    "data.builders.cxr_kermany": ({"data.builders.films"}, {"tensorflow_datasets"}),
    "data.builders.cxr_covid19_radiography": ({"data.builders.films"}, {"tensorflow_datasets"}),
    "data.builders.cxr_covid_chestxray": ({"data.builders.films"}, {"tensorflow_datasets"}),
    "data.builders.cxr_nih": ({"data.builders.films"}, {"tensorflow_datasets"}),
    "data.builders.cxr_phantom": (
        {"data.builders.films", "data.images", "data.phantom", "data.records"},
        {"tensorflow_datasets"},
    ),
    "data.splits": (set(), set()),
    "data.augmentation": ({"fields"}, {"cv2"}),
    "data.manifest": ({"data.records", "data.splits"}, set()),
    "data.sources": (
        {"data.layouts", "data.manifest", "data.records", "data.tables", "data.tfrecords"},
        set(),
    ),
    "data.shortcuts": (set(), set()),
    "data.suspects": (set(), {"cv2"}),
    "data.inspection": (
        {
            "data.codecs",
            "data.dicom",
            "data.headers",
            "data.images",
            "data.layouts",
            "data.prepare",
            "data.records",
            "data.shortcuts",
            "data.suspects",
        },
        {"cv2"},
    ),
    "data.generated": ({"data.records"}, set()),
    "data.prepare": ({"data.records", "data.images"}, set()),
    "data.batches": (set(), {"tensorflow"}),
    "models.layers": (set(), {"keras"}),
    "models.dcgan": ({"models.layers"}, {"keras"}),
    "models.incremental": (set(), {"keras"}),
    "models.classifier": (set(), {"keras"}),
    "study.classification": (set(), set()),
    "study.comparison": ({"study.classification"}, set()),
    "study.protocols": (set(), set()),
    "study.answer": ({"study.comparison"}, set()),
    "study.fitting": (
        {"data.augmentation", "models.classifier", "study.classification"},
        {"tensorflow", "keras"},
    ),
    "training.losses": (set(), {"tensorflow"}),
    "training.augmentation": (set(), {"tensorflow"}),
    "training.means": (set(), {"tensorflow", "keras"}),
    "training.noise": (set(), {"tensorflow"}),
    "training.gan": (
        {
            "training.augmentation",
            "training.losses",
            "training.means",
            "training.noise",
            "training.runtime",
            "models.layers",
        },
        {"tensorflow", "keras"},
    ),
    "training.watching": ({"training.losses"}, {"keras"}),
    "training.runtime": (set(), {"tensorflow", "keras"}),
    "training.state": ({"training.gan"}, set()),
    "training.callbacks": ({"training.state", "data.images"}, {"tensorflow", "keras"}),
    "training.curves": ({"training.callbacks"}, {"matplotlib"}),
    "training.evaluating": (
        {"training.callbacks", "training.noise", "training.state", "data.images"},
        {"tensorflow", "keras"},
    ),
    # Arrays in, numbers out.
    "evaluation.resize": (set(), set()),
    "evaluation.inception": ({"evaluation.resize"}, {"keras"}),
    "evaluation.torch_weights": (set(), set()),
    "evaluation.encoder": (set(), {"keras", "cv2"}),
    "evaluation.extractors": (
        {
            "evaluation",
            "evaluation.encoder",
            "evaluation.inception",
            "evaluation.resize",
            "evaluation.torch_weights",
        },
        {"tensorflow", "keras", "cv2"},
    ),
    "evaluation.features": ({"evaluation.extractors"}, {"tensorflow", "keras"}),
    "evaluation.frechet": (set(), set()),
    "evaluation.frechet_error": ({"evaluation.frechet"}, set()),
    "evaluation.kernel_distance": ({"evaluation.frechet", "evaluation.frechet_error"}, set()),
    "evaluation.neighbours": (set(), set()),
    "evaluation.diversity": ({"evaluation.neighbours"}, {"cv2"}),
    "evaluation.appearance": ({"evaluation.neighbours"}, set()),
    "evaluation.alignment": (set(), {"cv2"}),
    "evaluation.memorisation": ({"evaluation.alignment", "evaluation.neighbours"}, set()),
    "evaluation.degradations": (set(), {"cv2"}),
    "evaluation.scores": (
        {
            "evaluation.diversity",
            "evaluation.frechet",
            "evaluation.frechet_error",
            "evaluation.kernel_distance",
            "evaluation.neighbours",
        },
        set(),
    ),
    "evaluation.report": (set(), set()),
    "evaluation.audit_report": ({"evaluation.report"}, set()),
    "evaluation.pictures": ({"evaluation.report"}, {"matplotlib"}),
    "sharing.export": (set(), {"tensorflow", "keras"}),
    "sharing.contact_sheet": (set(), {"matplotlib"}),
    "sharing.experiment_tables": ({"evaluation.report"}, set()),
    "sharing.experiment_report": ({"evaluation.report"}, set()),
    "sharing.experiment_figures": (set(), {"matplotlib"}),
    "sharing.study_figures": ({"sharing.experiment_figures"}, {"matplotlib"}),
    "sharing.study_page": ({"evaluation.report"}, set()),
    "sharing.figures": ({"data.images"}, {"matplotlib"}),
    "runs": (
        {
            "",
            "recipe",
            "rules",
            "data.prepare",
            "data.records",
            "data.sources",
            "training.callbacks",
            "training.state",
        },
        {"tensorflow", "keras"},
    ),
    # The only place where the rooms meet.
    "workflows.assembly": (None, None),
    "workflows.generating": (None, None),
    "workflows.producing": (None, None),
    "workflows.running": (None, None),
    "workflows.starting": (None, None),
    "workflows.screening": (None, None),
    "workflows.sides": (None, None),
    "workflows.inspecting": (None, None),
    "workflows.splitting": (None, None),
    "workflows.augmenting": (None, None),
    "workflows.growing": (None, None),
    "workflows.planning": (None, None),
    "workflows.ablating": (None, None),
    "workflows.contrasting": (None, None),
    "workflows.describing": (None, None),
    "workflows.reproducing": (None, None),
    "workflows.choosing": (None, None),
    "workflows.presenting": (None, None),
    "workflows.dividing": (None, None),
    "workflows.classifying": (None, None),
    "workflows.designing": (None, None),
    "workflows.supplying": (None, None),
    "workflows.studying": (None, None),
    "workflows.recognising": (None, None),
    "workflows.replicating": (None, None),
    "workflows.restudying": (None, None),
    "workflows.concluding": (None, None),
    "workflows.comparing": (None, None),
    "workflows.evaluating": (None, None),
    "workflows.auditing": (None, None),
    "benchmark": (
        {
            "data.batches",
            "recipe",
            "training.runtime",
            "workflows",
            "evaluation.extractors",
            "evaluation.features",
            "evaluation.scores",
        },
        {"tensorflow"},
    ),
    "cli.base": ({"", "recipe", "rules"}, set()),
    "cli.training": (
        {
            "cli.base",
            "fields",
            "recipe",
            "rules",
            "terminal",
            "workflows",
            "workflows.choosing",
            "workflows.screening",
            "benchmark",
        },
        set(),
    ),
    "cli.evaluating": (
        {
            "cli.base",
            "terminal",
            "workflows",
            "benchmark",
            "evaluation.report",
            "evaluation.audit_report",
        },
        set(),
    ),
    "cli.data": ({"cli.base", "terminal", "workflows.inspecting"}, set()),
    "cli.splitting": ({"cli.base", "terminal", "workflows.splitting"}, set()),
    "cli.augmenting": (
        {"cli.base", "terminal", "data.augmentation", "workflows.augmenting"},
        set(),
    ),
    "cli.ablating": (
        {"cli.base", "terminal", "workflows.ablating", "workflows.reproducing"},
        set(),
    ),
    "cli.studying": (
        {
            "cli.base",
            "study.protocols",
            "terminal",
            "workflows.designing",
            "workflows.reproducing",
            "workflows.studying",
        },
        set(),
    ),
    "cli.producing": (
        {"cli.base", "terminal", "workflows", "data.images", "data.phantom"},
        set(),
    ),
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not name.endswith(".__init__"):
            yield name, path


def imports(path, name):
    package = name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(part for part in ("keras_cxrgan", package, base) if part)
            for alias in node.names:
                inside = PACKAGE / "/".join([*base.split(".")[1:], alias.name])
                is_module = base.startswith("keras_cxrgan") and (
                    inside.with_suffix(".py").exists() or inside.is_dir()
                )
                yield f"{base}.{alias.name}" if is_module else base


@pytest.mark.parametrize(("name", "path"), [pytest.param(*item, id=item[0]) for item in modules()])
def test_no_module_imports_against_the_table(name, path):
    assert name in MAY_IMPORT, f"{name} has no row in the table"
    own, heavy = MAY_IMPORT[name]
    for target in imports(path, name):
        root, _, rest = target.partition(".")
        if root == "keras_cxrgan" and own is not None:
            assert rest in own, f"{name} must not import {target}"
        if root in HEAVY and heavy is not None:
            assert root in heavy, f"{name} must not import {target}"


def test_every_row_of_the_table_is_a_module():
    assert set(MAY_IMPORT) == {name for name, _ in modules()}
