"""A table beside a table of Postgres: the same in all but the type of a column, to take its place.

What a table is, is read from the catalog, once for the old one and once for the new one, so that
whatever was not carried over shows. What cannot be carried over is found before anything is done.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emberd.stores.pgvector.postgres import every, literal, one, quoted, run

if TYPE_CHECKING:
    from emberd.stores.pgvector.postgres import Connection

# Objects that depend on the table or its row type, but do not belong to it and cannot follow.
DEPENDENTS = """
SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0)
FROM pg_catalog.pg_depend d
LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
LEFT JOIN pg_catalog.pg_constraint k
    ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
WHERE ((d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s)
    OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (SELECT u.oid FROM pg_catalog.pg_type u
        JOIN pg_catalog.pg_type r ON u.oid IN (r.oid, r.typarray) WHERE r.typrelid = %(oid)s)))
  AND d.classid NOT IN ('pg_attrdef'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass,
    'pg_type'::regclass)
  AND NOT coalesce(c.relkind IN ('i', 'S', 't') OR c.oid = %(oid)s, false)
  AND NOT coalesce(k.conrelid = %(oid)s AND k.confrelid <> %(oid)s, false)"""

OBSTACLES = """
SELECT 'it is partitioned' FROM pg_catalog.pg_class WHERE oid = %(oid)s AND relkind <> 'r'
UNION ALL SELECT 'it is part of ' || inhparent::regclass FROM pg_catalog.pg_inherits
    WHERE inhrelid = %(oid)s
UNION ALL SELECT 'it belongs to an extension' FROM pg_catalog.pg_depend
    WHERE classid = 'pg_class'::regclass AND objid = %(oid)s AND deptype = 'e'
UNION ALL SELECT 'it has a replica identity of its own' FROM pg_catalog.pg_class
    WHERE oid = %(oid)s AND relreplident <> 'd'
UNION ALL SELECT 'the index ' || indexrelid::regclass || ' is invalid, or marked for CLUSTER'
    FROM pg_catalog.pg_index WHERE indrelid = %(oid)s AND (NOT indisvalid OR indisclustered)
UNION ALL SELECT 'the column ' || attname || ' has options' FROM pg_catalog.pg_attribute
    WHERE attrelid = %(oid)s AND attoptions IS NOT NULL
UNION ALL SELECT 'the vector column has a default, or is in a generated column'
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = %(oid)s AND a.attname = %(vector)s AND (a.atthasdef OR EXISTS (
        SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_attrdef'::regclass
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid
        AND d.refobjsubid = a.attnum))"""

SIZED = """
SELECT i.indexrelid::regclass::text FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attname = %s
WHERE i.indrelid = %s AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
  AND NOT a.attnum = ANY(i.indkey::int2[]) AND EXISTS (
    SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_class'::regclass
    AND d.objid = i.indexrelid AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum)"""

COLUMNS = """
SELECT a.attname, CASE WHEN a.attname = %(vector)s THEN a.atttypid::regtype::text
    ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END, a.attnotnull, a.attidentity,
    a.attgenerated, a.attstorage, a.attcompression, coalesce(a.attstattarget, -1), a.attcollation,
    pg_catalog.pg_get_expr(f.adbin, f.adrelid), pg_catalog.col_description(a.attrelid, a.attnum)
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef f
    ON f.adrelid = a.attrelid AND f.adnum = a.attnum
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""

CONSTRAINTS = """
SELECT conname, contype, pg_catalog.pg_get_constraintdef(oid),
    pg_catalog.obj_description(oid, 'pg_constraint')
FROM pg_catalog.pg_constraint WHERE conrelid = %(oid)s AND contype <> 't'
ORDER BY contype = 'f', contype <> 'p', conname"""

INDEXES = """
SELECT c.relname, pg_catalog.pg_get_indexdef(c.oid), i.indisunique, c.reltablespace,
    pg_catalog.obj_description(c.oid, 'pg_class'),
    EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = c.oid
        AND k.contype IN ('p', 'u', 'x'))
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %(oid)s ORDER BY c.relname"""

TRIGGERS = """
SELECT tgname, pg_catalog.pg_get_triggerdef(oid), tgenabled,
    pg_catalog.obj_description(oid, 'pg_trigger')
FROM pg_catalog.pg_trigger WHERE tgrelid = %(oid)s AND NOT tgisinternal ORDER BY tgname"""

POLICIES = """
SELECT p.polname, CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
    CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
        WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
    (SELECT string_agg(CASE WHEN r.role = 0 THEN 'PUBLIC' ELSE r.role::regrole::text END, ', ')
        FROM unnest(p.polroles) AS r(role)),
    pg_catalog.pg_get_expr(p.polqual, p.polrelid),
    pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
FROM pg_catalog.pg_policy p WHERE p.polrelid = %(oid)s ORDER BY p.polname"""

