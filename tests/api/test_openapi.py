"""docs/openapi.json is what the service serves, and its examples are of its models.

Run as a script this writes docs/openapi.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import BaseModel

from faceward.api.app import AppSettings, create_app
from faceward.api.bodies import BodySettings
from faceward.api.examples import EXAMPLES
from faceward.api.openapi import document
from faceward.api.parts import ApiParts

FILE = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def generated() -> dict[str, Any]:
    """The document of the routes; no part behind them is asked for anything."""
    parts = cast("ApiParts", SimpleNamespace(metrics=None))
    app = create_app(parts, AppSettings(BodySettings(1, 1, 1, 1.0)), print, lambda: None)
    return document(app)


def test_the_document_in_the_repository_is_that_of_the_routes() -> None:
    written = json.loads(FILE.read_text(encoding="utf-8"))
    assert written == generated(), "the API has changed: run .venv/bin/python tests/api/test_openapi.py"


@pytest.mark.parametrize("model", EXAMPLES, ids=lambda model: model.__name__)
def test_an_example_is_what_its_model_takes(model: type[BaseModel]) -> None:
    example = EXAMPLES[model]
    assert model.model_validate_json(json.dumps(example)).model_fields_set == set(example)


def test_every_operation_has_a_summary_a_tag_and_the_problems_it_may_answer_with() -> None:
    for path, operations in generated()["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["tags"], where
            assert operation["description"], where
            if path.startswith("/v1/"):
                assert {"401", "403", "429", "503"} <= set(operation["responses"]), where
                assert operation["security"], where


def test_every_example_stands_in_the_document() -> None:
    schemas = generated()["components"]["schemas"]
    assert {name for name, schema in schemas.items() if "examples" in schema} == {model.__name__ for model in EXAMPLES}


if __name__ == "__main__":
    FILE.write_text(json.dumps(generated(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
