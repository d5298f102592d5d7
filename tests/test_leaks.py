"""From training to testing nothing crosses; what is allowed to is said by every result."""

import json
import shutil
import types

import numpy as np
import pytest
from click.testing import CliRunner

from keras_cxrgan import workflows
from keras_cxrgan.cli import main
from keras_cxrgan.data.images import read_png_text, write_png
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.workflows import comparing

TINY = Recipe().override(
    image_size=32, width=4, generator_max_width=8, discriminator_max_width=8, latent_dim=8,
    batch_size=8, epochs=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Forty films, half to train and half to test."""
    folder = tmp_path_factory.mktemp("films")
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:40, 0:40]
    for index in range(40):
        wave = np.sin(rows / random.uniform(2, 9)) + np.cos(columns / random.uniform(2, 9))
        write_png(folder / f"p{index:02d}_0.png", np.rint(127.5 + 60 * wave).astype(np.uint8))
    halves = {"train": 0.5, "test": 0.5}
    workflows.split(folder, folder / "manifest.csv", fractions=halves, patient_regex=r"(p\d+)_")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def honest(manifest, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "honest"
    workflows.train(TINY, run, data=str(manifest), split="train")
    return run


@pytest.fixture(scope="module")
def leaky(manifest, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "leaky"
    workflows.train(TINY, run, data=f"{manifest}:train,test", allow_leak=True)
    return run


@pytest.mark.parametrize("split", ["test", "train,test"])
def test_training_on_films_for_judging_is_refused_before_anything_is_written(
    manifest, tmp_path, split
):
    with pytest.raises(ValueError, match=r"20 of the \d0 films .* of the split test.*p\d\d_0.png"):
        workflows.train(TINY, tmp_path / "run", data=str(manifest), split=split)
    assert not (tmp_path / "run").exists()


def test_a_run_lists_its_films_and_says_what_leaked(honest, leaky):
    said = [json.loads((run / "data.json").read_text()) for run in (honest, leaky)]
    assert [len(about["images"]) for about in said] == [20, 40]
    assert [about["leaks"] for about in said] == [[], ["trained on 20 films of the split test"]]
    card = json.loads((leaky / "export" / "card.json").read_text())
    assert card["data"]["leaks"] == ["trained on 20 films of the split test"]


def test_images_of_a_leaky_run_say_so(leaky, honest, tmp_path):
    assert workflows.generate(honest, tmp_path / "good", 1)["leaks"] == []
    assert "Warning" not in read_png_text((tmp_path / "good" / "000000.png").read_bytes())
    for source in (leaky, leaky / "export"):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        result = workflows.generate(source, tmp_path / "bad", 1)
        assert result["leaks"] == ["trained on 20 films of the split test"]
        text = read_png_text((tmp_path / "bad" / "000000.png").read_bytes())
        assert text["Warning"] == "Leak allowed: trained on 20 films of the split test"


def test_a_run_that_began_with_a_leaky_one_says_so(manifest, leaky, tmp_path):
    """However often it goes on: its weights have seen those films."""
    run, said = tmp_path / "run", "began with a run trained on 20 films of the split test"
    for epochs in (1, 2):
        workflows.train(
            TINY.override(epochs=epochs), run, data=manifest, split="train", start_from=leaky,
            extend=epochs > 1,
        )  # fmt: skip
        for source in (run, run / "export"):
            result = workflows.generate(source, tmp_path / f"{source.name}{epochs}", 1)
            assert result["leaks"] == [said]
    image = (tmp_path / "export2" / "000000.png").read_bytes()
    assert read_png_text(image)["Warning"] == f"Leak allowed: {said}"
    # A stage that saw the films itself says so once.
    again = tmp_path / "again"
    workflows.train(TINY, again, data=f"{manifest}:train,test", start_from=run, allow_leak=True)
    assert workflows.generate(again, tmp_path / "images", 1)["leaks"] == [
        "trained on 20 films of the split test"
    ]


def test_a_run_that_goes_on_from_another_source_still_says_what_leaked(manifest, tmp_path):
    run, plain = tmp_path / "run", tmp_path / "plain"
    workflows.train(TINY, run, data=f"{manifest}:train,test", allow_leak=True)
    # The same films, in a folder that does not know which of them are to test on.
    shutil.copytree(manifest.parent, plain, ignore=shutil.ignore_patterns("*.csv"))
    workflows.train(TINY.override(epochs=2), run, data=str(plain), extend=True)
    said = ["trained on 20 films of the split test"]
    assert json.loads((run / "data.json").read_text())["leaks"] == said
    assert workflows.generate(run, tmp_path / "images", 1)["leaks"] == said


def test_a_run_on_copies_of_the_held_out_films_has_seen_them(manifest, tmp_path):
    copies = tmp_path / "copies"
    workflows.augment_films(f"{manifest}:test", copies, 4, keep_originals=False, allow_leak=True)
    run = tmp_path / "run"
    workflows.train(
        TINY.override(batch_size=4), run, data=str(copies / "films.csv"), allow_leak=True
    )
    with pytest.raises(ValueError, match=r"trained on \d of the 20 films .*p\d\d_0.png"):
        workflows.generate(run, tmp_path / "images", 1, held_out=f"{manifest}:test")


def test_generate_refuses_a_run_that_saw_the_held_out_films(manifest, honest, leaky, tmp_path):
    test = f"{manifest}:test"
    workflows.generate(honest, tmp_path / "good", 1, held_out=test)
    with pytest.raises(
        ValueError, match=r"trained on 20 of the 20 films .*p\d\d_0.png.*allow-leak"
    ):
        workflows.generate(leaky, tmp_path / "bad", 1, held_out=test)
    assert not (tmp_path / "bad").exists()
    result = workflows.generate(leaky, tmp_path / "bad", 1, held_out=test, allow_leak=True)
    assert result["leaks"][1] == f"trained on 20 of the films of {test}"
    with pytest.raises(ValueError, match="does not list the films .* give the run"):
        workflows.generate(honest / "export", tmp_path / "other", 1, held_out=test)


def test_evaluate_refuses_test_films_as_the_real_side_of_a_run_that_saw_them(
    manifest, honest, leaky
):
    def judge(run, **options):
        return workflows.evaluate(
            f"{manifest}:test", [str(run)], references=False, cache=False, **options
        )

    def warned(result):
        return [text for text in result["warnings"] if "LEAK ALLOWED" in text]

    assert warned(judge(honest)) == []
    with pytest.raises(ValueError, match="leaky was trained on 20 of the held-out films"):
        judge(leaky)
    assert len(warned(judge(leaky, allow_leak=True))) == 2


def test_the_commands_refuse_in_one_line_and_stamp_what_is_allowed(manifest, leaky, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    refused = run("train", "--data", manifest, "--split", "test", "--out", tmp_path / "run")
    assert refused.exit_code == 1 and "pass --allow-leak" in refused.output
    assert isinstance(refused.exception, SystemExit)
    arguments = ("generate", leaky, "-n", 1, "--held-out", f"{manifest}:test")
    refused = run(*arguments, "--out", tmp_path / "a")
    assert refused.exit_code == 1 and "was trained on 20 of the 20 films" in refused.output
    allowed = run(*arguments, "--out", tmp_path / "a", "--allow-leak")
    assert allowed.exit_code == 0 and "LEAK ALLOWED: trained on 20 films" in allowed.output


def test_an_audit_says_of_which_films_it_cannot_find_copies():
    def side(hashes=(), trained_on=frozenset(), fingerprint="", data=None):
        about = {"kind": "generator", "fingerprint": fingerprint, "data": {"fingerprint": data}}
        return types.SimpleNamespace(
            label="side", hashes=hashes, originals=(None,) * len(hashes), about=about,
            trained_on=trained_on,
        )  # fmt: skip

    films, export = side(("a", "b"), fingerprint="ab"), side(trained_on=None, data="ab")
    assert comparing.unseen(side(trained_on=frozenset("ab")), films) == []
    (told,) = comparing.unseen(side(trained_on=frozenset("abcd")), films)
    assert "was trained on 2 films that side does not hold" in told
    with pytest.raises(ValueError, match="trained on none of the films"):
        comparing.unseen(side(trained_on=frozenset("cd")), films)
    assert comparing.unseen(export, films) == []
    (told,) = comparing.unseen(export, side(("a",), fingerprint="a"))
    assert "are not just those of side" in told
