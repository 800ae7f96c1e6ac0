"""One key of a config file changes, every other byte stays."""

import json
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emberd.config.document import read_document
from emberd.config.edit import Edit
from emberd.errors import ConfigError
from tests.powers import powerless
from tests.serving import run_emberd

COMMENTED = """\
# My configuration,  kept for years.

default:   minilm            # the one I use
server: {host: 127.0.0.1,port: 8767}   # no blank after the comma

limits:
    idle_unload:  15m   # four blanks
models:
  mine:
    sources:
    - path:   '~/models/mine'    # a list that is not indented
    - hf: "me/mine"
    prompts: {query: "a line that is so long that a dump of the whole file would fold it in two or three places: "}
    dimensions: 384
    pooling: mean  # trailing blanks:   
# the end, without a line end"""  # noqa: E501, W291 - as people write

# the text before, and the text after
LAYOUTS = {
    "no file": (None, "default: mpnet\n"),
    "nothing": ("", "default: mpnet\n"),
    "comments": ("# mine", "# mine\ndefault: mpnet\n"),
    "an empty document": ("---\n", "---\ndefault: mpnet\n"),
    "no value": ("default:\nserver: {}\n", "default: mpnet\nserver: {}\n"),
    "no value, a comment": ("default:  # none\n", "default: mpnet  # none\n"),
    "single quotes": ("default: 'minilm'\n", "default: 'mpnet'\n"),
    "double quotes": ('"default" : "minilm" #\n', '"default" : "mpnet" #\n'),
    "not the first key": ("limits: {}\ndefault: bge\n", "limits: {}\ndefault: mpnet\n"),
    "a key of the same name below": (
        "models:\n  default: {pinned: true}\n",
        "models:\n  default: {pinned: true}\ndefault: mpnet\n",
    ),
    "no key": ("# of limits\nlimits: {}\n", "# of limits\nlimits: {}\ndefault: mpnet\n"),
    "no key, no line end": ("limits: {}", "limits: {}\ndefault: mpnet\n"),
    "an indented root": ("  limits: {}\n", "  limits: {}\n  default: mpnet\n"),
    "Windows line ends": (
        "# a\r\ndefault: bge\r\nlimits: {}\r\n",
        "# a\r\ndefault: mpnet\r\nlimits: {}\r\n",
    ),
    "Windows line ends, no key": ("limits: {}\r\n", "limits: {}\r\ndefault: mpnet\r\n"),
    "a byte order mark": ("\ufeffdefault: bge\n", "\ufeffdefault: mpnet\n"),
    "on two lines": ("default:\n  minilm\nlimits: {}\n", "default:\n  mpnet\nlimits: {}\n"),
    "a folded value": ("default: >-\n  minilm\nlimits: {}\n", "default: mpnet\nlimits: {}\n"),
    "a flow": ("{limits: {max_loaded: 1}}", '{"default": "mpnet", limits: {max_loaded: 1}}'),
    "empty braces": ("{}\n", '{"default": "mpnet"}\n'),
    "JSON": ('{"default":"bge","limits":{}}', '{"default": "mpnet","limits":{}}'),
    "JSON, no key": ('{\n\t"limits": {}\n}\n', '{\n\t"default": "mpnet",\n\t"limits": {}\n}\n'),
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def write(file: Path, text: str | None) -> bytes | None:
    if text is not None:
        file.write_bytes(text.encode())
    return None if text is None else text.encode()


def test_comments_order_and_layout_stay_byte_for_byte(file: Path) -> None:
    write(file, COMMENTED)

    Edit.of_default(file, "mpnet").commit()

    assert file.read_text() == COMMENTED.replace("default:   minilm ", "default:   mpnet ")


@pytest.mark.parametrize(("before", "after"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_kept(file: Path, before: str | None, after: str) -> None:
    write(file, before)

    Edit.of_default(file, "mpnet").commit()

    assert file.read_bytes().decode() == after
    assert os.listdir(file.parent) == [file.name]  # noqa: PTH208 - no lock, no temporary file


@pytest.mark.parametrize("before", [text for text, _ in LAYOUTS.values()], ids=LAYOUTS)
def test_a_rollback_restores_every_byte(file: Path, before: str | None) -> None:
    content = write(file, before)
    edit = Edit.of_default(file, "mpnet")
    edit.commit()

    edit.rollback()

    assert file.read_bytes() == (content or b"")


@pytest.mark.parametrize("name", ["7", "1e3", "null", "on", "0x10", "a-b.c_d", "2024-01-01"])
@pytest.mark.parametrize("text", ["", "default: bge", "default: 'bge'", '{"default": "bge"}', "{}"])
def test_a_name_stays_a_name(file: Path, text: str, name: str) -> None:
    write(file, text)

    Edit.of_default(file, name).commit()

    assert read_document(file).data == {"default": name}


def test_json_stays_json(file: Path) -> None:
    write(file, json.dumps({"limits": {"max_loaded": 1}}, indent="\t"))

    Edit.of_default(file, "7").commit()

    assert json.loads(file.read_text()) == {"default": "7", "limits": {"max_loaded": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "models: {x: {backend: &name bge}}\ndefault: *name\n",
        "default: bge\n...\n---\n# a second document\n",
        "limits: {}\n...\n",
        "- a list\n",
        "default: [\n",
    ],
    ids=["an alias", "two documents", "a document's end", "a list", "no YAML"],
)
def test_a_layout_that_leaves_no_place_is_refused_and_nothing_changes(
    file: Path, text: str
) -> None:
    content = write(file, text)

    with pytest.raises(ConfigError) as caught:
        Edit.of_default(file, "mpnet")

    assert str(file) in caught.value.message
    assert "default: mpnet" in (caught.value.hint or "")
    assert file.read_bytes() == content


ENTRY = {"sources": [{"hf": "me/mine", "revision": "c0ffee"}], "dimensions": 8, "pooling": "mean"}
COMMENTS = {"dimensions": "config.json", "pooling": "1_Pooling/config.json"}
LINES = (
    "  mine:\n"
    "    sources: [{hf: me/mine, revision: c0ffee}]\n"
    "    dimensions: 8  # config.json\n"
    "    pooling: mean  # 1_Pooling/config.json\n"
)
IN_BRACES = f'"mine": {json.dumps(ENTRY)}'


def deeper(blanks: int, lines: str = LINES) -> str:
    return "".join(" " * blanks + line for line in lines.splitlines(keepends=True))


# the text before, and the text after
ROOMS = {
    "no file": (None, "models:\n" + LINES),
    "nothing": ("", "models:\n" + LINES),
    "no models": ("default: bge\n# the end", f"default: bge\n# the end\nmodels:\n{LINES}"),
    "an indented root": ("  limits: {}\n", "  limits: {}\n  models:\n" + deeper(2)),
    "nothing below the key": (
        "models:  # none\n  # bge: ...\n# limits\nlimits: {}\n",
        f"models:  # none\n  # bge: ...\n{LINES}# limits\nlimits: {{}}\n",
    ),
    "null": ("models: null # none\nlimits: {}\n", f"models:  # none\n{LINES}limits: {{}}\n"),
    "others": (
        "models:\n"
        "  bge:\n"
        "    pinned: true  # always\n"
        "    # and this is still about bge\n"
        "\n"
        "# limits\n"
        "limits: {}\n",
        "models:\n"
        "  bge:\n"
        "    pinned: true  # always\n"
        "    # and this is still about bge\n"
        f"{LINES}"
        "\n"
        "# limits\n"
        "limits: {}\n",
    ),
    "others, indented otherwise": (
        "models:\n    bge:\n       pinned: true\n    e5: {pinned: true}",
        f"models:\n    bge:\n       pinned: true\n    e5: {{pinned: true}}\n{deeper(2)}",
    ),
    "others, keys further in": (
        "models:\n bge:\n    pinned: true\nlimits: {}\n",
        "models:\n bge:\n    pinned: true\n"
        + LINES.replace("  mine", " mine")
        + "limits: {}\n",
    ),
    "a list and a text of many lines at the end": (
        "models:\n  bge:\n    prompts:\n      query: |\n        one\n        two\n"
        "    aliases:\n    - a\n    - b  # last\nlimits: {}\n",
        "models:\n  bge:\n    prompts:\n      query: |\n        one\n        two\n"
        f"    aliases:\n    - a\n    - b  # last\n{LINES}limits: {{}}\n",
    ),
    "a text of many lines at the end": (
        "models:\n  bge:\n    prompts:\n      query: |\n        one\n        two\nlimits: {}\n",
        "models:\n  bge:\n    prompts:\n      query: |\n        one\n        two\n"
        f"{LINES}limits: {{}}\n",
    ),
    "an alias at the end": (
        "stores: &all {}\nmodels:\n  bge: *all\nlimits: {}\n",
        f"stores: &all {{}}\nmodels:\n  bge: *all\n{LINES}limits: {{}}\n",
    ),
    "an entry without keys at the end": (
        "models:\n  bge:\nlimits: {}\n",
        f"models:\n  bge:\n{LINES}limits: {{}}\n",
    ),
    "Windows line ends": (
        "models:\r\n  bge: {pinned: true}\r\nlimits: {}\r\n",
        "models:\r\n  bge: {pinned: true}\r\n"
        + LINES.replace("\n", "\r\n")
        + "limits: {}\r\n",
    ),
    "models in braces": (
        "models: {bge: {pinned: true}}  # few\n",
        f"models: {{{IN_BRACES}, bge: {{pinned: true}}}}  # few\n",
    ),
    "empty braces": ("models: {}\n", f"models: {{{IN_BRACES}}}\n"),
    "a flow": ("{limits: {}}", f'{{"models": {{{IN_BRACES}}}, limits: {{}}}}'),
    "JSON": (
        '{\n\t"models": {\n\t\t"bge": {}\n\t}\n}\n',
        f'{{\n\t"models": {{\n\t\t{IN_BRACES},\n\t\t"bge": {{}}\n\t}}\n}}\n',
    ),
    "JSON, null": ('{"models": null}', f'{{"models": {{{IN_BRACES}}}}}'),
    "JSON, no models": ('{"limits": {}}', f'{{"models": {{{IN_BRACES}}}, "limits": {{}}}}'),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), ROOMS.values(), ids=ROOMS)
def test_a_model_goes_below_the_others_and_the_rest_stays(
    file: Path, before: str | None, after: str
) -> None:
    write(file, before)
    others = read_document(file).data.get("models") or {}

    Edit.of_model(file, "mine", ENTRY, COMMENTS).commit()

    assert file.read_bytes().decode() == after
    assert read_document(file).data["models"] == {**others, "mine": ENTRY}


def test_what_is_hard_to_quote_is_read_back_as_it_was(file: Path) -> None:
    entry = {
        "prompts": {"query": 'a "b"\n: # \\c\x85\u2028\x7f🎉', "document": "passage: "},
        "licence": "no",
        "revision": "123456",
        "precision": "4bit",
        "path": "~/models/my model",
    }

    Edit.of_model(file, "1e3", entry, {"licence": "a\nb: 1", "path": "\x1b[31m"}).commit()

    assert read_document(file).data == {"models": {"1e3": entry}}
    assert not {"\x1b", "\x85"} & set(file.read_text())


@pytest.mark.parametrize(
    "text",
    ["models: {mine: {pinned: true}}\n", "models: [a]\n", "a: &all {b: {}}\nmodels: *all\n"],
    ids=["it is there", "a list", "an alias"],
)
def test_no_room_for_a_model_is_told_with_the_entry(file: Path, text: str) -> None:
    write(file, text)

    with pytest.raises(ConfigError) as caught:
        Edit.of_model(file, "mine", ENTRY, COMMENTS)

    assert "models:\n" + LINES.rstrip() in (caught.value.hint or "")
    assert file.read_text() == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=6) | st.just("default"), VALUES), st.booleans(), st.data())
