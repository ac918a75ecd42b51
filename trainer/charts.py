"""The report's pictures: plain functions from numbers to SVG, which the page that holds them colours."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.statistics import Bin


class Svg(str):
    """Markup that is put into a page as it is; any other text is escaped."""


def interval_bar(share: float, low: float, high: float, marks: Sequence[float]) -> Svg:
    """A share of 0 to 1 as a bar, its interval as a line, and others' shares as ticks."""
    width, middle = 150, 8
    parts = [
        _tag("rect", x=0, y=3, width=width, height=10, rx=2, class_="ground"),
        _tag("rect", x=0, y=3, width=share * width, height=10, rx=2, class_="bar"),
        _tag("line", x1=low * width, x2=high * width, y1=middle, y2=middle, class_="whisker"),
        *(_tag("line", x1=mark * width, x2=mark * width, y1=0, y2=16, class_="mark") for mark in marks),
    ]
    return _svg(width, 16, parts, f"{share:.1%}, 95 % interval {low:.1%} to {high:.1%}")


def confusion_grid(labels: Sequence[str], counts: Mapping[tuple[str, str], int]) -> Svg:
    """Gold labels downwards, selected ones across; the shade is the share of the row."""
    cell, left, top = 30, 10 + 7 * max((len(label) for label in labels), default=0), 10 + 6 * max(map(len, labels), default=0)
    parts = []
    for y, gold in enumerate(labels):
        total = max(1, sum(counts.get((gold, label), 0) for label in labels))
        parts.append(_tag("text", gold, x=left - 6, y=top + y * cell + 19, text_anchor="end"))
        for x, label in enumerate(labels):
            count = counts.get((gold, label), 0)
            place: dict[str, Any] = {"x": left + x * cell, "y": top + y * cell}
            hit = "right" if gold == label else "wrong"
            parts.append(_tag("rect", **place, width=cell - 2, height=cell - 2, class_="ground"))
            if count:
                shade: dict[str, Any] = {"fill_opacity": round(0.15 + 0.85 * count / total, 2)}
                parts.append(_tag("rect", **place, width=cell - 2, height=cell - 2, class_=hit, **shade))
                parts.append(_tag("text", str(count), x=place["x"] + 14, y=place["y"] + 19, text_anchor="middle"))
    for x, label in enumerate(labels):
        at = f"rotate(-50 {left + x * cell + 16} {top - 6})"
        parts.append(_tag("text", label, x=left + x * cell + 16, y=top - 6, transform=at))
    return _svg(left + len(labels) * cell + top // 2, top + len(labels) * cell, parts, "Confusion matrix of the selection")


def calibration_chart(bins: Sequence[Bin | None]) -> Svg:
    """Confidence across, share of right votes upwards; on the diagonal they agree. A point's area is its number of votes."""
    size, edge = 240, 42
    most = max((one.count for one in bins if one), default=1)
    parts = [
        _tag("line", x1=edge, y1=size, x2=edge + size, y2=0, class_="diagonal"),
        *_axes(size, size, edge, (1.0, "{:.0%}"), (1.0, "{:.0%}")),
    ]
    for one in bins:
        if one:
            x, y, radius = edge + one.sure * size, size - one.right * size, 3 + 9 * (one.count / most) ** 0.5
            told = _tag("title", f"{one.count} votes: {one.sure:.0%} sure, {one.right:.0%} right")
            parts.append(_tag("circle", cx=x, cy=y, r=radius, class_="point", inside=told))
    return _svg(size + edge + 14, size + 24, parts, "Confidence of the vote against its share of right ones")


def curve_chart(points: Sequence[tuple[int, float]]) -> Svg:
    """Loss by step: each one thin, their running mean thick."""
    width, height, edge = 320, 140, 42
    steps, top = max(1, points[-1][0]), max(loss for _, loss in points) or 1.0
    mean, smooth = points[0][1], []
    for step, loss in points:
        mean += 0.1 * (loss - mean)
        smooth.append((step, mean))

    def line(of: Sequence[tuple[int, float]], name: str) -> str:
        places = (f"{edge + step / steps * width:.1f},{height - loss / top * height:.1f}" for step, loss in of)
        return _tag("polyline", points=" ".join(places), class_=name)

    parts = [line(points, "each"), line(smooth, "smooth"), *_axes(width, height, edge, (steps, "{:,.0f}"), (top, "{:.2f}"))]
    return _svg(width + edge + 14, height + 24, parts, f"Loss over {steps} steps, {points[-1][1]:.3g} at the end")


def _axes(width: int, height: int, edge: int, across: tuple[float, str], upwards: tuple[float, str]) -> list[str]:
    """Three ticks each, from 0 to the largest value, in its format."""
    parts = [_tag("path", d=f"M{edge} 0V{height}H{edge + width}", class_="axis")]
    for share in (0.0, 0.5, 1.0):
        texts = [form.format(share * most) for most, form in (across, upwards)]
        parts.append(_tag("text", texts[0], x=edge + share * width, y=height + 16, text_anchor="middle"))
        parts.append(_tag("text", texts[1], x=edge - 6, y=height - share * height + 4, text_anchor="end"))
    return parts


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> Svg:
    # Drawn at its own size, and smaller where the page is narrow.
    frame: dict[str, Any] = {"viewBox": f"0 -10 {width} {height + 10}", "width": width, "height": height + 10}
    return Svg(_tag("svg", role="img", aria_label=label, inside="".join(parts), **frame))


def _tag(tag: str, text: str = "", *, inside: str = "", **attributes: str | float) -> str:
    written = "".join(
        f' {name.rstrip("_") if name == "class_" else name.replace("_", "-")}="{html.escape(_short(value))}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{written}>{html.escape(text)}{inside}</{tag}>"


def _short(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
