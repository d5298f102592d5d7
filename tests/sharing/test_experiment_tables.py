"""Tables of experiments against hand-made results."""

import pytest

from keras_cxrgan.sharing import experiment_tables as tables


def result(row, seed, **numbers):
    return {"name": f"{row}-{seed}", "row": row, "seed": seed, **numbers}


TWO = [
    result("a", 0, frechet=10.0, frechet_error=1.0, films=60, seconds=100.4, score="FD-cxr"),
    result("a", 1, frechet=14.0, frechet_error=1.0, films=60, seconds=101.4, score="FD-cxr"),
    result("b", 0, error="ValueError: too few | films"),
    result("b", 1, frechet=3.0, frechet_error=0.5, films=60, seconds=50.0, score="FD-cxr"),
    result("c", 0, error="no weights"),
]
PUBLISHED = {"a": {"frechet": 1.249}, "b": {"frechet": 1.5}}


def table(**changes):
    arguments = {"same_extractor": False} | changes
    return tables.results_table("T", TWO, PUBLISHED, **arguments)


def test_a_row_is_the_mean_and_the_sample_sd_over_its_seeds():
    made = table()
    # The mean of 10 and 14 is 12; the standard deviation with n - 1 is sqrt(8) = 2.83.
    assert made.rows[0][made.header.index("Fréchet, FD-cxr")] == "12 ± 3"
    assert tables.mean_sd([10.0, 14.0]) == (12.0, pytest.approx(2.8284271))
    assert made.rows[0][1] == "2"


def test_one_seed_shows_no_sd():
    assert tables.mean_sd([3.0]) == (3.0, None)
    assert table().rows[1][table().header.index("Fréchet, FD-cxr")] == "3"


def test_failed_cells_are_rows_and_do_not_enter_the_mean():
    made = table()
    assert [row[1] for row in made.rows] == ["2", "1 of 2", "0 of 1"]
    assert made.rows[2][0] == "c: failed: no weights"
    assert set(made.rows[2][2:]) == {"-"}


def test_published_scores_stand_apart_and_say_that_they_are_of_another_extractor():
    made = table()
    assert made.header[-1] == "published (other extractor)"
    assert [row[-1] for row in made.rows] == ["1.249", "1.5", "-"]
    assert table(same_extractor=True).header[-1] == "published"


def test_every_row_has_as_many_cells_as_the_header():
    assert {len(row) for row in table().rows} == {len(table().header)}


def test_whole_numbers_that_agree_are_shown_whole():
    assert tables.show([1000, 1000], "films") == "1,000"
    assert tables.show([100.4, 101.4], "seconds") == "101 ± 1"
    assert tables.show([]) == "-"
    assert tables.show([float("nan")]) == "nan"


def test_ours_stand_beside_the_published_line_under_the_same_columns():
    made = tables.beside_table(
        "T",
        {"generator_loss": "Loss_G", "real_score": "D(x)"},
        {
            "a": ([result("a", 0, generator_loss=2.0)], {"generator_loss": 2.1597}),
            "b": ([result("b", 0, error="x|y")], {}),
        },
    )
    assert made.rows == (
        ("a: published", "2.1597", "-"),
        ("a: ours (1 seed)", "2", "-"),
        ("b: ours failed: x/y", "-", "-"),
    )


def three(*values):
    return [result("r", s, frechet=v, frechet_error=0.1) for s, v in enumerate(values)]


def test_a_difference_is_paired_by_seed():
    # 1, 1.1 and 0.9 apart, though the seeds themselves differ by 100.
    found = tables.difference(three(0, 100, 200), three(1, 101.1, 200.9))
    assert found.value == pytest.approx(1.0)
    assert found.noise == pytest.approx(0.1 / 3**0.5)
    assert found.clear is True and "more than chance" in str(found)


def test_a_difference_that_changes_sign_with_the_seed_is_noise():
    found = tables.difference(three(0, 0, 0), three(1, -1, 0.1))
    assert found.clear is False and "within the noise" in str(found)