def test_whatever_the_file_holds_only_the_default_changes(
    content: dict[str, object], as_json: bool, data: st.DataObject
) -> None:
    import tempfile

    import yaml

    style = data.draw(st.sampled_from([None, False, True]))
    text = (
        json.dumps(content, indent=data.draw(st.sampled_from([None, 2, "\t"])))
        if as_json
        else yaml.safe_dump(content, default_flow_style=style, allow_unicode=True)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_bytes(text.encode())
        try:
            before = read_document(file).data
            Edit.of_default(file, "mpnet").commit()
        except ConfigError:
            assert file.read_bytes() == text.encode()
        else:
            assert read_document(file).data == {**before, "default": "mpnet"}


@settings(deadline=None)
@given(
    st.dictionaries(st.text(max_size=6), VALUES),
    st.none() | st.dictionaries(st.text(max_size=6), VALUES),
    st.booleans(),
    st.data(),
)
def test_whatever_the_file_holds_only_the_model_is_added(
    content: dict[str, object],
    models: dict[str, object] | None,
    as_json: bool,
    data: st.DataObject,
) -> None:
    import tempfile

    import yaml

    content = {**content, "models": models, "~": 1}
    style = data.draw(st.sampled_from([None, False, True]))
    text = (
        json.dumps(content, indent=data.draw(st.sampled_from([None, 2, "\t"])))
        if as_json
        else yaml.safe_dump(content, default_flow_style=style, allow_unicode=True, sort_keys=False)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_bytes(text.encode())
        try:
            before = read_document(file).data
            Edit.of_model(file, "mine", ENTRY, COMMENTS).commit()
        except ConfigError:
            assert file.read_bytes() == text.encode()
        else:
            there = {**(before["models"] or {}), "mine": ENTRY}
            assert read_document(file).data == {**before, "models": there}


def test_the_mode_stays_and_a_link_stays_a_link(tmp_path: Path, file: Path) -> None:
    real = tmp_path / "dotfiles" / "emberd.yaml"
    real.parent.mkdir()
    write(real, "default: bge\n")
    real.chmod(0o640)
    file.symlink_to("dotfiles/emberd.yaml")

    Edit.of_default(file, "mpnet").commit()

    assert file.is_symlink()
    assert real.read_text() == "default: mpnet\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_file_that_changed_meanwhile_is_left_alone(file: Path) -> None:
    write(file, "default: bge\n")
    edit = Edit.of_default(file, "mpnet")
    write(file, "default: e5\n")

    with pytest.raises(ConfigError, match=re.escape(str(file))):
        edit.commit()

    assert file.read_text() == "default: e5\n"


def test_a_rollback_does_not_undo_what_somebody_else_wrote_since(file: Path) -> None:
    write(file, "default: bge\n")
    edit = Edit.of_default(file, "mpnet")
    edit.commit()
    write(file, "default: e5\n")

    with pytest.raises(ConfigError, match=re.escape(str(file))):
        edit.rollback()

    assert file.read_text() == "default: e5\n"


def test_of_many_at_once_one_wins_and_the_others_are_told(file: Path) -> None:
    write(file, "default: bge\n")
    edits = [Edit.of_default(file, f"model-{n}") for n in range(8)]

    def commit(edit: Edit) -> bytes | None:
        try:
            edit.commit()
        except ConfigError:
            return None
        return edit.after

    with ThreadPoolExecutor(8) as threads:
        done = [after for after in threads.map(commit, edits) if after]

    assert done == [file.read_bytes()]
    assert os.listdir(file.parent) == [file.name]  # noqa: PTH208


def test_a_folder_that_does_not_exist_is_made(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "config.yaml"

    Edit.of_default(file, "mpnet").commit()

    assert file.read_text() == "default: mpnet\n"


def test_a_folder_that_cannot_be_written_is_named(home: Path) -> None:
    home.mkdir()
    write(home / "config.yaml", "default: bge-small\n")
    home.chmod(0o500)

    done = run_emberd("use", "mpnet", "--yes", home=home, prefix=powerless())

    home.chmod(0o700)
    assert done.returncode == 1
    assert f"{home / 'config.yaml'} cannot be written: Permission denied" in done.stderr.decode()
