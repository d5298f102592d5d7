"""The page of a study: the answer first, then what it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from keras_cxrgan.evaluation.report import Table, markdown_table


def study_page(written: dict, tables: Sequence[Table]) -> str:
    """Return `results.md`: the answer, what was done, and the tables and figures.

    Args:
        written: what `results.json` holds.
    """
    about = written["study"]
    classes = ", ".join(f"{name} {films:,}" for name, films in about["classes"].items())
    films = (
        f"{about['films']:,} films of {about['patients']:,} patients ({classes}), tested in"
        f" {len(about['parts'])} part{'s' * (len(about['parts']) > 1)}"
    )
    fitted = (
        f"classifier {_classifier(written)}, {about['image_size']} px, {about['steps']:,} steps of"
        f" {about['batch_size']}; seeds {', '.join(map(str, about['seeds']))}"
    )
    lines = ["# Does it help?", "", *(f"- {sentence}" for sentence in written["answer"]), ""]
    first = [figure for figure in written["figures"] if figure[0] == "differences.png"]
    for name, caption in first:
        lines += [f"![{caption}]({name})", ""]
    lines += [
        "## What was done",
        "",
        f"- {films}",
        f"- {fitted}",
        *_gans(about),
        *(f"- **{name}**: {text}" for name, text in about["arms"].items()),
        *(f"- {text}" for text in written["limits"]),
        "",
    ]
    for title, said in (
        ("What is wrong with the published protocol", written["wrong"]),
        ("What the paper leaves open", written["left_open"]),
    ):
        lines += [f"## {title}", "", *(f"- {text}" for text in said), ""] if said else []
    for table in tables:
        lines += markdown_table(table)
    errors = [cell for cell in written["cells"] if "error" in cell]
    if errors:
        lines += ["## Failed", "", *(f"- {cell['name']}: {cell['error']}" for cell in errors), ""]
    for name, caption in written["figures"]:
        if [name, caption] not in first:
            lines += [f"![{caption}]({name})", "", caption, ""]
    return "\n".join(lines)


def _classifier(written: dict) -> str:
    """Return its name, where its weights begin, and the learning rates that cells chose of."""
    fitted = [cell for cell in written["cells"] if "fit" in cell]
    if not fitted:
        return written["study"]["classifier"]
    network = fitted[0]["network"]
    rates = sorted({tried["learning_rate"] for cell in fitted for tried in cell["fit"]["tried"]})
    weights = f" (weights {network['weights']})" if "weights" in network else ""
    return f"{network['name']}{weights}, learning rate {', '.join(f'{rate:g}' for rate in rates)}"


def _gans(about: dict) -> list[str]:
    if about["generators"]:
        runs = ", ".join(f"{name} from {run}" for name, run in about["generators"].items())
        return [f"- generated images: {runs}, runs that were given"]
    if not about["gans"]:
        return []
    images, epochs = about["gan_images"], about["gan_epochs"]
    seen = f"images seen by each: {images:,}" if images else f"epochs each: {epochs:,}"
    return [f"- {about['gans']} GANs of the recipe {about['recipe']}, {seen}"]
