"""docs/architectures.md says how near re-rankers come at real sizes, and all come near enough."""

from tests.backends import rerankers_table as table

FARTHEST, LEAST_TAU = 1e-4, 0.99


def test_the_page_says_what_was_found() -> None:
    page = table.PAGE.read_text()

    assert table.section() == page.partition(table.BEGIN)[2].partition(table.END)[0].strip(), (
        "run scripts/architectures --real-sizes"
    )
    assert set(table.found()) <= set(table.rerankers())


def test_every_logit_is_near_enough() -> None:
    for name, by_backend in table.found().items():
        for row in by_backend.values():
            assert max(row["f32"].values()) <= FARTHEST, name
            assert max(map(abs, row["span"])) > 9, name
            assert row["cut"] > 0, name


def test_bf16_changes_the_order_hardly_or_no_more_than_in_crossencoder() -> None:
    for name, by_backend in table.found().items():
        for row in by_backend.values():
            if "bf16" in row:
                least = min(LEAST_TAU, row["their_bf16"]["tau"])
                assert row["bf16"]["tau"] >= least, name