GRANTS = """
SELECT g.attname, n.grantee, g.privilege_type, g.is_grantable FROM (
    SELECT NULL AS attname, x.* FROM pg_catalog.pg_class c, aclexplode(c.relacl) x
        WHERE c.oid = %(oid)s AND x.grantee <> c.relowner
    UNION ALL SELECT a.attname, x.* FROM pg_catalog.pg_attribute a, aclexplode(a.attacl) x
        WHERE a.attrelid = %(oid)s AND NOT a.attisdropped) AS g(attname, grantor, grantee_oid,
    privilege_type, is_grantable),
LATERAL (SELECT CASE WHEN g.grantee_oid = 0 THEN 'PUBLIC' ELSE g.grantee_oid::regrole::text END)
    AS n(grantee) ORDER BY 1 NULLS FIRST, 2, 3"""

ABOUT = """
SELECT c.relowner::regrole::text, c.relpersistence, c.reltablespace, c.reloptions,
    (SELECT t.reloptions FROM pg_catalog.pg_class t WHERE t.oid = c.reltoastrelid),
    c.relrowsecurity, c.relforcerowsecurity, pg_catalog.obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_class c WHERE c.oid = %(oid)s"""

SEQUENCES = """
SELECT d.objid::regclass::text, a.attname, d.deptype FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.refobjid = %(oid)s AND d.deptype IN ('a', 'i')"""

Rows = list[tuple[Any, ...]]


def obstacles(connection: "Connection[Any]", oid: int, vector: str) -> list[str]:
    """Return why another table cannot take this one's place, in words; empty if it can."""
    values = {"oid": oid, "vector": vector}
    found = [*_named(connection, OBSTACLES, values), *_named(connection, DEPENDENTS, values)]
    return sorted(str(each[0]) for each in found)


def of_one_size(connection: "Connection[Any]", oid: int, vector: str) -> list[str]:
    """Return the indexes whose expressions or conditions name the size of the vectors."""
    return [name for (name,) in every(connection, SIZED, vector, oid)]


def name_of(connection: "Connection[Any]", oid: int) -> str:
    """Return a table's name, quoted for SQL."""
    return str(
        one(
            connection,
            "SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s",
            oid,
        )
    )


def definition(connection: "Connection[Any]", oid: int, vector: str) -> Mapping[str, str]:
    """Return everything that the catalog says of a table, but for the size of its vectors.

    It is the same for two tables of the same name in different schemas.
    """
    name, values = name_of(connection, oid), {"oid": oid, "vector": vector}
    found = {
        "columns": COLUMNS, "constraints": CONSTRAINTS, "indexes": INDEXES, "triggers": TRIGGERS,
        "policies": POLICIES, "privileges": GRANTS, "settings": ABOUT,
    }  # fmt: skip
    return {
        f"its {what}": json.dumps(
            [
                [each.replace(name, "TABLE") if isinstance(each, str) else each for each in row]
                for row in _named(connection, sql, values)
            ],
            default=str,
        )
        for what, sql in found.items()
    }


def create_beside(
    connection: "Connection[Any]", oid: int, schema: str, column: str, type_: str
) -> int:
    """Create an empty table like this one in a new schema, without indexes; return its oid.

    `column` gets the SQL type `type_`.
    """
    (_, persistence, tablespace, *_) = _named(connection, ABOUT, {"oid": oid})[0]
    old = name_of(connection, oid)
    new = f"{quoted(schema)}.{quoted(_bare(connection, oid))}"
    space = one(
        connection, "SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = %s", tablespace
    )
    run(connection, f"CREATE SCHEMA {quoted(schema)}")
    run(
        connection,
        f"CREATE {'UNLOGGED ' if persistence == 'u' else ''}TABLE {new}"
        f" (LIKE {old} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS)"
        + (f" TABLESPACE {quoted(space)}" if space else ""),
    )
    run(connection, f"ALTER TABLE {new} ALTER COLUMN {quoted(column)} TYPE {type_}")
    return int(one(connection, "SELECT %s::regclass::oid", new))


def _bare(connection: "Connection[Any]", oid: int) -> str:
    return str(one(connection, "SELECT relname FROM pg_catalog.pg_class WHERE oid = %s", oid))


