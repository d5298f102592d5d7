"""Ng and Hargreaves 2023: size, epochs, and DCGAN against WGAN-GP."""

import itertools
import math

import pytest

from experiments import ng2023_epochs, ng2023_size, ng2023_wgan_gp
from keras_cxrgan.data.sources import read_source
from keras_cxrgan.workflows import reproducing


def run(module, setting):
    written = reproducing.reproduce(setting, module.cells, module.present)
    assert not written["failed"], written["cells"]
    assert all((setting.out / name).is_file() for name, _ in written["figures"])
    return written


@pytest.mark.parametrize("recipe", ["ng2023_dcgan", "ng2023_wgan_gp"])
def test_both_recipes_step(smoke, steps, recipe):
    losses = steps(smoke(ng2023_wgan_gp).recipe(recipe))
    assert all(map(math.isfinite, losses.values()))


def test_sizes_keep_the_papers_proportions_where_films_are_few():
    assert ng2023_size.subset_sizes((500, 1000, 1500, 2000), 3616) == [500, 1000, 1500, 2000]
    assert ng2023_size.subset_sizes((500, 1000, 1500, 2000), 500) == [125, 250, 375, 500]


def test_subsets_are_nested_and_scored_against_themselves_and_all_films(smoke, faked):
    written = run(ng2023_size, smoke(ng2023_size))
    sets = [
        {record.path for record in read_source(cell.data, cell.classes)[0].records}
        for cell in faked.cells
    ]
    assert [len(films) for films in sets] == [24, 48, 72, 96]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(sets))
    assert {cell.evaluate_against for cell in faked.cells} == {None}  # the subset itself
    assert len({cell.also_against for cell in faked.cells}) == 1
    table = written["tables"][0]
    assert table["rows"][0][0] == "24 films (for 500)"
    assert [row[-1] for row in table["rows"]] == ["1.763", "1.494", "1.405", "1.249"]
    assert table["header"][-1] == "published (other extractor)"


def test_one_size_alone_has_a_page_and_no_difference(smoke, faked):
    written = run(ng2023_size, smoke(ng2023_size, only=("24 films (for 500)",)))
    assert len(written["cells"]) == 1 and "largest subset minus smallest" not in str(written)


def test_the_subsets_of_another_seed_are_others(smoke, faked):
    run(ng2023_size, smoke(ng2023_size, seeds=(0, 1)))
    first, second = (
        {record.path for record in read_source(cell.data)[0].records}
        for cell in faked.cells
        if cell.name.startswith("films-24-")
    )
    assert first != second


def test_epochs_are_stages_of_one_run_in_rising_order(smoke, faked):
    written = run(ng2023_epochs, smoke(ng2023_epochs))
    assert [cell.recipe.epochs for cell in faked.cells] == [15, 18, 21, 24]
    assert {cell.run for cell in faked.cells} == {"run-seed-0"}
    assert [row[-1] for row in written["tables"][0]["rows"]] == ["1.451", "1.415", "1.399", "1.64"]
    assert '"Longer is not better" cannot be told: 24 epochs' in written["findings"][0]


def stages(*rows):
    """Scores of the seeds 0, 1, ... of each row."""
    return {
        str(epochs): [
            {"seed": seed, "frechet": score, "frechet_error": 0.01}
            for seed, score in enumerate(scores)
        ]
        for epochs, scores in rows
    }


def test_longer_is_not_better_only_when_every_seed_says_so():
    holds = ng2023_epochs.verdict(stages((700, (1.4, 1.5, 1.3)), (800, (1.6, 1.72, 1.5))))
    assert holds[0].startswith('"Longer is not better" holds: 800 minus 700')
    noise = ng2023_epochs.verdict(stages((700, (1.4, 1.5, 1.3)), (800, (1.6, 1.2, 1.5))))
    assert "does not hold beyond the noise" in noise[0]
    one = ng2023_epochs.verdict(stages((700, (1.399,)), (800, (1.64,))))
    assert '"Longer is not better" cannot be told' in one[0]


def test_where_the_longest_is_the_best_longer_is_not_worse():
    said = ng2023_epochs.verdict(stages((700, (1.4,)), (800, (1.3,))))
    assert said[0].startswith("The longest training, 800, has the lowest mean distance")


def test_no_stage_or_one_gives_no_verdict():
    assert ng2023_epochs.verdict(stages((700, (1.4,)))) == ()
    assert ng2023_epochs.verdict({"700": [{"seed": 0, "error": "x"}], "800": []}) == ()


def kinds(cells):
    return [(cell.row, cell.recipe.epochs) for cell in cells]


def test_the_wgan_is_trained_on_to_equal_time_and_equal_updates(smoke, faked):
    # The WGAN-GP took half the time: it goes on to twice the epochs, then to five times.
    faked.seconds = lambda cell: 100.0 if "dcgan" in cell.name else 50.0
    setting = smoke(ng2023_wgan_gp)
    written = run(ng2023_wgan_gp, setting)
    assert kinds(faked.cells) == [
        ("DCGAN", 12), ("WGAN-GP", 12), ("WGAN-GP, equal time", 24),
        ("WGAN-GP, equal generator updates", 60),
    ]  # fmt: skip
    updates = {cell["row"]: cell["generator_updates"] for cell in written["cells"]}
    assert updates["WGAN-GP, equal generator updates"] == updates["DCGAN"]
    assert updates["WGAN-GP"] == updates["DCGAN"] // 5
    assert [row[-1] for row in written["tables"][0]["rows"]] == ["1.399", "1.583", "-", "-"]
    assert len(written["tables"][1]["rows"]) == 4  # stability
    # Again: the same cells, nothing trained.
    before = len(faked.cells)
    assert run(ng2023_wgan_gp, setting) == written and len(faked.cells) == before


def test_where_the_dcgan_is_the_faster_one_it_goes_on(smoke, faked):
    faked.seconds = lambda cell: 100.0 if "dcgan" in cell.name else 150.0
    written = run(ng2023_wgan_gp, smoke(ng2023_wgan_gp))
    assert ("DCGAN, equal time", 18) in kinds(faked.cells)
    assert any("equal time" in text for text in written["findings"])


def test_times_that_are_equal_need_no_third_training(smoke, faked):
    written = run(ng2023_wgan_gp, smoke(ng2023_wgan_gp))
    assert [row for row, _ in kinds(faked.cells)] == [
        "DCGAN", "WGAN-GP", "WGAN-GP, equal generator updates",
    ]  # fmt: skip
    assert "equal epochs are equal time" in written["findings"][-1]


def test_an_equal_time_needs_at_least_one_more_epoch():
    done = {"a": {"seconds": 100.0, "epochs": 3.0}, "b": {"seconds": 110.0, "epochs": 3.0}}
    assert ng2023_wgan_gp.equal_time(done) == ("a", 4)
