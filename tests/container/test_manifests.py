"""The manifests of kubernetes/: valid, with few rights, and in step with emberd and its image."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from emberd.server.run import DRAIN_S, SHUTDOWN_GRACE_S
from tests.container.machine import PAGE, ROOT, run

FOLDER = ROOT / "kubernetes"
KSERVE = FOLDER / "kserve" / "inferenceservice.yaml"
PLAIN = sorted(FOLDER.glob("*.yaml"))
VALIDATE = str(Path(sys.executable).parent / "kubernetes-validate")


def versions() -> list[str]:
    """Return the versions of Kubernetes that the page names."""
    stated = re.search(r"Kubernetes (1\.\d+) and (1\.\d+)", PAGE.read_text())
    assert stated
    return [*stated.groups()]


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return what the manifest says of its pod."""
    spec: dict[str, Any] = document["spec"]
    pod: dict[str, Any] = spec.get("predictor") or spec["template"]["spec"]
    return pod


def of_kind(kind: str, file: Path = FOLDER / "emberd.yaml") -> dict[str, Any]:
    """Return the one document of this kind."""
    (found,) = (each for each in yaml.safe_load_all(file.read_text()) if each["kind"] == kind)
    return dict(found)


PODS = {
    "Deployment": pod_of(of_kind("Deployment")),
    "InferenceService": pod_of(of_kind("InferenceService", KSERVE)),
}


@pytest.mark.parametrize("version", versions())
def test_the_manifests_are_valid(version: str, tmp_path: Path) -> None:
    predictor = {
        key: value for key, value in PODS["InferenceService"].items() if "plicas" not in key
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "emberd"}, "spec": predictor}
    (tmp_path / "predictor.yaml").write_text(yaml.safe_dump(pod))
    files = [*map(str, PLAIN), str(tmp_path / "predictor.yaml")]

    run([VALIDATE, "--strict", "--kubernetes-version", version, *files])
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(pod).replace("runAsUser", "runAsUsr"))
    wrong = str(tmp_path / "wrong.yaml")
    assert run([VALIDATE, "--strict", "-k", version, wrong], check=False).returncode


@pytest.mark.parametrize("name", PODS)
def test_a_pod_meets_the_restricted_standard(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
    uid = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert uid
    assert [pod["securityContext"][key] for key in ("runAsUser", "runAsGroup")] == [
        int(each) for each in uid.groups()
    ]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_gets_the_time_that_emberd_takes_to_end(name: str) -> None:
    pod = PODS[name]
    before = pod["containers"][0].get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})

    needed_s = before["sleep"]["seconds"] + DRAIN_S + SHUTDOWN_GRACE_S
    assert pod["terminationGracePeriodSeconds"] > needed_s


@pytest.mark.parametrize("name", PODS)
def test_what_a_pod_mounts_is_there(name: str) -> None:
    pod = PODS[name]
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}

    assert set(mounts) == {each["name"] for each in pod["volumes"]}
    assert {"/data", "/tmp", "/models", "/etc/emberd"} == set(mounts.values())  # noqa: S108
    claims = [
        each["persistentVolumeClaim"]
        for each in pod["volumes"]
        if len(each) > 1 and "persistentVolumeClaim" in each
    ]
    assert claims == [{"claimName": of_kind("PersistentVolumeClaim")["metadata"]["name"]}]


def test_probes_ask_what_needs_no_token() -> None:
    for pod in PODS.values():
        probes = {key: value for key, value in pod["containers"][0].items() if "Probe" in key}
        assert {key: each["httpGet"]["path"] for key, each in probes.items()} == {
            key: "/ready" if key == "readinessProbe" else "/health" for key in probes
        }
        assert {"livenessProbe", "readinessProbe"} <= set(probes)


def test_the_service_and_the_autoscaler_mean_the_deployment() -> None:
    deployment, service = of_kind("Deployment"), of_kind("Service")
    scaler = of_kind("HorizontalPodAutoscaler", FOLDER / "autoscaler.yaml")

    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    names = yaml.safe_load(of_kind("ConfigMap")["data"]["config.yaml"])["server"]["allowed_hosts"]
    assert service["metadata"]["name"] in names


def test_the_config_map_is_a_valid_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(of_kind("ConfigMap")["data"]["config.yaml"])

    checked = run(
        [sys.executable, "-m", "emberd", "--config", str(file), "config", "check"], check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
