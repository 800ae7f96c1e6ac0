"""The DDL of vec0 tables is read as sqlite-vec reads it: compared with tables that it made."""

import apsw
import pytest
import sqlite_vec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emberd.stores.sqlite import vec0
from emberd.stores.sqlite.vec0 import Column, Vec0DdlError
from tests.effort import examples

NAMES = ["pk", "E", "text", "body_2", "k9", "9", "int", "rowid", "t", "+x", '"q"', "[b]", "é", "_a"]
TYPES = [
    "text", "TEXT", "t", "te", "integer", "int", "INT", "i", "integ", "int64", "integer64", "float",
    "double", "f64", "f32", "bool", "boolean", "b", "blob", "real", "varchar", "+", "=", "(4)",
]  # fmt: skip
VECTORS = [
    "float[8]", "FLOAT [ 16 ]", "f32[8]", "float32[8]", "floats[08]", "int8[8]", "i8[8]", "bit[8]",
    "float(8)", "float 8 8", "float = 8 =", "float[0]", "float[a]", "float[8", "float[-8]",
    "float[9000]", "int16[8]", "f16[8]", "float[8.5]", "float [8,8]", "float[ /* 4 */ 8]",
]  # fmt: skip
TAILS = [
    "", "primary key", "PRIMARY KEY", "partition key", "Partition Key", "not null primary key",
    "primary key not null", "p k", "prim key", "part key", "primary", "key", "unique",
    "distance_metric=cosine", "distance_metric = L2", "distance_metric=dot", "d=l",
    "distance_metric=l1 distance_metric=cosine", "DEFAULT 'a, b'", "/* , */", "= =", "( , )",
    "-- x, y\n", "primary -- it is\n key", "primary /* it is */ key", "primary key -",
]  # fmt: skip
SINGLE = [
    "chunk_size=8", "chunk_size = 16", "Chunk_Size=64", "chunk_size=7", "c=8", "chunk_size", "x=1",
    "chunk_size=8 x", "= = 8", "+text", "+blob", "+t", "", "  ", "/* nothing */", "-- none\n",
    "'a, b'", '"pk" text primary key', "+ body text", "+body", "+body real", "+ + text",
]  # fmt: skip

space = st.sampled_from([" ", "  ", "\n"])
column = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(NAMES),
    space,
    st.one_of(st.sampled_from(TYPES), st.sampled_from(VECTORS)),
    space,
    st.sampled_from(TAILS),
)
plain = st.builds("{} {}".format, st.sampled_from(NAMES[:6]), st.sampled_from(TYPES[:18]))
key = st.sampled_from(
    ["pk text primary key", "pk int primary key unique", "a i partition key", "b text p k -"]
)
definition = st.one_of(column, plain, plain.map("+{}".format), key, st.sampled_from(SINGLE))
vector = st.sampled_from(["v1 float[8]", "v1 f32[8] distance_metric=cosine", "v1 bit[16]"])
gap = st.sampled_from([" ", "\n", " /* a, (b */ ", " -- c, d)\n "])
ddl = st.builds(
    lambda name, gap, module, before, parts, after: (
        f"CREATE VIRTUAL TABLE {name}{gap}USING {module}({before}"
        f"{(after + ',').join(parts)}{after})"
    ),
    st.sampled_from(["v", '"my v"', "[v, w]", "'v(1)'"]),
    gap,
    st.sampled_from(["vec0", "VEC0", '"vec0"', "[vec0]"]),
    st.sampled_from(["", " ", "/* vec0(x) */ "]),
    st.builds(
        lambda vector, others: [*others, vector], vector, st.lists(definition, max_size=3)
    ).flatmap(st.permutations),
    st.sampled_from(["", "\n", " -- x(\n", " /* ) */ "]),
)


def connect() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    return connection


def made(statement: str) -> tuple[apsw.Connection, str, str] | None:
    """Make the table; return its name and the DDL that SQLite keeps, None where it is refused."""
    connection = connect()
    try:
        connection.execute(statement)
    except (apsw.Error, UnicodeDecodeError):
        return None
    query = "SELECT name, sql FROM sqlite_master WHERE sql LIKE 'create virtual%'"
    name, kept = next(iter(connection.execute(query)))
    return connection, name, kept


def shadow(connection: apsw.Connection, table: str) -> dict[str, list[str]]:
    """Return the columns of the shadow tables, by what follows the name."""
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    found = {}
    for name in names:
        if name.startswith(f"{table}_"):
            rows = connection.execute("SELECT name, type FROM pragma_table_info(?)", (name,))
            found[name.removeprefix(f"{table}_")] = [f"{each} {type_}" for each, type_ in rows]
    return found


