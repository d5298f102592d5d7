import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import keras_cxrgan.cli.data  # noqa: F401
from keras_cxrgan import workflows
from keras_cxrgan.cli.base import main
from keras_cxrgan.data.images import decode
from keras_cxrgan.workflows.inspecting import inspect, tables


def write(folder, images, extension=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        (folder / f"{index:03d}{extension}").write_bytes(cv2.imencode(extension, image)[1])
    return folder


@pytest.fixture
def clean(films, tmp_path):
    write(tmp_path / "set" / "ill", films[:20])
    write(tmp_path / "set" / "well", films[20:])
    return tmp_path / "set"


@pytest.fixture
def run_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *texts: CliRunner().invoke(main, ["inspect", *map(str, texts)])


def test_a_clean_set_has_no_problems(clean):
    result = inspect(clean)
    assert result["problems"] == []
    assert any("no shortcut found" in text for text in result["findings"])
    assert "40 files in 2 classes: ill 20, well 20" in result["findings"]


def test_every_problem_is_a_sentence(clean, films):
    write(clean / "train" / "ill", films[:3])
    write(clean / "test" / "well", films[:3])
    (clean / "ill" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    unreadable, classes, splits = inspect(clean)["problems"]
    assert unreadable.startswith("1 unreadable file: bad.png (")
    assert classes.startswith("3 groups of duplicates across classes (same file: 000.png")
    assert splits.startswith("3 groups of duplicates across splits")


def test_format_and_size_that_give_the_class_away_are_a_problem(films, tmp_path):
    write(tmp_path / "set" / "covid", [cv2.resize(film, (40, 44)) for film in films[:20]], ".jpg")
    write(tmp_path / "set" / "normal", films[20:])
    result = inspect(tmp_path / "set")
    (problem,) = result["problems"]
    assert "file format or size" in problem
    assert any(text.startswith("file format alone: the class is told right for 100.0%")
               for text in result["findings"])  # fmt: skip


def test_the_report_is_written_and_says_the_same(clean, tmp_path):
    result = inspect(clean, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "contact_sheet.png", "inspection.json", "inspection.md",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "inspection.json").read_text()) == result
    page = (tmp_path / "out" / "inspection.md").read_text()
    assert all(f"- {text}" in page for text in result["findings"] + result["warnings"])
    sheet = decode((tmp_path / "out" / "contact_sheet.png").read_bytes())
    assert min(sheet.shape) > 200 and sheet.std() > 20
    first = (tmp_path / "out" / "contact_sheet.png").read_bytes()
    inspect(clean, out=tmp_path / "out")
    assert (tmp_path / "out" / "contact_sheet.png").read_bytes() == first


@pytest.mark.parametrize("inside", [0, 1, 2])
def test_a_report_on_generated_images_is_not_written_among_films(tmp_path, inside):
    folders = [str(tmp_path / name) for name in ("real", "fake", "held_out")]
    for folder in folders:
        Path(folder).mkdir()
    real, fake, held_out = folders
    out = Path(folders[inside]) / "reports" / "one"
    for work in (
        lambda: workflows.audit(real, fake, held_out=held_out, out=out),
        lambda: workflows.evaluate(real, [fake], held_out=held_out, out=out),
    ):
        with pytest.raises(ValueError, match="lies in .*, where its pictures would be taken"):
            work()
    assert not out.parent.exists()


def test_other_reports_are_kept_and_the_films_are_never_written_to(clean, tmp_path):
    inspect(clean, out=tmp_path / "out")
    with pytest.raises(ValueError, match="already holds other files"):
        inspect(clean, classes=["ill"], out=tmp_path / "out")
    inspect(clean, classes=["ill"], out=tmp_path / "out", overwrite=True)
    with pytest.raises(ValueError, match="taken for films: name a folder outside"):
        inspect(clean, out=clean / "report")
    assert not (clean / "report").exists()


def test_names_that_a_font_lacks_and_formulas_do_not_break_the_sheet(films, tmp_path):
    write(tmp_path / "set" / "肺炎 $x_{$", films[:2])
    inspect(tmp_path / "set", out=tmp_path / "out")
    assert (tmp_path / "out" / "contact_sheet.png").is_file()


def test_a_set_of_unreadable_files_still_gives_a_report(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"<html>not found</html>")
    result = inspect(tmp_path / "set", out=tmp_path / "out")
    assert result["counts"]["readable"] == 0 and "HTML" in result["problems"][0]
    assert tables(result)


def test_a_run_is_inspected_for_its_films(clean, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    about = {"source": str(clean), "classes": ["ill"]}
    (run / "data.json").write_text(json.dumps(about))
    assert inspect(run)["counts"]["files"] == 20
    for source, reason in ((str(tmp_path / "gone"), "does not exist"), ("phantom", "phantom")):
        (run / "data.json").write_text(json.dumps({"source": source}))
        with pytest.raises(ValueError, match=reason):
            inspect(run)
    (run / "data.json").write_text("[]")
    with pytest.raises(ValueError, match="does not say"):
        inspect(run)


def test_the_command_prints_tables_and_strict_decides_the_exit_code(clean, films, run_command):
    clear = run_command(clean, "--strict")
    assert clear.exit_code == 0, clear.output
    assert "can the class be told without the film?" in clear.output
    assert "Problems" not in clear.output
    write(clean / "well", films[:1], ".PNG")
    assert run_command(clean).exit_code == 0
    failed = run_command(clean, "--strict")
    assert failed.exit_code == 1 and "duplicates across classes" in failed.output


def test_the_command_prints_json_alone_on_request(clean, run_command):
    printed = run_command(clean, "--class", "ill", "--json")
    # Older releases of click mix the progress lines on stderr into what they call stdout.
    result = json.loads(printed.stdout[printed.stdout.index("{") :])
    assert result["counts"]["files"] == 20


@pytest.mark.parametrize("name", ["nowhere", "empty", "phantom"])
def test_bad_input_is_one_clear_line(name, tmp_path, run_command):
    (tmp_path / "empty").mkdir()
    failed = run_command(name)
    assert failed.exit_code == 1
    (line,) = failed.output.strip().splitlines()
    assert line.startswith("Error: ")


def test_suspects_are_warned_of_but_are_no_problem(clean):
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 12:26] = mask[16:48, 38:52] = 255
    write(clean / "well", [mask], ".bmp.png")
    result = inspect(clean)
    assert result["problems"] == []
    assert any("1 image may be a mask" in text for text in result["warnings"])
