"""Which table and columns of a Postgres database are a store: found in the catalog, or named."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from emberd.errors import NotAStoreError
from emberd.stores.pgvector.postgres import every, one, quoted

if TYPE_CHECKING:
    from emberd.stores.pgvector.postgres import Connection

OURS = "^emberd_(backup|undone|new)_[0-9a-f]{12}$"  # schemas that we make
KEYS = {
    "int2": "int", "int4": "int", "int8": "int", "uuid": "uuid", "text": "text", "varchar": "text",
}  # fmt: skip
WHERE = "Name one of them with `--option {option}=NAME`."

VECTORS = """
SELECT n.nspname, c.relname, a.attname, t.typname, c.oid
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid
    AND d.deptype = 'e'
JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'vector'
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT a.attisdropped AND c.relpersistence <> 't' AND n.nspname !~ %s
ORDER BY pg_catalog.pg_table_is_visible(c.oid) DESC, 1, 2, a.attnum"""

COLUMNS = """
SELECT a.attname, t.typname, t.typcategory = 'S', a.attnotnull, a.atttypmod,
    EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique
        AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum),
    EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary
        AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum), t.typnamespace::regnamespace::text
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""

METRICS = """
SELECT o.opcname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = %s AND a.attname = %s AND m.amname IN ('hnsw', 'ivfflat') LIMIT 1"""

