"""Vega's SVG made fit for the pages: colours from the stylesheet, numbers rounded, nothing that differs between builds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import altair as alt
import vl_convert
from markupsafe import Markup

_NAMESPACE = "http://www.w3.org/2000/svg"
_KEPT_ATTRIBUTES = {
    *("d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "viewBox", "transform", "id", "clip-path"),
    *("fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-miterlimit", "opacity", "fill-opacity", "stroke-opacity"),
    *("text-anchor", "font-size", "font-weight"),
}
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")


class Ink:
    """Stand-ins for the stylesheet's colours while a chart is drawn."""

    TEXT = "#010101"
    MUTED = "#020202"
    RULE = "#030303"
    ACCENT = "#040404"


_VARIABLES = {
    Ink.TEXT: "var(--ink-soft)",
    Ink.MUTED: "var(--chart-muted)",
    Ink.RULE: "var(--rule)",
    Ink.ACCENT: "var(--accent)",
}


POINTS = alt.NamedData("points")
"""The data of every chart. They are put in only when it is drawn: Altair would check each value several times over."""


def to_svg(chart: alt.LayerChart, points: Sequence[Mapping[str, object]], name: str) -> Markup:
    """Draw `chart` of `POINTS` as an `<svg>` element for a page. `name` is unique on the page; its figure carries the text alternative."""
    specification = {**chart.to_dict(), "datasets": {"points": list(points)}}
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(specification))
    clips = {element.get("id", ""): f"{name}-clip{i}" for i, element in enumerate(root.iter(f"{{{_NAMESPACE}}}clipPath"))}
    _prune(root)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_NAMESPACE}}}")
        element.attrib = {key: _value(value, clips) for key, value in element.attrib.items() if key in _KEPT_ATTRIBUTES}
    root.attrib |= {"aria-hidden": "true", "focusable": "false"}
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=True))


def _prune(element: ElementTree.Element) -> None:
    """Remove what is never seen: hidden parts, empty frames, empty groups."""
    for child in list(element):
        _prune(child)
        tag = child.tag.removeprefix(f"{{{_NAMESPACE}}}")
        hidden = child.get("display") == "none" or child.get("opacity") == "0"
        frame = child.get("class") == "background" or child.get("fill") == "transparent"
        if hidden or frame or (tag == "g" and len(child) == 0) or (tag == "text" and not child.text):
            element.remove(child)


def _value(value: str, clips: dict[str, str]) -> str:
    if value in _VARIABLES:
        return _VARIABLES[value]
    if value in clips:
        return clips[value]
    if value.startswith("url(#"):
        return f"url(#{clips[value[5:-1]]})"
    return _LONG_NUMBER.sub(lambda match: f"{float(match.group()):.2f}".rstrip("0").rstrip("."), value)
