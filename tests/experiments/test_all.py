"""Every experiment in a row, with processes that are not started."""

import importlib.util
import json

import pytest
from click.testing import CliRunner

from experiments import all as every


def fake(results=None, code=0, last=""):
    """A process that writes results.json into its --out."""

    def run(name, arguments):
        given = dict(zip(arguments[::2], arguments[1::2]))
        if results is not None:
            every.Path(given["--out"]).mkdir(parents=True, exist_ok=True)
            path = every.Path(given["--out"]) / "results.json"
            path.write_text(json.dumps(results | {"citation": name}))
        return code, last

    return run


def test_a_failed_or_missing_experiment_does_not_stop_the_others(tmp_path):
    def run(name, arguments):
        if name == "a":
            return 1, "Error: failed: x"
        return fake({"given": "60 films"})(name, arguments)

    entries = every.run_all(["a", "b"], tmp_path, lambda name: [], run)
    assert [entry["state"] for entry in entries] == ["failed: failed: x", "complete"]
    assert entries[0]["results"] is None and entries[1]["results"]["given"] == "60 films"


def test_an_interrupt_ends_the_row_and_says_so(tmp_path):
    entries = every.run_all(["a", "b"], tmp_path, lambda name: [], fake(code=130))
    assert [entry["name"] for entry in entries] == ["a"]
    assert "the same command goes on" in entries[0]["state"]


def test_an_experiment_that_is_not_there_is_a_line():
    code, said = every.run_one("no_such_paper", [])
    assert code == 1 and "no experiments/no_such_paper.py" in said


def test_a_process_is_started_and_its_error_is_the_last_line():
    code, said = every.run_one("noori2024", ["--scale", "huge"])
    assert code == 2 and "'huge' is not one of" in said


def test_data_and_class_are_of_all_or_of_one_experiment(tmp_path, monkeypatch):
    seen = {}

    def run(name, arguments):
        seen[name] = arguments[2:]
        return 0, ""

    monkeypatch.setattr(every.run_all, "__defaults__", (run,))
    arguments = ["--out", str(tmp_path), "--data", "films", "--data", "venu2020=other",
                 "--class", "noori2024=NORMAL", "--only", "venu2020",
                 "--only", "noori2024"]  # fmt: skip
    shown = CliRunner().invoke(every.main, arguments)
    assert shown.exit_code == 0, shown.output
    common = ["--scale", "smoke", "--seeds", "0", "--features", "cxr"]
    assert seen["venu2020"] == [*common, "--data", "other"]
    assert seen["noori2024"] == [*common, "--data", "films", "--class", "NORMAL"]
    assert (tmp_path / "report.md").is_file() and (tmp_path / "report.html").is_file()


def test_an_unknown_experiment_is_refused(tmp_path):
    shown = CliRunner().invoke(every.main, ["--out", str(tmp_path), "--data", "venu=films"])
    assert shown.exit_code == 2 and "'venu' is no experiment" in shown.stderr


@pytest.mark.parametrize("name", every.NAMES)
def test_every_name_is_an_experiment(name):
    assert importlib.util.find_spec(f"experiments.{name}")
