"""Figures as SVG that stands inside the page: its colours are the page's, so that they follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

Curve = Mapping[float, float]

MAX_POINTS = 1_000
LOG_RATIO = 20.0
"""A positive curve that spans more than this factor is drawn on a logarithmic axis: its end would be a flat line."""
STYLES = ("solid", "dashed", "dotted", "dashdot")
FIRST, LAST = ("loss", "*_loss", "accuracy"), ("lr",)

# matplotlib cannot write CSS variables, so it draws in colours that stand for them.
_VARIABLES = {
    "#010101": "var(--ink)",
    "#020202": "var(--line)",
    "#030301": "var(--c0)",
    "#030302": "var(--c1)",
    "#030303": "var(--c2)",
    "#030304": "var(--c3)",
}
_INK, _LINE, *_COLOURS = _VARIABLES
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and in the page's own font
    "svg.hashsalt": "torchloom",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _LINE,
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure for the page.

    Attributes:
        title: What is drawn.
        svg: The picture, with a description for those who do not see it.
        legend: Each curve's name and the number of its colour and line style.
        log: Whether the vertical axis is logarithmic.
    """

    title: str
    svg: Markup
    legend: list[tuple[str, int]]
    log: bool


def learning_curves(curves: Mapping[str, Curve], prefix: str) -> list[Drawing]:
    """Draw each metric against the step, its training and validation curve in one figure.

    Args:
        curves: Column of metrics.csv to step to value. ``test/`` columns, single points, are not drawn, nor is a
            learning rate that never changes.
        prefix: Word that keeps the figures' ids apart from those of other runs on the page.
    """
    groups: dict[str, list[str]] = {}
    for column in curves:
        split, _, metric = column.rpartition("/")
        constant = len({*curves[column].values()}) == 1
        if split != "test" and not (metric == "lr" and constant):
            # The losses of a generator and a discriminator tell something only side by side.
            groups.setdefault("*_loss" if metric.endswith("_loss") else metric, []).append(column)
    order = {name: place for place, name in enumerate((*FIRST, None, *LAST))}
    drawings: list[Drawing] = []
    for metric in sorted(groups, key=lambda name: (order.get(name, order[None]), name)):
        columns = groups[metric]
        names = dict.fromkeys(column.rpartition("/")[2] for column in columns)
        chosen = {column: curves[column] for column in columns}
        drawings.append(_draw(" and ".join(names), chosen, f"{prefix}-{len(drawings)}-"))
    return drawings


def thin(steps: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leave out points that could not be told apart on paper: of each stretch the lowest and the highest stay.

    Args:
        steps: Ascending, ``(points,)``.
        values: Finite, ``(points,)``.

    Returns:
        At most `MAX_POINTS` of the points, the first, the last and both extremes among them.
    """
    if len(steps) <= MAX_POINTS:
        return steps, values
    edges = np.linspace(0, len(steps), MAX_POINTS // 2, dtype=int)
    kept = {0, len(steps) - 1}
    for start, end in pairwise(edges):
        kept |= {int(start + values[start:end].argmin()), int(start + values[start:end].argmax())}
    chosen = sorted(kept)
    return steps[chosen], values[chosen]


def heat_map(matrix: list[list[int]], prefix: str) -> Markup:
    """Draw a confusion matrix ``matrix[true][predicted]`` that is too large for a table, shaded by share of the row."""
    counts = np.array(matrix, dtype=float)
    shares = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        alt = f"Confusion matrix of {len(matrix)} classes; {np.trace(counts):,.0f} of {counts.sum():,.0f} are right."
        return _svg(figure, prefix, alt)


def _draw(title: str, curves: Mapping[str, Curve], prefix: str) -> Drawing:
    everything = [value for curve in curves.values() for value in curve.values()]
    log = title != "lr" and min(everything) > 0 and max(everything) > LOG_RATIO * min(everything)
    styles = _styles([*curves])
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for index, curve in zip(styles, curves.values(), strict=True):
            steps, values = thin(np.array([*curve], dtype=float), np.array([*curve.values()], dtype=float))
            axes.plot(
                steps,
                values,
                color=_COLOURS[index],
                linestyle=STYLES[index],
                linewidth=1.5 if len(steps) <= 300 else 0.8,
                marker="o" if len(steps) <= 30 else "",
                markersize=3,
            )
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("step")
        axes.grid(True)
        svg = _svg(figure, prefix, f"{title} against step. " + " ".join(map(_describe, curves, curves.values())))
    return Drawing(title, svg, list(zip(curves, styles, strict=True)), log)


def _styles(columns: list[str]) -> list[int]:
    """One style a curve; where there is one curve a split, training and validation look the same in every figure."""
    splits = [column.rpartition("/")[0] for column in columns]
    if len(set(splits)) == len(splits) and {*splits} <= {"train", "val"}:
        return [("train", "val").index(split) for split in splits]
    return [index % len(STYLES) for index in range(len(columns))]


def _describe(column: str, curve: Curve) -> str:
    steps = list(curve)
    first, last = curve[steps[0]], curve[steps[-1]]
    text = f"{column}: {first:.4g} at step {steps[0]:,.0f}"
    if len(steps) > 1:
        lowest, highest = min(curve.values()), max(curve.values())
        text += f", {last:.4g} at step {steps[-1]:,.0f}, lowest {lowest:.4g}, highest {highest:.4g}"
    return text + "."


def _svg(figure: Figure, prefix: str, alt: str) -> Markup:
    """Write a figure as an element of the page: no prologue, no style of its own, ids that are the page's only ones."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None, "matplotlib wrote an SVG without a viewBox"
    text = re.sub(r"^<svg[^>]*>", f'<svg {box[0]} role="img" aria-label="{prefix}">', text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return Markup(text.replace(f'aria-label="{prefix}"', f'aria-label="{escape(alt)}"', 1))
