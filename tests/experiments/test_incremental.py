"""The incremental experiment at a tiny width, and its measures on images with known detail."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import incremental
from keras_cxrgan.data.images import decode, write_png
from keras_cxrgan.recipe import RECIPES
from keras_cxrgan.stages import by_stage
from keras_cxrgan.workflows import planning
from keras_cxrgan.workflows.reproducing import Setting

TINY = (
    "image_size=64", "stages=32,64", "grown_from=32", "width=2", "growth_width=2", "latent_dim=4",
    "batch_size=6", "stage_epochs=2,2", "native_ramp=8", "convention=keras",
)  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a finished experiment whose faded growth cannot be, for it fades too long."""
    films = tmp_path_factory.mktemp("data") / "films"
    films.mkdir()
    random = np.random.default_rng(1)
    for index in range(16):
        film = random.integers(0, 256, (8, 8)).repeat(10, 0).repeat(10, 1)
        write_png(films / f"{index}.png", film.astype(np.uint8))
    out = tmp_path_factory.mktemp("runs") / "incremental"
    words = ["--data", str(films), "--out", str(out), "--features", "cxr"]
    words += [word for setting in TINY for word in ("--set", setting)]
    words += ["--only", incremental.AT_ONCE, "--only", incremental.FADED]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(planning, "measure_speed", lambda stages, strategy: 1e9)
        result = CliRunner().invoke(incremental.main, words)
    return out, result


def test_each_scale_is_a_recipe_that_can_be(tmp_path):
    for scale, last in (("smoke", 256), ("small", 2048), ("paper", 2048)):
        setting = Setting(incremental.EXPERIMENT, tmp_path, scale)
        faded = setting.recipe(**setting["faded"])
        assert by_stage(faded)[-1].image_size == last
        assert len(setting["stage_images"]) in (0, len(faded.stages))
        preserved = setting.recipe(**incremental.preserved(setting))
        rates = [stage.generator_learning_rate for stage in by_stage(preserved)]
        assert rates == [0.002] + [0.0002] * (len(rates) - 1)
        assert (preserved.growth_start, preserved.fade_in) == ("former_image", 0)
        assert setting.recipe().growth_start == faded.growth_start == "random"
    assert setting.recipe().stages == (64, 128, 512, 1024, 2048)
    assert RECIPES["incremental"].epochs == 20


def test_a_growth_writes_its_table_its_figures_and_its_images(done):
    out, _ = done
    page = (out / "results.md").read_text()
    assert "| published, all sizes |" in page and "8.1 to 11.1" in page
    assert "octave first shown at" in page and "is the same in all of 16 images" in page
    written = json.loads((out / "results.json").read_text())
    (grown,) = [cell for cell in written["cells"] if cell["row"] == incremental.AT_ONCE]
    assert [stage["image_size"] for stage in grown["stages"]] == [32, 64]
    assert all(np.isfinite(stage["frechet"]) for stage in grown["stages"])
    for name in ("stages.png", "spectra.png"):
        assert decode((out / name).read_bytes()).min() < 200
    images = sorted((out / "grown-seed-0" / "images").glob("0*.png"))
    assert len(images) == 4 and decode(images[0].read_bytes()).shape == (64, 64)


def test_a_growth_that_fails_is_a_finding_and_not_a_lost_page(done):
    out, result = done
    page = (out / "results.md").read_text()
    assert "fade-in, faster generator: failed, stage 64 ends after 32 images" in page
    assert result.exit_code == 1 and "faded-seed-0" in result.output


def test_ways_to_mend_the_growth_have_rows_of_their_own(done):
    out, _ = done
    cells = {cell["row"]: cell for cell in json.loads((out / "results.json").read_text())["cells"]}
    assert list(cells) == [incremental.AT_ONCE, incremental.FADED]
    assert f"Stages, {incremental.AT_ONCE}" in (out / "results.md").read_text()
    asked = {cell.row: cell for cell in incremental.cells(Setting(incremental.EXPERIMENT, out))}
    mended = [incremental.FADED, incremental.PRESERVED, incremental.STEADIED]
    assert list(asked) == [incremental.AT_ONCE, *mended]
    assert asked[incremental.PRESERVED].recipe.growth_start == "former_image"


def test_detail_that_all_images_share_is_told_from_their_own():
    random = np.random.default_rng(0)
    own = random.integers(0, 256, (20, 16, 16)).astype(np.uint8)
    same = np.repeat(own[:1], 20, axis=0)
    smooth = np.full((3, 16, 16), 7, np.uint8)
    assert incremental.shared_detail(same) == pytest.approx(1, abs=1e-5)
    assert incremental.shared_detail(own) == pytest.approx(1 / 20, abs=0.02)
    assert incremental.shared_detail(smooth) == 0
