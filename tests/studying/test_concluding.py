"""From predictions to the answer, and the command that prints it."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_studies import TINY, plan

from keras_cxrgan.cli import main
from keras_cxrgan.workflows import (
    concluding,
    designing,
    studying,
)
from keras_cxrgan.workflows.designing import plan_study

# Hand-made predictions through the whole writer


def write_cell(study, cell, right):
    """Write predictions of which `right(place, label)` says whether they are so."""
    folder = study.out / "cells" / cell.name
    folder.mkdir(parents=True)
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "file", "sha256", "patient", "label", "p BRIGHT", "p DARK"])
        seen = [0, 0]
        for i in study.part(cell).test:
            label = study.films.labels[i]
            p = 0.8 if right(seen[label], label) else 0.2
            seen[label] += 1
            row = [p, round(1 - p, 1)] if label == 0 else [round(1 - p, 1), p]
            record = study.films.records[i]
            digest = study.films.hashes[i]
            writer.writerow(["test", record.name, digest, "of the study", record.label, *row])
    return {
        "arm": cell.arm, "part": cell.part, "size": cell.size, "seed": cell.seed, "row": cell.row,
        "name": cell.name,
    }  # fmt: skip


def test_hand_made_predictions_give_hand_computed_numbers(folds, tmp_path):
    study = plan_study(folds, tmp_path, arms=("gan",), fields=TINY, seeds=(0, 1))
    # real misses 7 of 10 DARK films of each fold, and gan none.
    cells = [
        write_cell(study, cell, lambda n, label, arm=cell.arm: arm == "gan" or label == 0 or n < 3)
        for cell in study.cells
    ]
    results = concluding.conclude(study, cells)
    real, gan = results["sets"]["test"][0]["rows"]
    for scores in real["scores"]:
        assert scores["confusion"] == [[20, 0], [14, 6]]
        assert scores["balanced_accuracy"] == 0.65
        assert scores["classes"][0]["precision"] == 20 / 34
        assert scores["classes"][1]["f1"] == 12 / 26
        assert scores["macro"]["f1"] == pytest.approx((40 / 54 + 12 / 26) / 2)
        assert scores["calibration_error"] == pytest.approx(abs(26 / 40 - 0.8))
    assert gan["comparison"]["difference"] == pytest.approx(0.35)
    assert gan["comparison"]["patients"] == 20
    assert (gan["mcnemar"]["only_arm_right"], gan["mcnemar"]["only_baseline_right"]) == (14, 0)
    assert gan["mcnemar"]["p_exact"] == 2 * 0.5**14
    assert gan["answer"]["verdict"] == "helps"
    assert results["answer"][0].startswith("gan x1 helps: balanced accuracy rises by 35.0")
    page = (tmp_path / "results.md").read_text()
    assert "| real | 2 | 65.0 ± 0.0 | 65.0 ± 0.0 | 65.0 ± 0.0 | 79.4 ± 0.0 |" in page
    assert "| gan x1 | +35.0 | " in page and " | 14 : 0 | " in page


def test_the_page_says_of_runs_that_were_given_what_they_may_have_seen(folds, tmp_path):
    study = plan_study(folds, tmp_path, arms=("gan",), fields=TINY, seeds=(0,))
    cells = [write_cell(study, cell, lambda n, label: True) for cell in study.cells]
    runs = {"BRIGHT": tmp_path / "runs" / "a", "DARK": tmp_path / "runs" / "b"}
    concluding.conclude(dataclasses.replace(study, generators=runs), cells)
    page = (tmp_path / "results.md").read_text()
    assert "generated images: BRIGHT from a, DARK from b, runs that were given" in page
    assert "those that choose they may have seen" in page
    assert "The GANs see neither" not in page and "GANs of the recipe" not in page


def test_a_seed_of_which_a_part_failed_does_not_count(folds, tmp_path):
    study = plan_study(folds, tmp_path, arms=("copies",), fields=TINY, seeds=(0, 1))
    cells = [write_cell(study, cell, lambda n, label: n % 2 == 0) for cell in study.cells]
    last = cells[-1]
    assert (last["arm"], last["seed"]) == ("copies", 1)
    last["error"] = "out of memory"
    results = concluding.conclude(study, cells)
    real, copies = results["sets"]["test"][0]["rows"]
    assert (real["seeds"], copies["seeds"]) == ([0, 1], [0])
    assert copies["comparison"]["seeds"] == 1
    assert "with one seed" in results["answer"][0]


def test_the_time_is_measured_once_and_then_known_to_the_plan(halves, network, tmp_path):
    def make(steps):
        return plan(halves, tmp_path, network, arms=("gan",), seeds=(0,), steps=steps)

    study = make(3)
    assert designing.estimate(study) is None
    studying.measure(study, np.zeros((40, 32, 32), np.uint8))
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert designing.estimate(study) == 2 * measured["cell"] + 2 * measured["gan"] > 0
    assert designing.estimate(make(4)) is None


def test_no_estimate_is_no_reason_not_to_begin(halves, network, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(studying, "measure", fail)
    study = plan(halves, tmp_path, network, arms=("copies",), seeds=(0,), steps=2)
    told = []
    written = studying.run_study(study, lambda *args: told.append(args[-1]))
    assert "no estimate of the time: no memory" in told
    assert len(written["cells"]) == 2 and not written["failed"]


def test_the_same_films_under_another_path_are_the_same_study(
    folds, network, tmp_path, monkeypatch
):
    first = plan(folds, tmp_path, network, arms=(), seeds=(0,), steps=2)
    studying.run_study(first)
    monkeypatch.chdir(Path(folds).parent)
    again = plan("folds.csv", tmp_path, network, arms=("copies",), seeds=(0,), steps=2)
    assert sum(designing.finished(again, cell) is not None for cell in again.cells) == 2
    results = studying.run_study(again)
    rows = {row["row"]: row for row in results["sets"]["test"][0]["rows"]}
    assert rows["copies x1"]["comparison"]["films"] == 40


# The command


def test_the_plan_is_printed_without_training_anything(folds, tmp_path):
    out = tmp_path / "out"
    command = ["study", folds, "--sizes", "50%,100%", "--ratios", "1,2", "--out", str(out)]
    command += [
        "--arms",
        "real,classic,gan",
        "--seeds",
        "0,1,2",
        "--dry-run",
        "--set",
        "batch_size=4",
    ]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0, shown.output
    assert "unknown before the first cell" in shown.output and not out.exists()
    about = json.loads(CliRunner().invoke(main, [*command, "--json"]).output)
    # 2 folds, 2 sizes, 3 seeds; real and classic, and gan at two ratios. GANs: 2 classes each.
    assert about["cells"] == 2 * 2 * 3 * 4
    assert about["gans"] == 2 * 2 * 2
    assert about["seconds_left"] is None


def test_the_command_answers(halves, network, tmp_path):
    command = ["study", halves, "--arms", "real,copies", "--seeds", "0", "--steps", "5"]
    command += ["--classifier", network, "--set", "image_size=32", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "No difference shown for copies x1" in " ".join(done.output.split())
    assert (tmp_path / "out" / "results.md").is_file()


def test_a_mistake_is_one_line(folds, tmp_path):
    failed = CliRunner().invoke(main, ["study", folds, "--sizes", "half", "--out", str(tmp_path)])
    assert failed.exit_code == 2 and "must be numbers such as 25%,50%,100%" in failed.output
    failed = CliRunner().invoke(main, ["study", str(tmp_path / "no.csv")])
    assert failed.exit_code == 1 and failed.output.count("\n") == 1