def vector_bytes(connection: apsw.Connection, table: str, number: int, size: int) -> int:
    """Return what a vector takes, by the blob that sqlite-vec makes for a chunk of `size`."""
    query = f'SELECT length(vectors) FROM "{table}_vector_chunks{number:02}"'  # noqa: S608
    return int(connection.execute(query).get) // size


BYTES = {"float": 4.0, "int8": 1.0, "bit": 1 / 8}
WORTH = {"text": "'a'", "integer": "1", "float": "1.5", "boolean": "1", "blob": "x'00'"}
MAKERS = {"float": "vec_f32", "int8": "vec_int8", "bit": "vec_bit"}


def worth(column: Column) -> str:
    if column.kind == "vector":
        return f"{MAKERS[column.type]}(zeroblob({int(column.dimensions * BYTES[column.type])}))"
    return WORTH[column.type]


@settings(max_examples=examples(1000), deadline=None)
@example("CREATE VIRTUAL TABLE v USING vec0(pk text not null primary key, e float[8], +body text)")
@example("CREATE VIRTUAL TABLE v USING vec0(pk text primary key not null, e float[8], +body text)")
@example("CREATE VIRTUAL TABLE v USING vec0(e float[8], +text, t t, p i part key)")
@example("CREATE VIRTUAL TABLE v USING vec0(e float(8) distance_metric=cosine, a bit[8])")
@example("CREATE VIRTUAL TABLE v USING vec0(e float 8 8, chunk_size=8)")
@given(ddl)
def test_what_sqlite_vec_accepts_is_read_as_it_does(statement: str) -> None:
    """Where it accepts: the same columns, kinds, types and sizes, or it is not understood."""
    accepted = made(statement)
    if accepted is None:
        return
    connection, table, kept = accepted
    assert vec0.is_vec0(kept)
    try:
        found = vec0.columns(kept)
    except Vec0DdlError:
        return

    columns = [column for column in found if column.kind != "option"]
    key = next((column for column in columns if column.kind == "key"), None)
    others = [column for column in columns if column is not key]
    listed = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    assert [name for (name,) in listed] == [
        key.name if key else "rowid",
        *(column.name for column in others),
    ]
    shadows = shadow(connection, table)
    vectors, partitions, auxiliary, metadata = (
        [column for column in others if column.kind == kind]
        for kind in ("vector", "partition", "auxiliary", "metadata")
    )
    assert ("id TEXT" in shadows["rowids"]) == bool(key and key.type == "text")
    assert sum(name.startswith("vector_chunks") for name in shadows) == len(vectors)
    assert sum(each.startswith("partition") for each in shadows["chunks"]) == len(partitions)
    assert len(shadows.get("auxiliary", [0])) - 1 == len(auxiliary)
    assert sum(name.startswith("metadatachunks") for name in shadows) == len(metadata)
    for number, column in enumerate(metadata):
        assert (f"metadatatext{number:02}" in shadows) == (column.type == "text")
    insert(connection, table, columns)
    size = int(connection.execute(f'SELECT size FROM "{table}_chunks"').get)  # noqa: S608
    for number, column in enumerate(vectors):
        width = vector_bytes(connection, table, number, size)
        assert width == column.dimensions * BYTES[column.type]
        start, end = column.size_at
        assert int(kept[start:end]) == column.dimensions
        wider = made(f"{kept[:start]}24{kept[end:]}")
        assert wider and vec0.columns(wider[2])[found.index(column)].dimensions == 24
    connection.close()


def insert(connection: apsw.Connection, table: str, columns: list[Column]) -> None:
    """Insert a row: a value of another type than the column's would be refused."""
    names = ", ".join(f'"{column.name}"' for column in columns)
    values = ", ".join(worth(column) for column in columns)
    connection.execute(f'INSERT INTO "{table}"({names}) VALUES ({values})')  # noqa: S608


def test_what_is_not_read_as_written_is_refused() -> None:
    """Whatever sqlite-vec, or a later one, makes of these."""
    for about in (
        "e float[8] indexed by rescore(quantizer=bit)",
        '"e" float[8]',
        "e float[8], pk text primary key, id text primary key",
        "e float = + 8",
        "e float[8], body",
        "e float[8], unknown=1",
    ):
        with pytest.raises(Vec0DdlError):
            vec0.columns(f"CREATE VIRTUAL TABLE v USING vec0({about})")


def test_only_a_vec0_table_is_taken_for_one() -> None:
    assert vec0.is_vec0("CREATE VIRTUAL TABLE v USING /* fts5 */ [VEC0](e float[8])")
    for statement in (
        "CREATE VIRTUAL TABLE v USING fts5(body, tokenize='x using vec0')",
        "CREATE TABLE v(x DEFAULT 'create virtual table v using vec0(')",
        "CREATE VIRTUAL TABLE v USING vec0x(e float[8])",
    ):
        assert not vec0.is_vec0(statement)
