"""docs/http-api.md says of each client what its tests have just shown. Runs after them, by name."""

import pytest

from tests.clients import table

DRIVEN = 7  # client libraries in this folder


def test_the_table_in_the_docs_says_what_ran(request: pytest.FixtureRequest) -> None:
    results = request.config.stash.get(table.RESULTS, {})
    if request.config.getoption("--write-client-table"):
        assert len(results) == DRIVEN, "run all of tests/clients"
        table.write(results)
    if not results:
        pytest.fail("No client ran before this test: run the whole folder tests/clients.")

    assert set(table.rows(results)) <= set(table.committed()), "run scripts/client-table"
    if len(results) == DRIVEN:
        assert table.rows(results) == table.committed()
