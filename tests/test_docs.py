"""Every page can be found from the README, no link is dead, and its figures are measured ones."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from emberd.config.settings import Settings, leaves_of
from emberd.registry.spec import ModelSpec

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/*.md")),
]
DECISIONS = ROOT / "docs" / "decisions"


def links_of(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file and the anchor of each link to something in this repository."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors_of(page: Path) -> set[str]:
    """Return what GitHub lets one link to: each heading in lower case, blanks as hyphens."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    for target, anchor in links_of(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors_of(target), f"{target}#{anchor}"


def test_the_readme_links_every_page() -> None:
    linked = {target for target, _ in links_of(ROOT / "README.md")}

    assert set((ROOT / "docs").glob("*.md")) <= linked
    assert set((ROOT / "examples").glob("*/README.md")) <= linked
    assert {DECISIONS / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"} <= linked


def test_the_list_of_decisions_is_whole() -> None:
    linked = {target for target, _ in links_of(DECISIONS / "README.md")}

    assert set(DECISIONS.glob("[0-9]*.md")) <= linked


def medians(run: str, number: str) -> dict[str, float]:
    """Return one number of a committed run for all who took part in it, but not the old server."""
    peers = json.loads((ROOT / "benchmarks" / "results" / f"{run}.json").read_text())["peers"]
    return {
        name: peer["numbers"][number]["median"]
        for name, peer in peers.items()
        if number in peer["numbers"] and not name.startswith("old server")
    }


def test_every_setting_and_every_key_of_an_entry_is_explained() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    settings = [".".join(keys) for keys in leaves_of(Settings())]
    entry = {field.name for field in fields(ModelSpec)} - {"name"}

    for key in settings:
        variable = "EMBERD_" + key.replace(".", "_").upper()
        assert re.search(rf"^\| `{key}` \|.*`{variable}`", page, re.MULTILINE), key
    for key in entry:
        assert re.search(rf"^\|[^|]*`{key}`", page, re.MULTILINE), key


def test_the_readmes_figures_are_measured() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    models = yaml.safe_load((ROOT / "emberd" / "registry" / "catalog.yaml").read_text())

    assert f"{len(models)} models are built in" in readme
    assert f"There are {len(models) - 6} more, among them" in readme  # than the table has
    assert f"**{medians('bench', 'idle_mib')['emberd']:.0f} MiB when idle.**" in readme
    for run, begin, end in (
        ("bench", "", " the throughput of its peers on a processor with bf16"),
        ("bench-epyc-avx2", "and ", " on one without"),
    ):
        speeds = medians(run, "bulk_texts_per_s")
        own = speeds.pop("emberd")
        del speeds["emberd, 4-bit"]
        least, most = own / max(speeds.values()), own / min(speeds.values())
        assert f"{begin}{least:.1f} to {most:.1f} times{end}" in readme
        if run == "bench":
            assert f"emberd {own:.0f}, its fastest peer {max(speeds.values()):.0f}]" in readme
