"""Every error about the config file names file, line and key, and says what would be right."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from emberd.config.document import Keys
from emberd.config.load import load_config
from emberd.errors import ConfigError
from tests.config.conftest import Load

ENTRY = "models:\n  mine:\n    sources: [{hf: me/mine}]\n    dimensions: 8\n    pooling: mean\n"

# (file, line of the mistake, what the message says, what the hint says)
MISTAKES = {
    "unknown group": ("servr: {}", 1, "servr: there is no such setting", "Did you mean server?"),
    "unknown group, models": ("modls: {}", 1, "modls", "Did you mean models?"),
    "unknown setting": (
        "limits:\n  max_loded: 2",
        2,
        "limits.max_loded: there is no such setting",
        "Did you mean max_loaded?",
    ),
    "unknown setting, nothing near": (
        "server:\n  xyzzy: 2",
        2,
        "server.xyzzy",
        "host, port, socket, token_file, allow_open, allowed_hosts, allowed_origins, grace, page.",
    ),
    "unknown key of a model": (
        ENTRY + "    poolin: cls",
        6,
        "models.mine.poolin: there is no such setting",
        "Did you mean pooling?",
    ),
    "unknown key of a source": (
        "models:\n  minilm:\n    sources:\n    - hf: a/b\n    - hff: c/d",
        5,
        "models.minilm.sources.1.hff: there is no such setting",
        "Did you mean hf?",
    ),
    "unknown kind of prompt": (
        "models:\n  minilm:\n    prompts:\n      qery: 'q: '",
        4,
        "models.minilm.prompts.qery: 'qery' should be 'query' or 'document'",
        "config show --all",
    ),
    "a number for a key": ("1: 2", 1, "1: 1 ", "config show --all"),
    "text for a number": (
        "server:\n  port: http",
        2,
        "server.port: 'http' should be a whole number.",
        "show --all",
    ),
    "a number out of range": (
        "server:\n  port: 70000",
        2,
        "server.port: 70000 should be at most 65535",
        "config show --all",
    ),
    "a fraction": (
        "limits:\n  max_texts: 1.5",
        2,
        "limits.max_texts: 1.5 should be a whole number.",
        "show --all",
    ),
    "zero": ("limits:\n\n  max_loaded: 0", 3, "limits.max_loaded: 0 should be at least 1", "show"),
    "a number for text": ("\ndefault: 3", 2, "default: 3 should be text", "show"),
    "text for a list": (
        "server:\n  allowed_hosts: me.local",
        2,
        "server.allowed_hosts: 'me.local' should be a list",
        "config show --all",
    ),
    "an origin that no page has": (
        "server:\n  allowed_origins: ['*']",
        2,
        "server.allowed_origins.0: '*' is not an origin; write, for example, http://localhost",
        "config show --all",
    ),
    "a page instead of its origin": (
        "server:\n  allowed_origins: ['http://localhost:3000/app']",
        2,
        "is not an origin",
        "config show --all",
    ),
    "a list for a group": ("limits: []", 1, "limits: it should be a group of keys", "show"),
    "text for a group": ("server: here", 1, "server: 'here' should be a group", "show"),
    "an empty host": (
        "server:\n  host: ''",
        2,
        "server.host: '' should not be empty",
        "config show --all",
    ),
    "no size": ("limits:\n  memory_budget: lots", 2, "'lots' is not a size", "show"),
    "a size beyond all": ("limits:\n  max_body: 1e999", 2, "is not a size", "config show --all"),
    "a body that no frame takes": (
        "limits:\n  max_body: 300MiB",
        2,
        "limits.max_body: '300MiB' should be at most 256MiB",
        "show",
    ),
    "no bytes": ("limits:\n  memory_budget: 0B", 2, "should be more than 0", "show"),
    "no number of replicas": (
        "limits:\n  replicas: many",
        2,
        "limits.replicas: 'many' should be auto, or a whole number from 1 to 1024.",
        "show",
    ),
    "no replicas at all": (
        "models:\n  minilm:\n    replicas: 0",
        3,
        "models.minilm.replicas: 0 should be auto, or a whole number from 1 to 1024.",
        "show",
    ),
    "no duration": ("limits:\n  idle_unload: soon", 2, "'soon' is not a duration", "show"),
    "a duration below zero": ("limits:\n  idle_unload: -3", 2, "is not a duration", "show"),
    "no time": ("limits:\n  request_timeout: 0s", 2, "should be more than 0", "show"),
    "no choice": (
        "models:\n  minilm:\n    pooling: man",
        3,
        "models.minilm.pooling: 'man' should be 'mean', 'cls', 'last' or 'max'",
        "config show --all",
    ),
    "a key of chunks that is mistyped": (
        "stores:\n  notes:\n    path: here\n    chunk: {sise: 200}",
        4,
        "stores.notes.chunk.sise: there is no such setting",
        "Did you mean size?",
    ),
    "chunks without a size": (
        "stores:\n  notes:\n    path: here\n    chunk: {overlap: 20}",
        4,
        "stores.notes.chunk.size: this key is required",
        "`size:`",
    ),
    "chunks that repeat all": (
        "stores:\n  notes:\n    path: here\n    chunk: {size: 20, overlap: 20}",
        4,
        "stores.notes.chunk: it has an overlap that is not smaller than size",
        "config show --all",
    ),
    "code without a language": (
        "stores:\n  notes:\n    path: here\n    chunk: {size: 20, kind: code}",
        4,
        "stores.notes.chunk: it needs a language of its code: one of bash, c, cpp",
        "config show --all",
    ),
    "a language of text": (
        "stores:\n  notes:\n    path: here\n    chunk: {size: 20, language: python}",
        4,
        "stores.notes.chunk: it has a language, which only kind code can have",
        "config show --all",
    ),
    "no truth": (
        "models:\n  minilm:\n    pinned: perhaps",
        3,
        "models.minilm.pinned: 'perhaps' should be true or false",
        "show",
    ),
    "nothing of a model": (
        "default: minilm\nmodels:\n  mine:\n",
        3,
        "models.mine.sources: ",
        "`sources:`",
    ),
    "a required key that is mistyped": (
        "models:\n  mine:\n    source: [{hf: a/b}]\n    dimensions: 8\n    pooling: mean",
        3,
        "models.mine.source: there is no such setting",
        "Did you mean sources?",
    ),
    "a setting outside its group": (
        "port: 9000",
        1,
        "port: there is no such setting",
        "Did you mean server.port?",
    ),
    "no dimensions": (
        "models:\n  mine:\n    sources: [{hf: a/b}]\n    pooling: mean",
        2,
        "models.mine.dimensions: ",
        "`dimensions:`",
    ),
    "no pooling": (
        "models:\n  mine:\n    sources: [{hf: a/b}]\n    dimensions: 8",
        2,
        "models.mine.pooling: ",
        "`pooling:`",
    ),
    "no source": (
        "models:\n  minilm:\n    sources: []",
        3,
        "models.minilm.sources: it needs at least one entry",
        "config show --all",
    ),
    "a source in two places": (
        "models:\n  minilm:\n    sources:\n    - hf: a/b\n      path: c",
        4,
        "models.minilm.sources.0: it needs exactly one of hf, path, package",
        "config show --all",
    ),
    "a source in no place": (
        "models:\n  minilm:\n    sources:\n    - package: ''",
        4,
        "models.minilm.sources.0: it needs exactly one of hf, path, package",
        "config show --all",
    ),
    "a revision of a folder": (
        "models:\n  minilm:\n    sources:\n    - path: c\n      revision: v1",
        4,
        "it has a revision, which only a source with hf can have",
        "config show --all",
    ),
    "a Hub id without its owner": (
        "models:\n  minilm:\n    sources:\n    - hf: minilm",
        4,
        "'minilm', which is not of the form owner/name",
        "config show --all",
    ),
    "a source that is a word": (
        "models:\n  minilm:\n    sources:\n    - a/b",
        4,
        "models.minilm.sources.0: 'a/b' should be a group of keys",
        "config show --all",
    ),
    "a matryoshka size that is no smaller": (
        ENTRY + "    matryoshka: [4, 8]",
        2,
        "models.mine: it lists matryoshka 8, not smaller than dimensions 8",
        "config show --all",
    ),
    "a name within an entry": (
        "models:\n  minilm:\n    name: other",
        3,
        "models.minilm.name: ",
        "aliases",
    ),
    "a name with a blank": (
        "models:\n  my model: {}",
        2,
        "models.my model: a model's name",
        "alias",
    ),
    "an entry that is a number": (
        "models:\n  minilm: 3",
        2,
        "models.minilm: ",
        "Indent",
    ),
    "models in a list": ("models:\n- minilm", 1, "models: ", "name"),
    "an alias of two models": (
        ENTRY + "    aliases: [bge]",
        1,
        "The alias 'bge' belongs to both 'bge-small' and 'mine'",
        "Remove it from models.mine.aliases",
    ),
    "an alias that is another's name": (
        ENTRY + "    aliases: [minilm]",
        1,
        "The alias 'minilm' belongs to both 'minilm' and 'mine'",
        "Remove it from models.mine.aliases",
    ),
    "an alias of no model": (
        "aliases:\n  ada: minlm:query",
        2,
        "aliases.ada: No model is called 'minlm:query'",
        "Did you mean minilm:query",
    ),
    "an alias of an alias": (
        "aliases:\n  ada: minilm\n  babbage: ada",
        3,
        "aliases.babbage: No model is called 'ada'",
        "",
    ),
    "an alias of no role": (
        "aliases: {ada: 'bge-small:image'}",
        1,
        "aliases.ada: No model is called 'bge-small:image'",
        "bge-small:query or bge-small:document",
    ),
    "an alias that is a model's name": (
        "aliases:\n  minilm: bge-small:query",
        2,
        "aliases.minilm: a model has this name",
        "Choose another alias",
    ),
    "an alias of a number": ("aliases:\n  ada: 3", 2, "aliases.ada: 3 should be text", ""),
    "a list of aliases": ("aliases: [ada]", 1, "aliases: it should be a group of keys", ""),
    "a default with a role": (
        "server: {}\ndefault: bge-small:query",
        2,
        "default: 'bge-small:query' states the role query",
        "Write bge-small.",
    ),
    "an alias with a role as the default": (
        "default: ada\naliases: {ada: 'bge-small:document'}",
        1,
        "default: 'ada' states the role document",
        "Write bge-small.",
    ),
    "an unknown default": (
        "server: {}\ndefault: minlm",
        2,
        "default: No model is called 'minlm'",
        "Did you mean minilm",
    ),
    "a key that stands twice": (
        "default: mpnet\ndefault: bge",
        2,
        "'default' appears twice",
        "",
    ),
    "a model that stands twice": (
        "models:\n  minilm: {}\n  'minilm': {}",
        3,
        "'minilm' appears twice",
        "Remove one",
    ),
    "a key that stands twice in JSON": (
        '{\n"server": {"port": 1,\n"port": 2}}',
        3,
        "'port' appears twice",
        "Remove one",
    ),
    "a tab": ("server:\n\tport: 1", 2, "this is not valid YAML", "indentation"),
    "an open quote": ("a:\n- 'b", 2, "this is not valid YAML", "indentation"),
    "a missing blank": (
        "server:\n  port:1\n  host: x",
        3,
        "this is not valid YAML",
        "colon",
    ),
    "a control character": ("\n\ndefault: \x07", 3, "special characters are not allowed", ""),
    "half a character": (
        'models: {minilm: {prompts: {query: "\\uD83D"}}}',
        1,
        "surrogates not allowed",
        "",
    ),
    "half a character in JSON": ('{"default": "\\ud83d"}', 1, "surrogates not allowed", ""),
    "a Python object": ("\na: !!python/object:os.system {}", 2, "this is not valid YAML", ""),
    "a loop": ("a: &a [*a]", 1, "its aliases", ""),
    "ten lines that mean a billion": (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghi")),
        1,
        "its aliases",
        "",
    ),
    "merges without end": (
        "a: &a {k: 1}\n"
        + "".join(f"{b}: &{b} {{<<: [*{a}, *{a}]}}\n" for a, b in pairwise("abcdefghijklmnopqrst")),
        1,
        "its aliases",
        "",
    ),
    "braces in a value": (
        "models:\n  minilm:\n    sources:\n    - hf: '{'",
        4,
        "'{', which is not of the form owner/name",
        "config show --all",
    ),
    "a tag that does not fit": ("a: !!bool maybe", 1, "a tag does not fit its value", ""),
    "a date that is none": ("a: !!timestamp soon", 1, "a tag does not fit its value", ""),
    "nested too deep": ("[" * 5000, 1, "nested", ""),
    "a NUL in a path": ('log: {file: "/tmp/a\\0"}', 1, "NUL character", ""),
    "a revision that leads elsewhere": (
        "models:\n  minilm:\n    sources:\n    - hf: a/b\n      revision: ../../x",
        4,
        "it has revision '../../x', which is not a branch, tag or commit",
        "config show --all",
    ),
    "a Hub id that leads elsewhere": (
        "models:\n  minilm:\n    sources:\n    - hf: ../x",
        4,
        "'../x', which is not of the form owner/name",
        "config show --all",
    ),
    "more dimensions than a number holds": (
        "models:\n  minilm:\n    dimensions: 99999999999999999999",
        3,
        "should be at most 2147483647",
        "config show --all",
    ),
    "a list": (
        "- default",
        1,
        "a list",
        "init --print",
    ),
    "a word": ("minilm", 1, "a single value", "init --print"),
    "JSON with a mistake, in tabs": (
        '{\n\t"limits": {"max_texts": 1,\n\t\t"max_loaded": 0}\n}',
        3,
        "limits.max_loaded: 0",
        "config show --all",
    ),
}


@pytest.mark.parametrize(("text", "line", "message", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_met_with_its_place_and_what_is_right(
    load: Load, tmp_path: Path, text: str, line: int, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)

    assert caught.value.message.startswith(f"{tmp_path / 'config.yaml'}:{line}: ")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        (
            {"EMBERD_SERVER_PORT": "x"},
            {},
            "$EMBERD_SERVER_PORT: server.port: 'x' should be a whole",
        ),
        ({"EMBERD_DEFAULT": "minlm"}, {}, "$EMBERD_DEFAULT: default: No model is called 'minlm'"),
        (
            {"EMBERD_LIMITS_IDLE_UNLOAD": "soon"},
            {},
            "$EMBERD_LIMITS_IDLE_UNLOAD: limits.idle_unload",
        ),
        ({}, {("server", "port"): -1}, "--port: server.port: -1 should be at least 0"),
        ({}, {("default",): "minlm"}, "--default: default: No model is called 'minlm'"),
        ({"EMBERD_DEFAULT": "bge:query"}, {}, "$EMBERD_DEFAULT: default: 'bge:query' states the"),
    ],
)
def test_a_mistake_outside_the_file_is_met_with_where_it_was_made(
    load: Load, environ: Mapping[str, str], flags: Mapping[Keys, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load("", environ, flags)

    assert caught.value.message.startswith(message)


def test_a_variable_below_what_is_no_group_is_met_with_the_file(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"config.yaml:1: server: "):
        load("server: here", {"EMBERD_SERVER_PORT": "1"})


def test_a_file_in_another_encoding_is_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load("default: minilm # naß".encode("latin-1"))

    assert str(tmp_path / "config.yaml") in caught.value.message
    assert "UTF-8" in (caught.value.hint or "")


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").mkdir()

    with pytest.raises(ConfigError, match=r"config\.yaml cannot be read: .*folder"):
        load_config(environ={"EMBERD_HOME": str(tmp_path)})
