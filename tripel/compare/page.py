"""The report as one page that needs nothing else: no network, no scripts, no fonts. It is XML too, for machines."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html import escape
from importlib import resources

from tripel.compare.comparison import Comparison, Picture, Views
from tripel.compare.pictures import colour_of, svg
from tripel.compare.words import listed

# XML has no place for these, and a model may write them.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")


def page(comparison: Comparison, views: Views) -> str:
    """The whole page."""
    title = f"{listed([result.name for result in comparison.results])} on {comparison.data}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<title>{_text(title)}</title>\n</head>\n<body>\n{fragment(comparison, views)}\n</body>\n</html>\n"
    )


def fragment(comparison: Comparison, views: Views) -> str:
    """What is in the page, to be shown in another, such as a notebook."""
    style = resources.files("tripel.compare").joinpath("page.css").read_text(encoding="utf-8")
    parts = (
        _introduction(comparison),
        _numbers(comparison),
        _pictures(comparison),
        _samples(comparison, views),
        _repeating(comparison, views),
    )
    return "\n".join(
        [f'<div class="tripel">\n<style>\n{style}</style>', *(p for part in parts for p in part), "</div>"]
    )


def _introduction(comparison: Comparison) -> Iterator[str]:
    names = [result.name for result in comparison.results]
    yield f"<h1>{_text(listed(names))}, compared</h1>"
    sized = ", made equally large" if comparison.matched else ""
    yield (
        f'<p class="lead">{len(names)} models{sized}, trained from nothing on <b>{_text(comparison.data)}</b> with '
        f"{_text(comparison.budget)}, in turns on one machine, and validated on {_text(comparison.valid)}.</p>"
    )
    yield "<ul>"
    for place, result in enumerate(comparison.results):
        yield f"<li>{_dot(place)}<b>{_text(result.name)}</b>: {_text(result.family)}, {_text(result.model)}</li>"
    yield "</ul>"
    if comparison.notes:
        yield '<p class="small">What was made equal, and what differs:</p>\n<ul class="small">'
        yield from (f"<li>{_text(note)}</li>" for note in comparison.notes)
        yield "</ul>"


def _numbers(comparison: Comparison) -> Iterator[str]:
    yield '<h2>In numbers</h2>\n<div class="wide">\n<table>\n<thead>\n<tr><th></th>'
    for place, result in enumerate(comparison.results):
        yield f"<th>{_dot(place)}{_text(result.name)}<small>{_text(result.family)}</small></th>"
    yield "</tr>\n</thead>\n<tbody>"
    for column in comparison.columns:
        best = column.best_of(comparison.results)
        cells = [_text(column.show(result)) for result in comparison.results]
        marked = [f"<td><b>{cell}</b></td>" if i in best else f"<td>{cell}</td>" for i, cell in enumerate(cells)]
        yield f"<tr><td>{_text(column.title)}</td>{''.join(marked)}</tr>"
    yield '</tbody>\n</table>\n</div>\n<p class="small">Bold: the best of a row, where one end of it is better.</p>'


def _pictures(comparison: Comparison) -> Iterator[str]:
    yield '<h2>In pictures</h2>\n<div class="pictures">'
    for picture in comparison.pictures:
        yield _figure(picture, comparison)
    yield "</div>"


def _figure(picture: Picture, comparison: Comparison) -> str:
    # As a picture of its own: the names within several SVGs would get into each other's way.
    data = base64.b64encode(svg(picture, comparison.results)).decode("ascii")
    said = picture.sentence(comparison.results)
    return (
        f'<figure><img alt="{_text(picture.title)}" src="data:image/svg+xml;base64,{data}" />\n'
        f"<figcaption>{_text(said)}</figcaption></figure>"
    )


def _samples(comparison: Comparison, views: Views) -> Iterator[str]:
    if not any(result.sample for result in comparison.results):
        return
    yield f'<h2>In their own words</h2>\n<p class="small">The same beginning (grey), {_text(views.sample_title)}.</p>'
    for place, result in enumerate(comparison.results):
        yield f"<h3>{_dot(place)}{_text(result.name)}</h3>"
        given = f'<span class="given">{_text(comparison.prompt)}</span>'
        yield f'<blockquote style="border-color: {colour_of(place)}">{given}{_text(result.sample)}</blockquote>'


def _repeating(comparison: Comparison, views: Views) -> Iterator[str]:
    yield "<h2>How to repeat it</h2>"
    lines = [comparison.command, *(views.use.format(folder=result.folder) for result in comparison.results)]
    yield f"<pre>{_text(chr(10).join(lines))}</pre>"
    yield (
        '<p class="small">Each model is an ordinary run folder with its recipe.yaml, which <code>tripel train</code> '
        "takes. Every number of this page is in comparison.json.</p>\n<dl>"
    )
    for name, value in {"date": comparison.date, **comparison.facts}.items():
        yield f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>"
    yield "</dl>"


def _dot(place: int) -> str:
    return f'<span class="dot" style="background: {colour_of(place)}"></span>'


def _text(text: str) -> str:
    return escape(_CONTROL.sub("\ufffd", text))
