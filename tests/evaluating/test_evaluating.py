"""`evaluate` and `audit` as a user calls them, with a small network of the user's own."""

import hashlib
import json
import re

import keras
import pytest
from click.testing import CliRunner
from clouds import clouds, only, write

from keras_cxrgan import workflows
from keras_cxrgan.cli import main
from keras_cxrgan.evaluation import torch_weights
from keras_cxrgan.evaluation.inception import random_state_dict
from keras_cxrgan.evaluation.report import tables
from keras_cxrgan.workflows import comparing


def test_scores_order_a_good_a_collapsed_and_a_noisy_generator(results):
    frechet = {name: only(result)["frechet"]["value"] for name, result in results.items()}
    kid = {name: only(result)["kid"]["kid"] for name, result in results.items()}
    assert frechet["good"] < frechet["collapsed"] < frechet["noise"]
    assert kid["good"] < kid["collapsed"] < kid["noise"]


def test_each_score_has_its_floor_at_the_same_count_and_its_error(results):
    entry = only(results["good"])
    assert entry["floor"]["n"] == 40
    assert entry["frechet"]["standard_error"] > 0
    assert entry["kid"]["standard_error"] > 0
    floor = entry["floor"]["frechet"]
    # Same law: at equal counts the fakes stand where real films stand.
    assert abs(floor["fake_mean"] - floor["floor_mean"]) < 4 * floor["floor_sd"]
    assert entry["kid"]["p_value"] > 0.01
    assert only(results["noise"])["kid"]["p_value"] < 0.01


def test_collapse_is_named_and_only_where_it_is(results):
    assert any("COLLAPSE" in text for text in results["collapsed"]["findings"])
    assert not any("COLLAPSE" in text for text in results["good"]["findings"])
    assert any("NOT REALISTIC" in text for text in results["noise"]["findings"])
    assert results["good"]["findings"] == []


def test_copies_are_suspected_when_training_films_are_nearer_than_held_out_ones(judge, sets):
    result = judge(["learnt"], real="many", held_out=sets["unseen"])
    values = only(result)["held_out"]
    assert any("COPIES?" in text and "cxrgan audit" in text for text in result["findings"])
    held = judge(["others"], real="many", held_out=sets["unseen"])
    assert not any("COPIES?" in text for text in held["findings"])
    # The trap: against the training films the copying generator looks best of all.
    assert values["fake_to_real"] < values["real_to_held_out"] < 2 * values["fake_to_held_out"]


def test_few_images_are_warned_about(judge):
    warnings = " ".join(judge(["few"])["warnings"])
    for part in ("N < D: 20 images for 24", "unequal counts: 80 real and 20", "below 50"):
        assert part in warnings


def test_unverified_weights_are_warned_about(results):
    assert any("unverified weights" in text for text in results["good"]["warnings"])


def test_two_generators_are_compared_with_an_interval(judge):
    (pair,) = judge(["noise", "good"])["extractors"][0]["comparisons"]
    for measure in ("frechet", "kid"):
        assert 0 < pair[measure]["low"] < pair[measure]["difference"] < pair[measure]["high"]
        assert pair[measure]["p_value"] < 0.05


def test_the_ladder_puts_degraded_reals_and_fakes_on_one_scale(judge):
    ladder = judge(["good", "noise"], references=True)["extractors"][0]["ladder"]
    names = [row["name"] for row in ladder["rows"]]
    assert names[-1] == "noise"
    assert "another half of the real films" in names and "good" in names
    assert len(names) >= 6
    values = [row["frechet"] for row in ladder["rows"]]
    assert values == sorted(values)


