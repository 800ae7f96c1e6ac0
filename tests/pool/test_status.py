"""What the rest of emberd sees of a model: one type, from the pool to the command line."""

import asyncio
from dataclasses import asdict, fields, replace
from pathlib import Path

import orjson

from emberd.pool.status import ModelStatus
from emberd.worker.wire import Progress
from tests.event_loop import in_event_loop
from tests.pool.fake_worker import SPACE, Workers, config_of, fake_pool, texts, until


def statuses(home: Path, *, asked: bool) -> list[ModelStatus]:
    """Return the statuses of a pool of two models, once the first has had a request."""

    async def look() -> list[ModelStatus]:
        async with fake_pool(config_of(home, "one", "two"), Workers()) as pool:
            if asked:
                await pool.embed(texts("a"))
            return [status for status in pool.statuses() if status.name in ("one", "two")]

    return asyncio.run(look())


def test_a_row_of_models_becomes_the_same_status_again(home: Path) -> None:
    downloading = Progress(phase="downloading", done=1, total=2)
    for status in statuses(home, asked=True):
        for told in (status, replace(status, progress=downloading)):
            row = orjson.loads(orjson.dumps(told))
            assert list(row) == [field.name for field in fields(ModelStatus)]
            assert ModelStatus.from_json(row) == told


def test_what_a_newer_server_adds_is_ignored(home: Path) -> None:
    (status, _) = statuses(home, asked=False)
    row = asdict(status)

    assert ModelStatus.from_json({**row, "mood": "fine"}) == status


def test_a_cold_model_shows_what_its_entry_says(home: Path) -> None:
    (status, _) = statuses(home, asked=False)

    assert (status.state, status.backend, status.compute) == ("cold", "auto", "auto")
    assert (status.pid, status.memory_bytes, status.loads) == (None, 0, 0)
    assert (status.fingerprint, status.idle_s, status.unloads_in_s) == (None, None, None)


def test_a_ready_model_shows_what_its_worker_says(home: Path) -> None:
    (status, other) = statuses(home, asked=True)

    assert (status.state, status.backend, status.compute) == ("ready", "fake", "f32")
    assert (status.pid, status.memory_bytes, status.loads) == (1, 2**20, 1)
    assert (status.fingerprint, status.max_tokens) == (SPACE, 64)
    assert status.phases_s
    assert set(status.phases_s) == {"load", "first vector"}
    assert status.idle_s is not None
    assert status.unloads_in_s is not None
    assert other.state == "cold"


@in_event_loop
async def test_progress_shows_while_a_model_starts_and_not_after(home: Path) -> None:
    workers = Workers(become_ready=False)
    async with fake_pool(config_of(home, "one"), workers) as pool:
        asking = asyncio.create_task(pool.embed(texts("a")))
        worker = await workers.nth(1)
        worker.say(Progress(phase="downloading", done=3, total=4))
        await until(lambda: pool.status().progress)

        assert pool.status().progress == Progress(phase="downloading", done=3, total=4)
        assert (pool.status().state, pool.status().queued) == ("starting", 1)
        worker.become_ready()
        await asking
        assert pool.status().progress is None
