"""``/docs``: the OpenAPI document as one page, which needs neither a script nor another server."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { border-bottom: 1px solid; padding-top: 1rem; }
summary { cursor: pointer; padding: .3rem 0; }
code, .method { font-family: ui-monospace, monospace; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
.scroll { overflow-x: auto; }
"""  # noqa: E501 - a line of the style sheet
#: The page runs nothing and loads nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def docs_page(document: Mapping[str, Any]) -> str:
    """Return the page."""
    return "\n".join(_page(document))


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>API of {title}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body><main><h1>API of {title}</h1>"
    yield f'<p>{escape(info["description"])} The same for programs: <a href="/openapi.json">openapi.json</a>.</p>'
    tags: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if isinstance(operation, Mapping):
                tag = next(iter(operation.get("tags", ())), "Server")
                block = "\n".join(_operation(document, method, path, operation))
                tags.setdefault(tag, []).append(block)
    for tag, blocks in tags.items():
        yield f"<h2>{escape(tag)}</h2>"
        yield from blocks
    yield "</main></body></html>"


def _operation(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<details><summary><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code> '
    yield f"{_text(operation.get('summary', ''))}</summary>"
    for parameter in operation.get("parameters", ()):
        where = escape(f"{parameter['in']} {parameter['name']}")
        yield f"<p><code>{where}</code>: {_text(parameter.get('description', ''))}</p>"
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(document, content["schema"])
        yield f"<p>Body, <code>{escape(media_type)}</code>:</p>"
        yield from _fields(schema)
    yield "<ul>"
    for status, answer in operation.get("responses", {}).items():
        yield f"<li><code>{escape(str(status))}</code> {_text(answer.get('description', ''))}</li>"
    yield "</ul></details>"


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    yield '<div class="scroll"><table><thead><tr><th>Field</th><th>Value</th><th>Meaning</th></tr></thead><tbody>'
    for name, field in schema.get("properties", {}).items():
        mark = " (required)" if name in required else ""
        yield f"<tr><td><code>{escape(name)}</code>{mark}</td><td>{escape(value_words(field))}</td>"
        yield f"<td>{_text(field.get('description', ''))}</td></tr>"
    yield "</tbody></table></div>"


def value_words(schema: Mapping[str, Any]) -> str:
    """Say in a few words what a schema takes."""
    if "enum" in schema:
        return ", ".join(str(value).lower() for value in schema["enum"] if value is not None)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(value_words(one) for one in schema["anyOf"] if one.get("type") != "null"))
    if schema.get("format") == "binary":
        return "file"
    kinds = schema.get("type", "anything")
    kind = " or ".join(one for one in (kinds if isinstance(kinds, list) else [kinds]) if one != "null")
    if kind == "array":
        return f"list of {value_words(schema.get('items', {}))}"
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    bounds = [f"from {low}" if "minimum" in schema else f"more than {low}"] if low is not None else []
    return " ".join([kind, *bounds, *([f"to {high}"] if high is not None else [])])


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def _text(text: str) -> str:
    """Escape a text and set what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
