"""Generates ``crds/*.yaml`` and ``docs/custom-resources.md`` from the classes of documents.

``--check`` only checks whether they are stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from shashin.builds.document import IndexBuild
from shashin.builds.resource_status import IndexBuildStatus
from shashin.documents.parts import API_VERSION, VALIDATIONS, Part
from shashin.servings.document import IndexServing, ServingStatus

FOLDER = Path(__file__).with_name("crds")
PAGE = Path(__file__).parents[1] / "docs" / "custom-resources.md"
GROUP, _, VERSION = API_VERSION.partition("/")

Schema = dict[str, Any]

_DROPPED = {"title", "$defs", "additionalProperties", "propertyNames", "const"}

COLUMNS: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "IndexBuild": [
        ("Model", "string", ".spec.model"),
        ("Tier", "string", ".spec.tier"),
        ("Phase", "string", ".status.phase"),
        ("Step", "string", ".status.step"),
        ("Attempts", "integer", ".status.attempts"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ],
    "IndexServing": [
        ("Model", "string", ".spec.model"),
        ("Tier", "string", ".spec.tier"),
        ("Replicas", "integer", ".spec.replicas"),
        ("Ready", "integer", ".status.readyReplicas"),
        ("Available", "string", ".status.conditions[?(@.type=='Available')].status"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ],
}
"""Columns of ``kubectl get``: heading, type and path."""

NAMES = {
    "IndexBuild": ("indexbuilds", "indexbuild", ["ib"]),
    "IndexServing": ("indexservings", "indexserving", ["is", "serving"]),
}
"""Plural, singular and short names."""

KINDS: Sequence[tuple[type[Part], type[Part]]] = [
    (IndexBuild, IndexBuildStatus),
    (IndexServing, ServingStatus),
]

HEAD = """# Custom resources
What `kubectl explain` shows, in one page. It is generated from the classes of documents (`make docs`), as the definitions in [k8s/crds/](../k8s/crds) are. The rules are checked by the API server, which refuses what breaks them.
"""


def structural(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return a schema as Kubernetes wants it: without references, and with one type per value."""
    if (name := schema.get("$ref")) is not None:
        target = definitions[name.rpartition("/")[2]]
        own = {k: v for k, v in schema.items() if k != "$ref"}
        if rules := [*target.get(VALIDATIONS, ()), *own.get(VALIDATIONS, ())]:
            own[VALIDATIONS] = rules
        return structural({**target, **own}, definitions)
    if (options := schema.get("anyOf")) is not None:
        (one,) = (option for option in options if option.get("type") != "null")
        rest = {k: v for k, v in schema.items() if k not in {"anyOf", "default"}}
        return structural({**one, **rest}, definitions)
    found: Schema = {k: v for k, v in schema.items() if k not in _DROPPED}
    if "description" in found:
        found["description"] = " ".join(found["description"].replace("``", "").split())
    if found.get("default", 0) is None:
        del found["default"]
    if (values := schema.get("additionalProperties")) not in (None, False, True):
        found["additionalProperties"] = structural(values, definitions)
    if "properties" in found:
        found["properties"] = {
            key: structural(value, definitions) for key, value in found["properties"].items()
        }
    if "items" in found:
        found["items"] = structural(found["items"], definitions)
    return found


def schema_of(part: type[Part]) -> Schema:
    """Return the structural schema of a part of a document."""
    schema = part.model_json_schema(by_alias=True)
    return structural(schema, schema.get("$defs", {}))


def definition(kind: type[Part], status: type[Part]) -> Schema:
    """Return the CustomResourceDefinition of a kind."""
    plural, singular, short = NAMES[kind.__name__]
    whole = schema_of(kind)
    # The name becomes a label's value, and that of other objects.
    length = {
        "rule": "size(self.metadata.name) <= 63",
        "message": "the name has more than 63 characters",
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": plural,
                "singular": singular,
                "shortNames": short,
                "categories": ["shashin"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind_of, "jsonPath": path}
                        for name, kind_of, path in COLUMNS[kind.__name__]
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": whole["description"],
                            "required": ["spec"],
                            VALIDATIONS: [length],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": whole["properties"]["spec"],
                                "status": schema_of(status),
                            },
                        }
                    },
                }
            ],
        },
    }


def fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Yield every field below a schema: its path, its own schema, and whether it is required."""
    required = set(schema.get("required", ()))
    for key, value in schema.get("properties", {}).items():
        here = f"{path}.{key}"
        yield here, value, key in required
        inner, below = value, here
        if "items" in value:
            inner, below = value["items"], f"{here}[]"
        yield from fields(inner, below)


def page() -> str:
    """Return the page of all kinds."""
    parts = [HEAD]
    for kind, status in KINDS:
        crd = definition(kind, status)
        version = crd["spec"]["versions"][0]
        schema = version["schema"]["openAPIV3Schema"]
        short = ", ".join(f"`{name}`" for name in crd["spec"]["names"]["shortNames"])
        parts.append(f"\n## {kind.__name__}\n{schema['description']} Short names: {short}.\n\n")
        parts.append("| field | type | default | meaning |\n|---|---|---|---|\n")
        for section in ("spec", "status"):
            for path, field, required in fields(schema["properties"][section], section):
                parts.append(_row(path, field, required=required and section == "spec"))
        rules = list(_rules(schema["properties"]["spec"], "spec"))
        parts.append("\nRules:\n")
        parts += [f"- `{path}`: {message}\n" for path, message in rules]
    return "".join(parts)


def _row(path: str, field: Schema, *, required: bool) -> str:
    kind = field.get("format") or field["type"]
    if "enum" in field:
        kind = " or ".join(f"`{value}`" for value in field["enum"])
    default = "required" if required else ""
    if field.get("default") not in (None, [], {}):
        default = f"`{field['default']}`"
    limits = [
        f"{word} {field[key]}"
        for key, word in (
            ("minimum", "at least"),
            ("maximum", "at most"),
            ("minItems", "at least"),
            ("maxItems", "at most"),
        )
        if key in field and not (key in {"minimum", "minItems"} and field[key] == 0)
    ]
    bounds = f" ({', '.join(limits)})" if limits else ""
    meaning = " ".join(field.get("description", "").split()).replace("|", "\\|")
    return f"| `{path}` | {kind}{bounds} | {default} | {meaning} |\n"


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    yield from ((path, rule["message"]) for rule in schema.get(VALIDATIONS, ()))
    for here, field, _ in fields(schema, path):
        inner = field.get("items", {})
        yield from ((here, rule["message"]) for rule in field.get(VALIDATIONS, ()))
        yield from ((f"{here}[]", rule["message"]) for rule in inner.get(VALIDATIONS, ()))


def generated() -> dict[Path, str]:
    """Return the content of every generated file."""
    files = {PAGE: page()}
    for kind, status in KINDS:
        crd = definition(kind, status)
        text = yaml.safe_dump(crd, sort_keys=False, width=100, allow_unicode=True)
        files[FOLDER / f"{NAMES[kind.__name__][0]}.yaml"] = (
            "# Generated by k8s/generate_crds.py: change the classes of documents, and run `make docs`.\n"
            + text
        )
    return files


def main() -> int:
    """Write or check the files; returns the exit code."""
    check = "--check" in sys.argv[1:]
    stale = False
    for path, text in generated().items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            sys.stderr.write(f"{path.name} is stale; run `make docs`\n")
            stale = True
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
