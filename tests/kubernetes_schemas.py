"""The schemas of KubeRay's resources -> validators that refuse what the API server would drop in silence.

An API server prunes fields that a structural schema does not know: a misspelt field is no error there, it is gone.
"""

from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml

from tests.command import SHARED

FOLDER = SHARED / "kuberay"
Schema = dict[str, Any]


def validator(kind: str) -> jsonschema.Draft202012Validator:
    """For `RayJob`, `RayCronJob` or `RayCluster`, version v1; skips the test where the schemas are not there."""
    return jsonschema.Draft202012Validator(_strict(_stored(kind), is_root=True))


def pod_template_validator() -> jsonschema.Draft202012Validator:
    """For the template of a pod of any kind of workload: a RayJob's schema holds the whole of it."""
    spec = _stored("RayJob")["properties"]["spec"]["properties"]
    return jsonschema.Draft202012Validator(_strict(spec["submitterPodTemplate"]))


def errors(found: jsonschema.Draft202012Validator, document: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in found.iter_errors(document)]


@cache
def _stored(kind: str) -> Schema:
    path = FOLDER / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip(f"no {path}: manifests cannot be held to KubeRay's schemas here")
    definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    versions = definition["spec"]["versions"]
    return next(one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1")


def _strict(schema: Schema, *, is_root: bool = False) -> Schema:
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {key: value for key, value in schema.items() if not key.startswith("x-") and key != "nullable"}
    if schema.get("nullable"):
        strict["type"] = [schema["type"], "null"]
    if "properties" in schema:
        strict["properties"] = {name: _strict(part) for name, part in schema["properties"].items()}
    if is_root:  # which the API server knows by itself
        strict["properties"]["metadata"] = {"type": "object"}
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    extra = schema.get("additionalProperties")
    if schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = _strict(extra) if isinstance(extra, dict) else bool(extra)
    return strict