def test_the_same_seed_twice_writes_the_same_bytes(judge, tmp_path):
    for name in ("a", "b"):
        judge(["good"], out=tmp_path / name, references=True)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [
        "histograms.png", "ladder.png", "metrics.json", "nearest.png", "report.md", "spectra.png",
    ]  # fmt: skip
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_whatever_decides_a_score_changes_its_provenance(judge, results, sets, tmp_path):
    first = only(results["good"])["provenance"]
    assert only(judge(["good"]))["provenance"] == first
    other_network = keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            keras.layers.Conv2D(24, 5),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    other_network.save(tmp_path / "small.keras")
    changes = [
        dict(fakes=["held"]),
        dict(image_size=24),
        dict(neighbours=3),
        dict(seed=1),
        dict(features=(str(tmp_path / "small.keras"),)),
    ]  # fmt: skip
    others = [only(judge(**({"fakes": ["good"]} | change)))["provenance"] for change in changes]
    inceptions = [
        only(judge(["few"], "few", features=("random",), dims=64, mode=mode, preparation=None))[
            "provenance"
        ]
        for mode in ("pytorch-fid", "legacy-tf")
    ]
    assert len({first, *others, *inceptions}) == 1 + len(others) + len(inceptions)


def test_a_renamed_folder_is_found_in_the_cache_and_a_changed_file_is_not(
    sets, network, tmp_path, monkeypatch
):
    monkeypatch.setenv("CXRGAN_CACHE", str(tmp_path / "cache"))

    def kept():
        return {path.name for path in (tmp_path / "cache" / "features").iterdir()}

    def run(real):
        return workflows.evaluate(
            real, [sets["good"]], features=(network,), preparation="range=-1:1", references=False
        )

    first = run(write(tmp_path / "one", clouds(80, 1)))
    names = kept()
    again = run(write(tmp_path / "two", clouds(80, 1)))
    assert kept() == names
    assert only(first)["frechet"] == only(again)["frechet"]
    changed = clouds(80, 1)
    changed[0, 0, 0] ^= 64
    run(write(tmp_path / "three", changed))
    assert len(kept() - names) == 1


def test_numbers_that_want_thousands_of_images_are_refused_before_any_work(judge, monkeypatch):
    monkeypatch.setattr(comparing, "extract", None)
    with pytest.raises(ValueError, match="--frechet-infinity.*5000"):
        judge(["good"], frechet_infinity=True)
    with pytest.raises(ValueError, match="--kid-subsets takes 1,000 images"):
        judge(["good"], kid_subsets=True)


def test_the_inception_score_comes_with_the_sentence_on_its_meaning(
    judge, sets, tmp_path, monkeypatch
):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"stands for the file that is read below")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(torch_weights.FID_WEIGHTS, "sha256", digest)
    monkeypatch.setattr(torch_weights, "read_state_dict", lambda _: random_state_dict(0))
    result = judge(["few"], with_inception_score=True, weights={"fid2015": str(path)})
    score = result["appearance"][0]["inception_score"]
    assert 1 <= score["mean"] <= 2  # two images a split
    assert "means little for chest" in tables(result)[-1].note


def audit(sets, network, fake, **arguments):
    return workflows.audit(
        sets["real"], sets[fake], features=network, preparation="range=-1:1", cache=False,
        **arguments,
    )  # fmt: skip


def by_pixels(result):
    pairs = result["audit"]["flagged"]
    return {pair["fake"]: pair["train"] for pair in pairs if "pixels" in pair["rule"]}


def test_an_audit_finds_the_copies_and_only_them(sets, network, tmp_path):
    out = tmp_path / "audit"
    result = audit(sets, network, "copies", held_out=sets["held"], out=out)
    assert by_pixels(result) == {index: index for index in range(20)}
    assert any("20 of 20 generated images lie as near" in text for text in result["findings"])
    assert by_pixels(audit(sets, network, "few", held_out=sets["held"])) == {}
    files = sorted(path.name for path in out.iterdir())
    assert files == ["audit.json", "audit.md", "distances.png", "pairs.png"]


