"""Turns numbers on stdin into SVG files; runs in the environment that has matplotlib."""

import json
import statistics
import sys

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "emberd"  # the same numbers give the same file
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first

OWN, OTHER = "#d9541e", "#8a8f98"


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
if asked["memory"]:
    line(asked["memory"])
