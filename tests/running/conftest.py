"""One finished run, of a few small films, for all tests of a file."""

import shutil

import pytest
from small_runs import TINY, write_films

from keras_cxrgan import workflows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty films of NORMAL and twelve of PNEUMONIA."""
    folder = tmp_path_factory.mktemp("films")
    write_films(folder / "NORMAL", 20, seed=1)
    write_films(folder / "PNEUMONIA", 12, seed=2)
    return folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """(run, result, progress reports) of one finished run; tests do not change it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    reports = []
    result = workflows.train(
        TINY,
        run,
        data=str(folder),
        backup_seconds=0,
        report=lambda stage, done, total, note="": reports.append((stage, done, total)),
    )
    return run, result, reports


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    return shutil.copytree(finished[0], tmp_path / "run")


@pytest.fixture
def no_training(monkeypatch):
    """For mistakes that must be found before any network is built."""

    def build_gan(*arguments, **options):
        raise AssertionError("the networks were built")

    monkeypatch.setattr(workflows.running, "build_gan", build_gan)