def test_one_seed_never_claims_a_difference():
    found = tables.difference(three(0), three(50))
    assert found.clear is None
    assert found.noise == pytest.approx(0.02**0.5)
    assert "1 seed cannot say" in str(found)


def test_rows_without_a_seed_in_common_have_no_difference():
    assert tables.difference([result("r", 0, frechet=1.0)], [result("r", 1, frechet=1.0)]) is None


def test_two_standard_errors_of_three_seeds_are_no_proof():
    # Mean 1, noise 1/3: three standard errors. Student's t of two degrees of freedom asks for 4.3.
    found = tables.difference(three(0, 0, 0), three(1, 1 + 3**0.5 / 3, 1 - 3**0.5 / 3))
    assert found.value / found.noise == pytest.approx(3.0)
    assert found.clear is False
    ten = [0.2, 1.8] * 5
    assert tables.difference(three(*[0] * 10), three(*ten)).clear is True


def test_a_difference_without_standard_errors_has_no_noise_below_three_seeds():
    pair = [result("r", 0, recall=0.2)], [result("r", 0, recall=0.5)]
    found = tables.difference(*pair, "recall")
    assert found.value == pytest.approx(0.3) and found.noise is None
    assert str(found).startswith("+0.3 of the images scored, but 1 seed")


def rows_of(**values):
    return [
        result(row, seed, frechet=value, recall=value / 100)
        for row, found in values.items()
        for seed, value in enumerate(found)
    ]


COLUMNS = (
    tables.Column("frechet", "Fréchet", "lower"),
    tables.Column("recall", "recall x 100", "higher", 100),
    tables.Column("nothing", "nothing", "lower"),
)


def test_the_best_of_a_column_is_marked_only_beyond_the_noise_and_the_right_way_up():
    clear = rows_of(base=[10, 11, 12], other=[20, 21.1, 21.9], third=[30, 30, 90])
    made = tables.compared_table("T", clear, COLUMNS)
    assert made.header == ("", "seeds", "Fréchet", "recall x 100")
    assert [row[2].startswith("**") for row in made.rows] == [True, False, False]
    # The third has the best mean, by one lucky seed.
    assert not any("**" in row[3] for row in made.rows)
    assert "**Bold**" in made.note
    noisy = tables.compared_table("T", rows_of(base=[10, 11, 12], other=[11, 10, 13]), COLUMNS)
    assert not any("**" in cell for row in noisy.rows for cell in row)
    assert "in no column is a row better than the next" in noisy.note


def test_two_seeds_mark_nothing_however_far_apart():
    made = tables.compared_table("T", rows_of(base=[1, 1], other=[90, 90.1]), COLUMNS)
    assert not any("**" in cell for row in made.rows for cell in row)
    assert "2 seeds cannot say" in made.note


def test_the_floor_is_a_row_and_never_the_best():
    rows = rows_of(base=[10, 11, 12], other=[20, 21.1, 21.9])
    made = tables.compared_table("T", rows, COLUMNS, reference=("floor", {"frechet": 1.5}))
    assert made.rows[0] == ("floor", "-", "1.5", "-")
    assert made.rows[1][2].startswith("**")


def test_failed_rows_are_named_and_not_compared():
    failed = [result("broken", seed, error="no") for seed in range(3)]
    made = tables.compared_table("T", rows_of(base=[1, 2, 3]) + failed, COLUMNS)
    assert made.rows[1] == ("broken (failed)", "0 of 3", "-", "-")
    made = tables.differences_table("D", "base", rows_of(base=[1, 2, 3]) + failed, COLUMNS)
    assert made.rows == (("broken", "0", "-", "-"),)


def test_differences_are_from_the_base_and_paired():
    rows = rows_of(base=[0, 100, 200], other=[1, 101.1, 200.9], noisy=[-50, 150, 190])
    made = tables.differences_table("D", "base", rows, COLUMNS)
    assert made.rows[0] == ("other", "3", "**+1.00 ± 0.06**", "**+1.00 ± 0.06**")
    assert made.rows[1][:2] == ("noisy", "3") and "**" not in made.rows[1][2]