@pytest.mark.parametrize("fake", ["few", "copies"])
def test_an_audit_never_calls_images_private(sets, network, fake, tmp_path):
    audit(sets, network, fake, out=tmp_path / "audit")
    text = "".join(path.read_text() for path in (tmp_path / "audit").glob("audit.*"))
    assert not re.search("private|anonym", text, re.IGNORECASE)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_prints_fidelity_and_diversity_first_and_writes_a_report(
    sets, network, tmp_path
):
    result = run(
        "evaluate", sets["real"], sets["collapsed"], "--features", network, "--preparation",
        "range=-1:1", "--out", tmp_path / "out", "--no-cache",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    header = next(index for index, line in enumerate(lines) if "precision" in line)
    distances = next(index for index, line in enumerate(lines) if "FD-small" in line)
    assert "recall" in lines[header] and header < distances
    assert "COLLAPSE" in result.stdout
    page = (tmp_path / "out" / "report.md").read_text()
    assert "COLLAPSE" in page and "real halves" in page
    as_json = run(
        "evaluate", sets["real"], sets["collapsed"], "--features", network, "--preparation",
        "range=-1:1", "--out", tmp_path / "out", "--no-cache", "--json",
    )  # fmt: skip
    # Older releases of click mix the progress lines on stderr into what they call stdout.
    printed = as_json.stdout[as_json.stdout.index("{") :]
    assert json.loads(printed) == json.loads((tmp_path / "out" / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere", "good"], "nowhere does not exist"),
        (["evaluate", "real", "empty"], "holds no PNG, JPEG or DICOM"),
        (["evaluate", "real", "one"], "FAKE has 1 image, and with --neighbours 5 an evaluation"),
        (
            ["evaluate", "real", "few", "--neighbours", "9"],
            "needs at least 22: add images, or lower",
        ),
        (["evaluate", "real", "corrupt"], "bad.png"),
        (["evaluate", "real", "good", "--features", "vgg"], "--features must be cxr, fid2015"),
        (["evaluate", "real", "good", "--weights", "x.pth"], "fid2015=PATH"),
        (["evaluate", "real", "good", "--dims", "999"], "is not one of"),
        (["evaluate", "real", "good", "--dims", "2048"], "--dims would change nothing here"),
        (["evaluate", "real", "good", "--mode", "clean"], "--mode would change nothing here"),
        (
            ["evaluate", "real", "good", "--best"],
            "--best would change nothing here: it needs a run",
        ),
        (["evaluate", "real", "good", "--weights", "fid2015=x.pth"], "--features fid2015 too"),
        (["audit", "real", "good", "--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["evaluate", "real", "good", "--count", "1"], "--count must be 2 or more"),
        (["evaluate", "real", "good", "--draws", "0"], "--draws must be 1 or more, got 0"),
        (["evaluate", "real", "good", "--draws", "3"], "--draws would change nothing here"),
        (["audit", "one", "few"], "are needed"),
        (["audit", "real", "nowhere"], "nowhere does not exist"),
        (["evaluate", "real", "good", "--features", ""], "--features names no extractor"),
        (["audit", "real", "good", "--held-out", "real"], "holds nothing but films of"),
    ],
)
def test_bad_input_gives_one_clear_message(sets, tmp_path, arguments, message):
    places = dict(sets)
    (tmp_path / "empty").mkdir()
    places["empty"] = str(tmp_path / "empty")
    places["one"] = write(tmp_path / "one", clouds(1, 9))
    places["corrupt"] = write(tmp_path / "corrupt", clouds(20, 9))
    (tmp_path / "corrupt" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    places["nowhere"] = str(tmp_path / "nowhere")
    command = [places.get(argument, argument) for argument in arguments]
    result = run(*command, "--out", tmp_path / "out", "--no-cache")
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_another_evaluation_is_not_written_over(sets, network, judge, tmp_path):
    judge(["good"], out=tmp_path / "out")
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="already holds other files.*--overwrite"):
        judge(["noise"], out=tmp_path / "out")
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    with pytest.raises(ValueError, match="already holds other files"):
        judge(["good"], out=tmp_path / "out", references=True)
    judge(["good"], out=tmp_path / "out")  # the same again is welcome
    judge(["noise"], out=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "metrics.json").read_bytes() != before


def test_faults_finer_than_the_network_sees_are_warned_about(judge):
    warned = " ".join(judge(["few"], image_size=48)["warnings"])
    assert "small.keras sees images of 48 pixels shrunk to 32" in warned
    assert "shrunk" not in " ".join(judge(["few"])["warnings"])


def test_held_out_films_that_were_trained_on_are_not_held_out(judge, sets):
    warned = " ".join(judge(["good"], held_out=sets["real"])["warnings"])
    assert "80 held-out films are also in real" in warned
