"""The page, and what is written of the server: read once, and filled in with its limits."""

import json
from importlib import resources
from typing import Any

from jinja2 import Environment

import foveate
from foveate.server.settings import Settings

KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
FILES = ("page.css", "page.js", "texts.js", "icon.svg")
Pages = dict[str, tuple[bytes, str]]  # by path: content, type


def pages(settings: Settings) -> Pages:
    """Everything that is the same in every answer."""
    folder = resources.files("foveate.server") / "page"
    description = openapi(settings)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    docs = environment.from_string((folder / "docs.html").read_text(encoding="utf-8"))
    found: Pages = {
        "/": ((folder / "index.html").read_bytes(), KINDS[".html"]),
        "/docs": (docs.render(api=description).encode(), KINDS[".html"]),
        "/openapi.json": (json.dumps(description).encode(), "application/json"),
    }
    for name in FILES:
        kind = KINDS[name[name.rindex(".") :]]
        found[f"/page/{name}"] = ((folder / name).read_bytes(), kind)
    return found


def openapi(settings: Settings) -> dict[str, Any]:
    """The description of the server, OpenAPI 3.1."""
    problem = {"application/problem+json": {"schema": ref("Problem")}}
    too_much = {"description": "Too much is waiting; come again after Retry-After seconds"}
    refused = {
        "401": {"description": "The token is missing, or another one", "content": problem},
        "403": {"description": "A page from elsewhere asks", "content": problem},
        "421": {"description": "The request calls another host", "content": problem},
    }
    sent = {
        "408": {
            "description": f"It did not arrive within {settings.body_seconds:g} seconds",
            "content": problem,
        },
        "413": {
            "description": f"More than {settings.body:,} bytes, or {settings.images} images",
            "content": problem,
        },
        "415": {"description": "The body is of another type", "content": problem},
        "422": {
            "description": "The body is malformed, the image cannot be read, or a parameter is "
            "unknown",
            "content": problem,
        },
        "503": too_much | {"content": problem},
    }
    image = {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }

    def answered(description: str, kind: str, schema: Any) -> dict[str, Any]:
        return {"200": {"description": description, "content": {kind: {"schema": schema}}}}

    def query(name: str, schema: Any, description: str) -> dict[str, Any]:
        return {"name": name, "in": "query", "schema": schema, "description": description}

    number = {"type": "integer", "minimum": 1}
    json_kind, as_object = "application/json", {"type": "object"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Foveate",
            "version": foveate.__version__,
            "description": "A classifier of images.",
        },
        "security": [{"token": []}] if settings.token else [],
        "paths": {
            "/v1/predict": {
                "post": {
                    "summary": "Classify images",
                    "description": "One image as the body, or several as the field file of "
                    "multipart/form-data. Of several, one that cannot be read has an error in its "
                    "row.",
                    "parameters": [query("top", number | {"default": 3}, "Classes to name")],
                    "requestBody": image,
                    "responses": answered(
                        "One row an image, in the order in which they were sent",
                        json_kind,
                        ref("Predictions"),
                    )
                    | refused
                    | sent,
                }
            },
            "/v1/explain": {
                "post": {
                    "summary": "Show which parts of an image speak for a class",
                    "description": "The header Foveate-Trusted says whether the map passed its "
                    "checks.",
                    "parameters": [
                        query("class", {"type": "string"}, "By default the most probable one")
                    ],
                    "requestBody": image,
                    "responses": answered("The image and the map", "image/png", {"type": "string"})
                    | refused
                    | sent
                    | {"501": {"description": "Not for this classifier", "content": problem}},
                }
            },
            "/v1/neighbours": {
                "post": {
                    "summary": "Name the training images that are closest to an image",
                    "description": "Only where the server was started with --show-training.",
                    "parameters": [query("k", number | {"default": 5}, "How many")],
                    "requestBody": image,
                    "responses": answered("The closest first", json_kind, ref("Neighbours"))
                    | refused
                    | sent,
                }
            },
            "/v1/model": {
                "get": {
                    "summary": "Describe the classifier and the limits of the server",
                    "responses": answered("Classes, figures, limits", json_kind, as_object)
                    | refused,
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Count, for Prometheus",
                    "responses": answered("Metrics", "text/plain", {"type": "string"}) | refused,
                }
            },
            "/healthz": {
                "get": {
                    "summary": "Say that the process is alive",
                    "security": [],
                    "responses": answered("It is", json_kind, as_object),
                }
            },
            "/readyz": {
                "get": {
                    "summary": "Say whether it takes images",
                    "security": [],
                    "responses": answered("It does", json_kind, as_object)
                    | {"503": too_much | {"content": problem}},
                }
            },
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": SCHEMAS,
        },
    }


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT, SHARE = {"type": "string"}, {"type": "number", "minimum": 0, "maximum": 1}
CHOICE = {"type": "object", "properties": {"label": TEXT, "probability": SHARE}}
SCHEMAS: dict[str, Any] = {
    "Prediction": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": TEXT,
            "label": {"type": "string", "description": "The class; or none of these"},
            "probability": SHARE,
            "labels": {"type": "array", "items": TEXT},
            "top": {"type": "array", "items": CHOICE},
            "rejected": {"enum": [None, "foreign", "unknown kind"]},
            "error": {"type": "string", "description": "Why it cannot be read; alone with file"},
        },
    },
    "Predictions": {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": ref("Prediction")}},
    },
    "Neighbours": {
        "type": "object",
        "properties": {
            "neighbours": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "file": TEXT,
                        "labels": {"type": "array", "items": TEXT},
                        "similarity": {"type": "number", "minimum": -1, "maximum": 1},
                    },
                },
            }
        },
    },
    "Problem": {
        "type": "object",
        "properties": {"title": TEXT, "status": {"type": "integer"}, "detail": TEXT},
    },
}
