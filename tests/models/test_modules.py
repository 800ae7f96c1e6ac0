"""The steps of a model, and its poolings."""

import json
from pathlib import Path

import pytest

from emberd.models.modules import read_pooling
from tests import model_folder
from tests.folders import POOLING, Change, Folder


@pytest.mark.parametrize(
    ("values", "modes"),
    [
        ({"pooling_mode": "lasttoken"}, {"last"}),
        ({"pooling_mode": ["cls", "mean"]}, {"cls", "mean"}),
        ({"pooling_mode": ["cls"], "pooling_mode_mean_tokens": True}, {"cls"}),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}, {"mean"}),
        ({"pooling_mode_weightedmean_tokens": True}, {"weightedmean_tokens"}),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, {"mean_sqrt_len_tokens"}),
        ({}, set()),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_the_poolings_of_a_file_are_read_as_it_is_meant(
    values: Change, modes: set[str], tmp_path: Path
) -> None:
    model_folder.write(tmp_path, {POOLING: json.dumps(values).encode()})

    assert read_pooling(tmp_path).modes == modes


def test_the_pooling_is_where_modules_json_says(tmp_path: Path) -> None:
    folder = Folder().write(tmp_path)
    modules = json.loads((folder / "modules.json").read_bytes())
    modules[1]["path"] = "pool"
    (folder / "modules.json").write_text(json.dumps(modules))
    model_folder.write(folder, {"pool/config.json": b'{"pooling_mode": "max"}'})

    assert read_pooling(folder).modes == {"max"}
