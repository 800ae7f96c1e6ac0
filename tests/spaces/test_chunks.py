"""How a store's rows were cut: kept as data, read again, and said in words."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from emberd.spaces.chunks import StoreChunking
from emberd.spaces.stores import KnownStore, StoresFile
from emberd.stores.base import Stamp

CODE = StoreChunking(size=200, overlap=20, kind="code", language="python", late=True)
STAMP = Stamp(
    model="m", fingerprint="f", dimensions=8, probes="", migration="1", made_at="now", chunk=CODE
)


def test_it_is_kept_in_the_stamp_and_in_the_state_folder(tmp_path: Path) -> None:
    store = KnownStore(path="p", kind="sqlite-vec", model="m", fingerprint="f", chunk=CODE)
    StoresFile(tmp_path).put("code", store)
    StoresFile(tmp_path).put("whole", replace(store, chunk=None))

    assert StoresFile(tmp_path).read() == {"code": store, "whole": replace(store, chunk=None)}
    assert Stamp.from_json(STAMP.to_json()) == STAMP
    assert Stamp.from_json(replace(STAMP, chunk=None).to_json()) == replace(STAMP, chunk=None)


@pytest.mark.parametrize(
    "damage",
    [
        {"size": "200"},
        {"size": True},
        {"late": 1},
        {"overlap": 200},
        {"kind": "poem", "language": None},
    ],
)
def test_what_is_damaged_is_not_believed(damage: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        StoreChunking.from_dict({**asdict(CODE), **damage})


def test_keys_of_a_later_emberd_are_ignored() -> None:
    assert StoreChunking.from_dict({**asdict(CODE), "later": 1}) == CODE
    assert StoreChunking.from_dict(None) is None


def test_in_words() -> None:
    assert str(CODE) == "python code, 200 tokens, overlap 20, late"
    assert str(StoreChunking(size=9, kind="markdown")) == "markdown, 9 tokens, overlap 0"