def carry_over(connection: "Connection[Any]", old: int, new: int) -> None:
    """Give a filled table all that the old one has: indexes, constraints, triggers, privileges."""
    values, name, before = {"oid": old}, name_of(connection, new), name_of(connection, old)
    schema = _schema(connection, new)
    owner, *_, options, toast, secured, forced, comment = _named(connection, ABOUT, values)[0]
    for label, kind, text, about in _named(connection, CONSTRAINTS, values):
        if kind in ("p", "u", "x", "f"):  # the others came along with the columns
            run(connection, f"ALTER TABLE {name} ADD CONSTRAINT {quoted(label)} {text}")
            _comment(connection, f"CONSTRAINT {quoted(label)} ON {name}", about)
    for label, text, _, _, about, is_constraint in _named(connection, INDEXES, values):
        if not is_constraint:
            run(connection, _moved(text, f" ON {before} USING ", f" ON {name} USING "))
        _comment(connection, f"INDEX {quoted(schema)}.{quoted(label)}", about)
    for label, text, enabled, about in _named(connection, TRIGGERS, values):
        run(connection, _moved(text, f" ON {before} ", f" ON {name} "))
        how = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}.get(str(enabled))
        if how:
            run(connection, f"ALTER TABLE {name} {how} TRIGGER {quoted(label)}")
        _comment(connection, f"TRIGGER {quoted(label)} ON {name}", about)
    for column, *rest in _named(connection, COLUMNS, {"oid": old, "vector": ""}):
        if rest[6] != -1:
            run(
                connection,
                f"ALTER TABLE {name} ALTER COLUMN {quoted(column)} SET STATISTICS {int(rest[6])}",
            )
    settings = [*(options or ()), *(f"toast.{each}" for each in toast or ())]
    if settings:
        run(connection, f"ALTER TABLE {name} SET ({', '.join(settings)})")
    _comment(connection, f"TABLE {name}", comment)
    _secure(connection, old, name, enabled=secured, forced=forced)
    _own(connection, old, new, owner)


def _schema(connection: "Connection[Any]", oid: int) -> str:
    return str(
        one(
            connection,
            "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
            " ON n.oid = c.relnamespace WHERE c.oid = %s",
            oid,
        )
    )


def _secure(
    connection: "Connection[Any]", old: int, name: str, *, enabled: bool, forced: bool
) -> None:
    """Create the policies of row-level security."""
    for label, how, command, roles, using, check in _named(connection, POLICIES, {"oid": old}):
        run(
            connection,
            f"CREATE POLICY {quoted(label)} ON {name} AS {how} FOR {command} TO {roles}"
            + (f" USING ({using})" if using else "")
            + (f" WITH CHECK ({check})" if check else ""),
        )
    if enabled:
        run(connection, f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    if forced:
        run(connection, f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")


def _own(connection: "Connection[Any]", old: int, new: int, owner: str) -> None:
    """Give it the same privileges and owner; default privileges may have given it others."""
    name = name_of(connection, new)
    for column, grantee, *_ in _named(connection, GRANTS, {"oid": new}):
        if not column:
            run(connection, f"REVOKE ALL ON {name} FROM {grantee}")
    for column, grantee, privilege, grantable in _named(connection, GRANTS, {"oid": old}):
        run(
            connection,
            f"GRANT {privilege}{f' ({quoted(column)})' if column else ''} ON {name}"
            f" TO {grantee}{' WITH GRANT OPTION' if grantable else ''}",
        )
    if owner != one(connection, "SELECT quote_ident(current_user)"):
        run(connection, f"ALTER TABLE {name} OWNER TO {owner}")


def take_place(connection: "Connection[Any]", old: int, new: int, keep: str | None) -> None:
    """Move the old table to the new schema `keep`, or drop it, and the new one to its place.

    Both must be locked. The schema of the new one is dropped.
    """
    here, away = _schema(connection, old), _schema(connection, new)
    sequences = _named(connection, SEQUENCES, {"oid": old})
    for sequence, column, kind in sequences:
        if kind == "a":  # it stays where it is, and counts on
            run(connection, f"ALTER SEQUENCE {sequence} OWNED BY NONE")
        else:
            _count_on(connection, sequence, new, column)
    name = name_of(connection, old)
    if keep:
        run(connection, f"CREATE SCHEMA {quoted(keep)}")
        run(connection, f"ALTER TABLE {name} SET SCHEMA {quoted(keep)}")
    else:
        run(connection, f"DROP TABLE {name}")
    run(connection, f"ALTER TABLE {name_of(connection, new)} SET SCHEMA {quoted(here)}")
    run(connection, f"DROP SCHEMA {quoted(away)}")
    for sequence, column, kind in sequences:
        if kind == "a":
            run(connection, f"ALTER SEQUENCE {sequence} OWNED BY {name}.{quoted(column)}")


def _count_on(connection: "Connection[Any]", sequence: str, new: int, column: str) -> None:
    """Let an identity column of the new table continue where the old one is, or where it was."""
    own = next(
        (name for name, other, kind in _named(connection, SEQUENCES, {"oid": new})
         if other == column and kind == "i"),
        None,
    )  # fmt: skip
    if own:
        run(connection, f"SELECT setval('{own}', last_value, is_called) FROM {sequence}")


def _moved(text: str, before: str, after: str) -> str:
    """Return a definition for another table. The name must be there once, so that it is right."""
    if text.count(before) != 1:
        raise ValueError(f"{before!r} is not once in a definition")
    return text.replace(before, after)


def _comment(connection: "Connection[Any]", what: str, text: str | None) -> None:
    if text is not None:
        run(connection, f"COMMENT ON {what} IS {literal(text)}")


def _named(connection: "Connection[Any]", sql: str, values: Mapping[str, Any]) -> Rows:
    return connection.execute(sql.encode(), values).fetchall()
