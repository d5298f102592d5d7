"""`evaluate` of a run: its images, many sets of them, and the films that may judge it."""

import pytest
from clouds import clouds, only, write

from keras_cxrgan import workflows
from keras_cxrgan.evaluation.report import tables


def test_generating_and_reading_the_files_back_gives_the_same_scores(
    trained, sets, network, tmp_path
):
    _, run = trained
    workflows.generate(run, tmp_path / "images", 80, seed=3, grid=True)
    of_run, of_files = (
        workflows.evaluate(
            sets["real"], [str(made)], features=(network,), preparation="range=-1:1",
            seed=3, references=False, cache=False,
        )
        for made in (run, tmp_path / "images")
    )  # fmt: skip
    assert "grid.png" in str(of_files["fakes"][0]["notes"])
    for key in ("frechet", "kid", "vendi", "recall"):
        assert only(of_run)[key] == only(of_files)[key]
    warned = " ".join(of_run["warnings"])
    assert "run was trained on 48 of the 80 images of real" in warned
    assert "was trained on" not in " ".join(of_files["warnings"])


def test_several_sets_of_a_generator_are_scored_beside_the_first(trained, sets, network):
    _, run = trained
    one, three = (
        workflows.evaluate(
            sets["real"], [run, sets["good"]], features=(network,), preparation="range=-1:1",
            count=40, draws=draws, references=False, cache=False, held_out=sets["unseen"],
        )
        for draws in (1, 3)
    )  # fmt: skip
    (alone, _), (made, files) = (result["extractors"][0]["scores"] for result in (one, three))
    assert {key: made[key] for key in ("frechet", "kid", "recall")} == {
        key: alone[key] for key in ("frechet", "kid", "recall")
    }
    assert (made["n_fake"], made["draws"]["sets"], made["draws"]["n"]) == (40, 3, 40)
    assert made["draws"]["frechet"]["sd"] > 0 and made["provenance"] != alone["provenance"]
    assert files["draws"] is None  # files are what they are
    assert one["extractors"][0]["scores"][0]["draws"] is None
    balance, distances, unseen = tables(three)[:3]
    for table in (balance, distances, unseen):
        assert [row[0].strip() for row in table.rows if "sets" in row[0]] == [
            "3 sets of 40 fakes, mean ± sd"
        ]
    shown = next(row for row in distances.rows if "sets" in row[0])[1]
    assert float(shown.split(" ± ")[0]) == pytest.approx(made["draws"]["frechet"]["mean"], rel=0.1)


def test_a_generator_is_scored_by_many_sets_unless_one_is_asked_for(trained, sets, network):
    result = workflows.evaluate(
        sets["few"], [trained[1]], features=("cxr", network), preparation="range=-1:1",
        references=False, cache=False,
    )  # fmt: skip
    ours, other = (block["scores"][0] for block in result["extractors"])
    assert (ours["n_fake"], ours["draws"]["sets"]) == (20, 50)
    assert other["draws"] is None  # which may be slow


def test_a_generator_is_not_judged_on_films_it_was_trained_on(trained, network, tmp_path):
    manifest, run = trained

    def judge(held_out, real="train", made=run, **options):
        return workflows.evaluate(
            f"{manifest}:{real}", [made], held_out=held_out, features=(network,),
            preparation="range=-1:1", references=False, cache=False, **options,
        )  # fmt: skip

    honest = judge(f"{manifest}:test")
    assert honest["held_out"]["count"] == 32
    assert "run was trained on 48 of the 48 images" in " ".join(honest["warnings"])
    with pytest.raises(ValueError, match="trained on 48 of the held-out films .*--allow-leak"):
        judge(f"{manifest}:train,test")
    stamped = judge(f"{manifest}:train,test", allow_leak=True)
    assert stamped["settings"]["allow_leak"] is True
    assert any("LEAK ALLOWED" in text for text in stamped["warnings"])
    with pytest.raises(
        ValueError, match="--held-out .* has 4 images, and .* at least 7 are needed"
    ):
        judge(str(write(tmp_path / "four", clouds(4, 9))))

    export = f"{run}/export"
    with pytest.raises(ValueError, match="run was trained on none of the films of"):
        workflows.audit(
            f"{manifest}:test", run, features=network, preparation="range=-1:1", cache=False,
            count=8,
        )  # fmt: skip
    # An export tells the fingerprint of its films, and no film.
    told = judge(f"{manifest}:test", made=export)["warnings"]
    assert any("does not list the films it was trained on" in text for text in told)
    with pytest.raises(ValueError, match="was trained on .*, which is to judge it"):
        judge(f"{manifest}:train", real="test", made=export)


def test_an_audit_says_which_share_of_copies_so_few_images_would_not_have_shown(
    trained, sets, network
):
    options = {"features": network, "preparation": "range=-1:1", "cache": False}
    of_run = workflows.audit(sets["real"], trained[1], count=59, **options)
    of_files = workflows.audit(sets["real"], sets["few"], **options)
    for result in (of_run, of_files):
        assert result["findings"][0].startswith("none of ")
    # None of 59 is one where 5 % are with probability 0.95^59 = 0.048.
    assert "up to 5 % may lie so near (95 % confidence)" in of_run["findings"][0]
    assert "may lie so near" not in of_files["findings"][0]  # those are all that there are
