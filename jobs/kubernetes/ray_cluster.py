"""Sizes and settings -> the `rayClusterSpec` of a KubeRay RayJob: a head without GPUs, and groups that tile and label.

Groups have a fixed size: a run is laid out once, on the cluster that it finds when it starts.
"""

from collections.abc import Mapping
from typing import Any

from jobs.kubernetes.run_script import JOB_FOLDER, SCRIPT, SCRIPT_FOLDER, outlast_head, stop_run
from jobs.kubernetes.settings import ManifestSettings
from pipeline.node_sizes import ClusterSizes, NodeSize

Document = dict[str, Any]

CACHE_FOLDER = "/var/cache/labelmill"
GPU = "nvidia.com/gpu"
_SPOT_LABELS = (
    ("cloud.google.com/gke-spot", "true"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("karpenter.sh/capacity-type", "spot"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
"""By which GKE, EKS, Karpenter and AKS mark nodes that may be taken back."""


def ray_cluster_spec(
    sizes: ClusterSizes, settings: ManifestSettings, *, files: Mapping[str, str], config_map: str, stop_wait_s: int
) -> Document:
    """
    Args:
        files: keys of the config map and the names of the job's files, relative to its folder.
        stop_wait_s: what a run may take to end after it was asked to.
    """
    pods = _Pods(sizes, settings, files=files, config_map=config_map, stop_wait_s=stop_wait_s)
    groups = [_group("tiling", sizes.tiling, pods.worker(sizes.tiling))]
    if sizes.labeling is not None:
        template = pods.worker(sizes.labeling)
        template["spec"] |= _for_gpus(spot=settings.spot_gpus)
        groups.append(_group("labeling", sizes.labeling, template))
    return {
        "rayVersion": settings.ray_version,
        "authOptions": {"mode": "token"},  # one that KubeRay makes: else any pod could run what it likes on the cluster
        "headGroupSpec": {
            "rayStartParams": {**_start_params(sizes.head), "dashboard-host": "0.0.0.0"},
            "template": pods.head(sizes.head),
        },
        "workerGroupSpecs": groups,
    }


def _group(name: str, size: NodeSize, template: Document) -> Document:
    return {
        "groupName": name,
        "replicas": size.num_nodes,
        "minReplicas": size.num_nodes,
        "maxReplicas": size.num_nodes,
        "rayStartParams": _start_params(size),
        "template": template,
    }


def _start_params(size: NodeSize) -> Document:
    return {"num-cpus": str(size.ray_num_cpus), "num-gpus": str(size.num_gpus)}


class _Pods:
    """Templates of pods that differ in what they hold and in how they end."""

    def __init__(
        self,
        sizes: ClusterSizes,
        settings: ManifestSettings,
        *,
        files: Mapping[str, str],
        config_map: str,
        stop_wait_s: int,
    ) -> None:
        self._settings, self._stop_wait_s = settings, stop_wait_s
        items = [{"key": key, "path": name} for key, name in files.items()]
        # By number: a claim's name may be longer than a volume's, and hold dots.
        self._claims = {claim: f"claim-{index}" for index, claim in enumerate(dict.fromkeys(settings.volumes.values()))}
        self._volumes = [
            {"name": "job", "configMap": {"name": config_map, "items": items}},
            {"name": "script", "configMap": {"name": config_map, "items": [{"key": SCRIPT, "path": SCRIPT}]}},
        ]

    def head(self, size: NodeSize) -> Document:
        template = self._template("ray-head", size, pre_stop=stop_run())
        container = template["spec"]["containers"][0]
        container["volumeMounts"] += [
            {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True},
            {"name": "script", "mountPath": SCRIPT_FOLDER, "readOnly": True},
        ]
        template["spec"]["volumes"] += self._volumes
        return template

    def worker(self, size: NodeSize) -> Document:
        return self._template("ray-worker", size, pre_stop=outlast_head())

    def _template(self, name: str, size: NodeSize, *, pre_stop: list[str]) -> Document:
        container = {
            "name": name,
            "image": self._settings.image,
            "env": [{"name": key, "value": value} for key, value in self._env().items()],
            "envFrom": [{"secretRef": {"name": self._settings.secret}}] if self._settings.secret else [],
            "resources": _resources(size),
            "volumeMounts": [
                {"name": "cache", "mountPath": CACHE_FOLDER},
                *({"name": self._claims[claim], "mountPath": path} for path, claim in self._settings.volumes.items()),
            ],
            "lifecycle": {"preStop": {"exec": {"command": pre_stop}}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec = {
            "serviceAccountName": self._settings.service_account,
            "terminationGracePeriodSeconds": self._stop_wait_s,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
            "containers": [container],
            "volumes": [
                {"name": "cache", "emptyDir": {"sizeLimit": f"{size.disk_gb}G"}},
                *(
                    {"name": name, "persistentVolumeClaim": {"claimName": claim}}
                    for claim, name in self._claims.items()
                ),
            ],
        }
        return {"spec": spec}

    def _env(self) -> dict[str, str]:
        return {
            "LABELMILL_CACHE": CACHE_FOLDER,
            "RAY_JOB_STOP_WAIT_TIME_S": str(self._stop_wait_s),
            "RAY_USAGE_STATS_ENABLED": "0",
            **self._settings.env,
        }


def _resources(size: NodeSize) -> Document:
    held = {
        "cpu": str(size.num_cpus),
        "memory": f"{size.memory_gb}G",
        "ephemeral-storage": f"{size.disk_gb}G",
        **({GPU: str(size.num_gpus)} if size.num_gpus else {}),
    }
    return {"requests": held, "limits": dict(held)}


def _for_gpus(*, spot: bool) -> Document:
    tolerations = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    if not spot:
        return {"tolerations": tolerations}
    terms = [
        {"matchExpressions": [{"key": label, "operator": "In", "values": [value]}]} for label, value in _SPOT_LABELS
    ]
    tolerations += [
        {"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"} for label, value in _SPOT_LABELS
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"tolerations": tolerations, "affinity": {"nodeAffinity": required}}
