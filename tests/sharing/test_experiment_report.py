"""The one page of all experiments."""

from keras_cxrgan.sharing import experiment_report

RESULTS = {
    "given": "60 films",
    "paper": "1,341 films",
    "citation": "A. Nobody <2020>",
    "tables": [{"title": "T", "header": ["", "x"], "rows": [["a & b", "1"]], "note": "n"}],
    "figures": [["f.png", "Figure 1"], ["gone.png", "Gone"]],
    "findings": ["noise"],
}
ENTRIES = [
    {"name": "one", "state": "complete", "results": RESULTS},
    {"name": "two", "state": "failed: no such folder", "results": None},
]


def test_a_failed_experiment_is_a_row_of_the_page():
    text = experiment_report.markdown(ENTRIES, "about")
    assert "| two | failed: no such folder | - | - |" in text
    assert "| one | complete | 60 films | 1,341 films |" in text
    assert "![Figure 1](one/f.png)" in text


def test_the_html_page_holds_its_figures_and_escapes_text(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "f.png").write_bytes(b"picture")
    page = experiment_report.page(ENTRIES, "about", tmp_path)
    assert "data:image/png;base64,cGljdHVyZQ==" in page
    assert "A. Nobody &lt;2020&gt;" in page and "a &amp; b" in page
    assert "Gone" not in page  # a figure that is not there
    assert 'src="one' not in page and "href" not in page
