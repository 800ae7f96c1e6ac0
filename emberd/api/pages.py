"""`/docs`: all routes as an HTML page, without scripts or anything from another server.

All values are escaped, and its policy lets a browser load nothing but its own style.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

from starlette.responses import HTMLResponse, Response

from emberd.api import answers
from emberd.api.openapi import ACCESS, Document, NativeError, fails, shows
from emberd.api.routes import Router

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#222;background:#fff}"
    "table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.2rem 1rem "
    ".2rem 0;border-bottom:1px solid #ddd}"
    "code,pre{font:14px ui-monospace,monospace}pre{background:#f4f4f4;padding:.5rem;overflow:auto}"
    "h2{margin-top:2.5rem}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}"
    "pre{background:#242424}th,td{border-color:#444}a{color:#8bf}}"
)
HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{HASH}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
CODE = re.compile(r"`([^`]+)`")


def create_router(document: Document) -> Router:
    """Return the routes; `document` describes all of them."""
    router = Router()

    @router.get("/openapi.json", include_in_schema=False)
    async def described() -> Response:
        """Describe all routes."""
        return answers.as_json(await document.get())

    @router.get(
        "/docs",
        response_class=HTMLResponse,
        responses=shows("text/html") | fails(NativeError, ACCESS),
    )
    async def docs() -> Response:
        """Show /openapi.json as a page."""
        return page("emberd: routes", *_docs(await document.get()))

    return router


def page(title: str, *parts: str) -> Response:
    """Return an HTML page; `parts` are HTML."""
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>"
    )
    return HTMLResponse("\n".join([head, *parts, "</body></html>"]), headers=HEADERS)


def _docs(described: dict[str, Any]) -> Iterator[str]:
    """Yield the routes of an OpenAPI document, then the shapes they refer to."""
    yield '<p><a href="/ui/">emberd</a> · <a href="/openapi.json">/openapi.json</a></p>'
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
            yield _prose(operation.get("description") or operation.get("summary", ""))
            for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
                yield f"<p>Takes {_kind(body['schema'])} as {escape(media_type)}, for example:</p>"
                for example in body.get("examples", {}).values():
                    shown = json.dumps(example["value"], ensure_ascii=False)
                    yield f"<pre>{escape(shown)}</pre>"
            answers = [
                (status, _prose(response["description"]), _contents(response.get("content", {})))
                for status, response in sorted(operation["responses"].items())
            ]
            yield _table(("status", "when", "body"), answers, html=True)
    yield "<h2>Shapes</h2>"
    for name, shape in described["components"]["schemas"].items():
        if "properties" not in shape:
            continue
        yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>'
        yield _prose(shape.get("description", ""))
        needed = shape.get("required", ())
        rows = [
            (
                f"<code>{escape(field)}</code>",
                _kind(schema),
                "required" if field in needed else _default(schema),
                _prose(schema.get("description", "")),
            )
            for field, schema in shape["properties"].items()
        ]
        yield _table(("field", "type", "default", ""), rows, html=True)


def _contents(content: dict[str, Any]) -> str:
    return " or ".join(
        _kind(body["schema"]) if media_type == "application/json" else escape(media_type)
        for media_type, body in content.items()
    )


def _kind(schema: dict[str, Any]) -> str:
    """Describe in words what a JSON schema allows."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return escape(str(schema.get("type", "anything")))


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    return "" if value is None else f"<code>{escape(json.dumps(value))}</code>"


def _prose(text: str) -> str:
    """Return text as HTML, with `code` marked up."""
    marked = CODE.sub(r"<code>\1</code>", escape(text, quote=False))
    return "".join(f"<p>{paragraph}</p>" for paragraph in marked.split("\n\n") if paragraph)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, html: bool = False) -> str:
    """Return a table of texts, or of HTML."""
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
    for row in rows:
        cells = (cell if html else escape(cell) for cell in row)
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"