def test_differences_of_a_failed_base_are_a_table_all_the_same():
    rows = [result("base", 0, error="no"), *rows_of(other=[1])]
    assert tables.differences_table("D", "base", rows, COLUMNS).rows == (("other", "0"),)


def page(**changes):
    written = {
        "experiment": "e",
        "citation": "A. Nobody 2020",
        "scale": "smoke",
        "seeds": [0, 1],
        "given": "60 films of here",
        "paper": "1,341 films",
        "departures": {"width": [8, 64]},
        "extractor": {"name": "cxr", "about": "an encoder", "dims": 128},
        "findings": ["within the noise"],
        "cannot_compare": ["another network"],
        "left_open": ["the batch"],
        "cells": TWO,
        "figures": [("a.png", "Figure 1")],
    }
    return tables.markdown_page(written | changes, [table()])


def test_the_page_names_extractor_films_and_departures():
    text = page()
    assert "**cxr** (an encoder; 128 dims)" in text
    assert "- films here: 60 films of here\n- films of the paper: 1,341 films" in text
    assert "width 8 (paper: 64)" in text
    assert "- b-0: ValueError: too few | films" in text
    assert "![Figure 1](a.png)" in text


def test_an_experiment_of_no_paper_speaks_of_none():
    text = page(paper="", scale="")
    assert "paper" not in text.replace("cannot be compared", "").partition("## What the paper")[0]
    assert "- seeds: 0, 1" in text and "width 8 (recipe: 64)" in text


def test_the_page_is_written_where_everything_failed():
    failed = [cell for cell in TWO if "error" in cell]
    assert "scores are of" not in page(extractor=None, cells=failed)


def test_scores_are_taken_from_the_report_of_an_evaluation():
    entry = {
        "n_real": 5, "n_fake": 6, "precision": 0.1, "density": 0.2, "recall": 0.3,
        "coverage": 0.4, "frechet": {"value": 1.5, "standard_error": 0.1},
        "kid": {"kid": 0.02, "standard_error": 0.001}, "vendi": {"ratio": 0.9},
        "floor": {
            "n": 2,
            "frechet": {"floor_mean": 0.5, "floor_sd": 0.05, "fake_mean": 1.7},
            "kid": {"floor_mean": 0.001, "fake_mean": 0.03},
            "real": {"precision": 0.5, "density": 0.6, "recall": 0.7, "coverage": 0.8},
            "fake": {"precision": 0.15, "density": 0.25, "recall": 0.35, "coverage": 0.45},
        },
        "draws": None,
    }  # fmt: skip
    features = {"name": "cxr", "dims": 128, "weights": "ab", "about": "x", "score": "FD-cxr"}
    report = {"extractors": [{"features": features, "scores": [entry]}], "warnings": ["w"]}
    report["appearance"] = [{"spectrum": {"rms_log10_difference": 0.2, "checkerboard_db": 3.0}}]
    flat = tables.flat_scores(report)
    assert (flat["frechet"], flat["frechet_error"], flat["frechet_floor"]) == (1.5, 0.1, 0.5)
    assert (flat["frechet_at_floor"], flat["floor_count"], flat["score"]) == (1.7, 2, "FD-cxr")
    assert (flat["kid_floor"], flat["kid_at_floor"]) == (0.001, 0.03)
    assert (flat["spectrum_db"], flat["checkerboard_db"]) == (2.0, 3.0)
    assert (flat["recall"], flat["recall_floor"], flat["recall_at_floor"]) == (0.3, 0.7, 0.35)
    assert flat["draws"] == 1
    means = {
        "frechet": 1.4,
        "kid": 0.03,
        "precision": 0.2,
        "density": 0.3,
        "recall": 0.4,
        "coverage": 0.5,
    }
    entry["draws"] = {
        "n": 6,
        "sets": 9,
        **{key: {"mean": mean, "sd": 0.1} for key, mean in means.items()},
    }
    drawn = tables.flat_scores(report)
    assert drawn["draws"] == 9 and {key: drawn[key] for key in means} == means
    assert drawn["frechet_error"] == 0.1 and drawn["frechet_at_floor"] == 1.7
