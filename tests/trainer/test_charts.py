"""Pictures are whole markup with the right things in it."""

from __future__ import annotations

from xml.etree import ElementTree

from trainer.charts import calibration_chart, confusion_grid, curve_chart, interval_bar
from trainer.statistics import bins_of


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_a_bar_shows_the_share_its_interval_and_the_others() -> None:
    bar = parsed(interval_bar(0.5, 0.4, 0.6, [0.1, 0.2]))
    assert [float(rect.get("width", 0)) for rect in bar.iter("rect")] == [150, 75]
    assert [line.get("class") for line in bar.iter("line")] == ["whisker", "mark", "mark"]
    assert bar.get("aria-label") == "50.0%, 95 % interval 40.0% to 60.0%"


def test_the_grid_shows_each_count_where_its_labels_meet() -> None:
    grid = parsed(confusion_grid(["<b>", "read"], {("<b>", "<b>"): 3, ("<b>", "read"): 1}))
    assert [text.text for text in grid.iter("text")] == ["<b>", "3", "1", "read", "<b>", "read"]
    shades = {rect.get("class"): rect.get("fill-opacity") for rect in grid.iter("rect") if rect.get("class") != "ground"}
    assert shades == {"right": "0.79", "wrong": "0.36"}


def test_a_point_for_each_step_of_confidence_that_has_votes() -> None:
    chart = parsed(calibration_chart(bins_of([0.05, 0.95, 0.95], [False, True, False])))
    assert [point.findtext("title") for point in chart.iter("circle")] == [
        "1 votes: 5% sure, 0% right",
        "2 votes: 95% sure, 50% right",
    ]


def test_a_curve_may_be_a_single_point_or_flat_at_zero() -> None:
    for points in ([(1, 2.0)], [(1, 0.0), (2, 0.0)]):
        lines = list(parsed(curve_chart(points)).iter("polyline"))
        assert [len((line.get("points") or "").split()) for line in lines] == [len(points)] * 2
