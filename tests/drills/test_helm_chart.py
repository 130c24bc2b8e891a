"""deploy/helm, rendered by Helm's own library, against the schemas of three Kubernetes versions."""

import re
import tomllib
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml  # type: ignore[import-untyped]  # comes with apprise; its types do not

from offhook.settings import HandlerSettings, Settings
from offhook_cli import load
from tests.conftest import SECRET
from tests.installation import ROOT

CHART = ROOT / "deploy" / "helm"
VERSIONS = ("1.31", "1.34", "1.37")
VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "ingress": {"ingress": {"enabled": True, "annotations": {"a/b": "c"}}},
    "fixed": {"worker": {"autoscaling": {"lagPerPod": 0}}},
    "journal": {"receiver": {"journal": {"storageClassName": "fast"}}},
}


def rendered(values: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects that Helm makes, by kind and name."""
    with helm_python.Chart.load(str(CHART)) as chart:
        texts = chart.render(values, name="demo", namespace="prod").values()
    objects = [each for text in texts for each in yaml.safe_load_all(text) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], dict[str, Any]]:
    return rendered({})


def test_helm_finds_no_fault_in_the_chart() -> None:
    assert helm_python.lint(str(CHART))["errors"] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_objects_are_valid_in_three_versions(variant: str) -> None:
    found = rendered(VARIANTS[variant])
    assert len(found) >= 6
    for version in VERSIONS:
        for each in found.values():
            kubernetes_validate.validate(each, version, strict=True)


def test_containers_run_commands_and_settings_that_exist(
    objects: dict[tuple[str, str], dict[str, Any]],
) -> None:
    for kind, name in (("StatefulSet", "demo-receiver"), ("Deployment", "demo-worker")):
        (container,) = objects[kind, name]["spec"]["template"]["spec"]["containers"]
        program, command, *arguments = container["args"]
        assert program == "offhook"
        load(command).make_context(command, arguments)
        for variable in container["env"]:
            setting = variable["name"].removeprefix("OFFHOOK_").removesuffix("_FILE").lower()
            assert setting in Settings.model_fields
        assert container["securityContext"]["readOnlyRootFilesystem"]
    config = tomllib.loads(objects["ConfigMap", "demo-config"]["data"]["offhook.toml"])
    Settings.model_validate({"secret": SECRET} | config)


def test_updates_and_drained_nodes_leave_one_of_each(
    objects: dict[tuple[str, str], dict[str, Any]],
) -> None:
    worker = objects["Deployment", "demo-worker"]["spec"]
    assert worker["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    longest = HandlerSettings(use="console").timeout
    assert worker["template"]["spec"]["terminationGracePeriodSeconds"] > longest + 10
    receiver = objects["StatefulSet", "demo-receiver"]["spec"]
    assert receiver["replicas"] == 2
    assert receiver["updateStrategy"]["type"] == "RollingUpdate"
    for name, pods in (("demo-worker", worker), ("demo-receiver", receiver)):
        budget = objects["PodDisruptionBudget", name]["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"] == pods["selector"]
        labels = pods["template"]["metadata"]["labels"]
        assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert objects["Service", "demo-receiver"]["spec"]["selector"].items() <= (
        receiver["template"]["metadata"]["labels"].items()
    )


def test_workers_are_scaled_by_a_metric_that_exists(
    objects: dict[tuple[str, str], dict[str, Any]],
) -> None:
    scaler = objects["HorizontalPodAutoscaler", "demo-worker"]["spec"]
    metric = scaler["metrics"][0]["external"]["metric"]["name"]
    assert f"\n| `{metric}` |" in (ROOT / "docs" / "monitoring.md").read_text()
    page = (ROOT / "deploy" / "README.md").read_text()
    assert re.findall(rf"seriesQuery: {metric}\n", page)
    assert "replicas" not in objects["Deployment", "demo-worker"]["spec"]
