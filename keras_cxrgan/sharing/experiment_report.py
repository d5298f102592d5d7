"""One page of all experiments, from their `results.json`: Markdown, and HTML with its figures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from keras_cxrgan.evaluation.report import Table, markdown_table

_STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 13px; margin: 0.5em 0 }
td, th { border-bottom: 1px solid #ccd; padding: 3px 9px; text-align: right }
td:first-child, th:first-child { text-align: left }
img { max-width: 100% } figure { margin: 1em 0 } .scroll { overflow-x: auto }
"""
_LISTS = (
    ("Findings", "findings"),
    ("What cannot be compared", "cannot_compare"),
    ("What the paper leaves open", "left_open"),
)
HEADER = ("experiment", "state", "films here", "films of the paper")


def overview(entries: Sequence[dict]) -> Table:
    """Return a row for each experiment: {"name", "state", "results": results.json or None}."""
    rows = []
    for entry in entries:
        results = entry["results"] or {}
        rows.append(
            (entry["name"], entry["state"], results.get("given", "-"), results.get("paper", "-"))
        )
    return Table("All experiments", HEADER, tuple(rows))


def markdown(entries: Sequence[dict], about: str) -> str:
    """Return the whole page in Markdown; figures are links into the experiments' folders."""
    lines = ["# The papers, done again", "", about, "", *markdown_table(overview(entries))]
    for entry in entries:
        results = entry["results"]
        if not results:
            continue
        lines += [f"## {entry['name']}", "", results.get("citation", ""), ""]
        for table in _tables(results):
            lines += markdown_table(table)
        lines += [f"- {text}" for text in results.get("findings", ())]
        for name, caption in results.get("figures", ()):
            lines += ["", f"![{caption}]({entry['name']}/{name})", "", caption]
        lines += ["", f"Everything else: [results.md]({entry['name']}/results.md)", ""]
    return "\n".join(lines)


def page(entries: Sequence[dict], about: str, folder: Path) -> str:
    """Return the whole page as one HTML file; figures are read from `folder`/experiment/."""
    body = ["<h1>The papers, done again</h1>", f"<p>{_text(about)}</p>", _table(overview(entries))]
    for entry in entries:
        results = entry["results"]
        if not results:
            continue
        body.append(f"<h2>{_text(entry['name'])}</h2><p>{_text(results.get('citation', ''))}</p>")
        body += [_table(table) for table in _tables(results)]
        for title, key in _LISTS:
            if results.get(key):
                items = "".join(f"<li>{_text(text)}</li>" for text in results[key])
                body.append(f"<h3>{title}</h3><ul>{items}</ul>")
        for name, caption in results.get("figures", ()):
            path = folder / entry["name"] / name
            if path.is_file():
                data = base64.b64encode(path.read_bytes()).decode()
                body.append(
                    f'<figure><img alt="{_text(caption)}" src="data:image/png;base64,{data}">'
                    f"<figcaption>{_text(caption)}</figcaption></figure>"
                )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>The papers, done again</title>'
        f"<style>{_STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def _tables(results: dict) -> list[Table]:
    return [
        Table(t["title"], tuple(t["header"]), tuple(map(tuple, t["rows"])), t.get("note", ""))
        for t in results.get("tables", ())
    ]


def _table(table: Table) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    head = "".join(f"<th>{_text(name)}</th>" for name in table.header)
    return (
        f'<h3>{_text(table.title)}</h3><div class="scroll"><table><tr>{head}</tr>{rows}</table>'
        f"</div><p>{_text(table.note)}</p>"
    )


def _text(text: str) -> str:
    return html.escape(str(text), quote=True)