OPERATORS = {"vector_l2_ops": "<->", "vector_ip_ops": "<#>", "vector_l1_ops": "<+>"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user said, as in `PgvectorStore`.

    `condition` limits the store to some rows: SQL about the row `t`, made once it is open.
    """

    table: str | None
    vector: str | None
    text: str | None
    id: str | None
    condition: "Callable[[Connection[Any]], str] | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A table with its columns. `declared` is the column's size, None for `vector` without one.

    `extension` is the schema of pgvector's types, `nearest` the operator that its index knows.
    `condition` is true of the store's rows, which are called `t`.
    """

    oid: int
    schema: str
    table: str
    key: str
    key_type: Literal["int", "uuid", "text"]
    text: str
    vector: str
    declared: int | None
    extension: str
    nearest: str
    condition: str

    @property
    def name(self) -> str:
        """The table's name, quoted for SQL."""
        return f"{quoted(self.schema)}.{quoted(self.table)}"

    @property
    def part(self) -> str:
        """What identifies it in its database, for people."""
        return f"{self.schema}.{self.table}.{self.vector}"

    @property
    def key_order(self) -> str:
        """The key of `t`, in the order that all stores have: texts by code points."""
        order = ' COLLATE "C"' if self.key_type == "text" else ""
        return f"t.{quoted(self.key)}{order}"

    @property
    def has_vector(self) -> str:
        """SQL that is true of a row of the store that has a vector."""
        return f"(t.{quoted(self.vector)} IS NOT NULL AND {self.condition})"

    def type_for(self, dimensions: int) -> str:
        """Return the column's type for vectors of another size."""
        return f"{self.extension}.vector" + (f"({dimensions})" if self.declared else "")

    def operator(self, sign: str) -> str:
        """Return one of pgvector's operators, whatever the search path is."""
        return f"OPERATOR({self.extension}.{sign})"


def layout_of(connection: "Connection[Any]", shown: str, wanted: Wanted) -> Layout:
    """Find the table and its columns. Raises `NotAStoreError`."""
    found = every(connection, VECTORS, OURS)
    if not found:
        raise NotAStoreError(
            f"{shown} has no table with a vector column.",
            hint="A store is a table with a column of the type `vector`, of the extension pgvector;"
            " correct the database's name.",
        )
    schema, table, oid = _table(shown, found, wanted.table)
    here = [(column, kind) for s, t, column, kind, _ in found if (s, t) == (schema, table)]
    vector = _vector(f"{shown}: the table {schema}.{table}", here, wanted.vector)
    columns = {name: rest for name, *rest in every(connection, COLUMNS, oid)}
    text = _text(f"{shown}: {schema}.{table}", columns, wanted)
    key = _key(f"{shown}: {schema}.{table}", columns, wanted.id)
    metric = one(connection, METRICS, oid, vector) or ""
    typmod = columns[vector][3]
    return Layout(
        oid=oid, schema=schema, table=table, key=key, key_type=KEYS[columns[key][0]],  # type: ignore[arg-type]
        text=text, vector=vector, declared=typmod if typmod > 0 else None,
        extension=columns[vector][6], nearest=OPERATORS.get(metric, "<=>"),
        condition=wanted.condition(connection) if wanted.condition else "true",
    )  # fmt: skip


def _table(shown: str, found: list[tuple[Any, ...]], wanted: str | None) -> tuple[str, str, int]:
    tables = {(schema, table): oid for schema, table, _, _, oid in found}
    names = ", ".join(".".join(name) for name in tables)
    if wanted is None:
        if len(tables) != 1:
            raise NotAStoreError(
                f"{shown} has {len(tables)} tables with vectors ({names}), not one.",
                hint=WHERE.format(option="table"),
            )
        ((schema, table), oid) = next(iter(tables.items()))
        return schema, table, oid
    for (schema, table), oid in tables.items():  # the visible ones come first
        if wanted in (table, f"{schema}.{table}"):
            return schema, table, oid
    raise NotAStoreError(
        f"{shown} has no table {wanted} with a vector column, only: {names}.",
        hint="Name one of those, `SCHEMA.TABLE`, as it is spelled here, without quotes.",
    )


def _vector(where: str, found: list[tuple[Any, Any]], wanted: str | None) -> str:
    kinds = dict(found)
    usable = [name for name, kind in found if kind == "vector"]
    name = wanted or (usable[0] if len(usable) == 1 else None)
    if wanted is None and len(usable) > 1:
        raise NotAStoreError(
            f"{where} has several vector columns ({', '.join(usable)}).",
            hint=WHERE.format(option="vector"),
        )
    name = name or next(iter(kinds))
    if name not in kinds:
        raise NotAStoreError(
            f"{where} has no vector column {name}, only: {', '.join(kinds)}.",
            hint=WHERE.format(option="vector"),
        )
    if kinds[name] != "vector":
        raise NotAStoreError(
            f"{where}: the column {name} is of the type {kinds[name]}; emberd keeps float32.",
            hint=f"Make it `vector`, of the same size: ALTER TABLE ... ALTER COLUMN {quoted(name)}"
            " TYPE vector(SIZE). Its indexes may stay halfvec if they are made for"
            " an expression.",
        )
    return str(name)


def _text(where: str, columns: dict[str, list[Any]], wanted: Wanted) -> str:
    texts = [name for name, (_, is_text, *_) in columns.items() if is_text]
    candidates = [name for name in texts if not columns[name][4] and name != wanted.id]
    if wanted.text is None and len(candidates) == 1:
        return candidates[0]
    if wanted.text in texts and wanted.text:
        return wanted.text
    if wanted.text:
        raise NotAStoreError(
            f"{where} has no text column {wanted.text}, only: {', '.join(texts) or 'none'}.",
            hint="Name the column that was embedded, of the type text or varchar.",
        )
    count = "several text columns" if candidates else "no text column"
    listed = f" ({', '.join(candidates)})" if candidates else ""
    raise NotAStoreError(
        f"{where} has {count}{listed}.",
        hint="Name the one that was embedded: `--option text=NAME`.",
    )


def _key(where: str, columns: dict[str, list[Any]], wanted: str | None) -> str:
    primary = [name for name, rest in columns.items() if rest[5]]
    name = wanted or (primary[0] if primary else None)
    if name is None or name not in columns:
        problem = f"no column {name}" if name else "no primary key of one column"
        raise NotAStoreError(
            f"{where} has {problem}.", hint="Name a unique column: `--option id=NAME`."
        )
    kind, _, not_null, _, unique, *_ = columns[name]
    if kind not in KEYS or not (unique and not_null):
        raise NotAStoreError(
            f"{where}: the column {name} ({kind}) cannot be the key.",
            hint="The key is an integer, bigint, text or uuid column that is unique and NOT NULL.",
        )
    return name
