"""Turns numbers on stdin into SVG files; runs in the environment that has matplotlib."""

import json
import statistics
import sys
from itertools import cycle

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "emberd"  # the same numbers give the same file
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first

OWN, OTHER = "#d9541e", "#8a8f98"
STYLES = cycle(["-", "--", ":", "-."])


def bars(wanted: dict) -> None:
    """Draw a bar for each peer at its median, and a dot for each round."""
    names = list(wanted["values"])[::-1]
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(names) + 0.9), layout="constrained")
    for place, name in enumerate(names):
        rounds = wanted["values"][name]
        median = statistics.median(rounds)
        axes.barh(place, median, color=OWN if name in wanted["own"] else OTHER)
        axes.plot(rounds, [place] * len(rounds), "k.", markersize=4)
        axes.annotate(
            f"{median:.3g}", (max(rounds), place), xytext=(5, 0), textcoords="offset points",
            va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.12)
    _finish(figure, axes, wanted)


def lines(wanted: dict) -> None:
    """Draw a line for each peer through its medians, and a dot for each round."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, points in wanted["lines"].items():
        own = name in wanted["own"]
        places = [place for place, _ in points]
        medians = [statistics.median(rounds) for _, rounds in points]
        style = {"color": OWN, "linewidth": 2} if own else {"linestyle": next(STYLES)}
        (drawn,) = axes.plot(places, medians, label=name, **({"color": OTHER} | style))
        for place, rounds in points:
            axes.plot([place] * len(rounds), rounds, ".", color=drawn.get_color(), markersize=4)
    axes.set_xticks(sorted({place for points in wanted["lines"].values() for place, _ in points}))
    axes.set_xlabel(wanted["x"])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    _finish(figure, axes, wanted)


def line(wanted: dict) -> None:
    """Draw memory over the number of texts."""
    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    axes.plot(*zip(*wanted["samples"], strict=True), color=OWN)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("texts")
    _finish(figure, axes, wanted | {"title": "memory of server and worker: MiB"})


def _finish(figure: plt.Figure, axes: plt.Axes, wanted: dict) -> None:
    axes.set_title(wanted["title"], fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(wanted["file"], metadata={"Date": None})
    plt.close(figure)


asked = json.load(sys.stdin)
for each in asked["bars"]:
    bars(each)
for each in asked["lines"]:
    lines(each)
if asked["memory"]:
    line(asked["memory"])
