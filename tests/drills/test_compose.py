"""deploy/compose.yaml against the Compose specification's schema, which check-jsonschema brings."""

import json
from importlib.resources import files
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with apprise; its types do not
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.installation import ROOT


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    folder = files("check_jsonschema") / "builtin_schemas" / "vendor"
    return Draft202012Validator(json.loads((folder / "compose-spec.json").read_text()))


@pytest.fixture
def compose() -> Any:
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


def test_compose_file_is_valid(schema: Draft202012Validator, compose: Any) -> None:
    assert [f"{each.json_path}: {each.message}" for each in schema.iter_errors(compose)] == []


def test_schema_finds_a_misspelt_key(schema: Draft202012Validator, compose: Any) -> None:
    compose["services"]["web"]["restrat"] = "always"
    (found,) = schema.iter_errors(compose)
    assert (found.json_path, "'restrat'" in found.message) == ("$.services.web", True)
