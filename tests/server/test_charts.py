"""The geometry of the report's charts."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server import charts

figures = st.floats(0, 1)
names = st.text("abcdefgh", min_size=1, max_size=4)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_ticks_enclose_the_values_and_are_few(one, other):
    low, high = sorted((one, other))
    ticks = charts.nice_ticks(low, high)
    assert ticks[0] <= low + 1e-6
    assert ticks[-1] >= high - 1e-6
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 8


@given(st.dictionaries(names, st.dictionaries(st.integers(1, 200), figures, min_size=1), min_size=1, max_size=12))
def test_every_value_is_drawn_inside_the_axes_higher_values_higher_up(series):
    chart = charts.lines(series)
    assert chart is not None
    for line in chart.lines:
        values = [value for _, value in sorted(series[line.name].items())]
        assert [point.text for point in line.points] == [f"{value:.3f}" for value in values]
        for point in line.points:
            assert chart.left <= point.x <= chart.right
            assert chart.top - 0.1 <= point.y <= chart.bottom + 0.1
        by_height = sorted(zip(values, line.points, strict=True), key=lambda pair: pair[0])
        heights = [point.y for _, point in by_height]
        assert heights == sorted(heights, reverse=True)


@given(st.dictionaries(names, figures, min_size=1, max_size=12))
def test_the_names_at_the_ends_of_lines_do_not_overlap(last):
    chart = charts.lines({name: {1: 0.5, 2: value} for name, value in last.items()})
    assert chart is not None
    places = sorted(line.label_y for line in chart.lines)
    assert all(later - earlier >= 14.9 for earlier, later in pairwise(places))


def test_a_line_is_broken_where_a_hospital_did_not_report():
    chart = charts.lines({"all": dict.fromkeys(range(1, 7), 0.5), "some": dict.fromkeys((1, 2, 5, 6), 0.4)})
    assert chart is not None
    assert [len(line.paths) for line in chart.lines] == [1, 2]


def test_rounds_that_nobody_reports_on_are_no_break():
    chart = charts.lines({"every fifth": {0: 0.1, 5: 0.2, 10: 0.3}})
    assert chart is not None
    assert [len(line.paths) for line in chart.lines] == [1]


def test_more_hospitals_than_colours_are_all_grey_but_the_mean():
    series = {f"site-{number}": {1: 0.1, 2: 0.2} for number in range(9)} | {"mean": {1: 0.1, 2: 0.2}}
    chart = charts.lines(series, emphasised="mean")
    assert chart is not None
    assert {line.name: line.style for line in chart.lines}["mean"] == -1
    assert {line.style for line in chart.lines if line.name != "mean"} == {0}


def test_no_values_make_no_chart():
    assert charts.lines({"a": {}}) is None
    assert charts.dots({"arm": {}}, means={}, members=["a"]) is None
