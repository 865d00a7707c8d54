"""A job, sizes and settings -> the Kubernetes documents that run it: once, on KubeRay's schedule, or on a CronJob's.

The job file travels in a config map. No document holds a credential: pods have those of their service account.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from jobs.kubernetes.names import resource_name
from jobs.kubernetes.ray_cluster import Document, ray_cluster_spec
from jobs.kubernetes.run_script import SCRIPT, SCRIPT_FOLDER, run_script
from jobs.kubernetes.settings import ManifestSettings
from pipeline.node_sizes import ClusterSizes
from schemas.job import JobSpec

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MAX_CONFIG_MAP_BYTES = 1_000_000
"""Kubernetes takes 1 MiB, with all that is around the texts."""


class JobDocuments:
    """
    Args:
        files: texts by the names of the job's files, relative to its folder; ConfigMaps hold text.
        command: runs the job in that folder.

    Raises ValueError for files that no config map holds.
    """

    def __init__(
        self,
        job: JobSpec,
        sizes: ClusterSizes,
        settings: ManifestSettings,
        *,
        files: Mapping[str, str],
        command: str,
        stop_wait_s: int,
    ) -> None:
        self._settings = settings
        self._name = resource_name(job.name)
        self._labels = {"app.kubernetes.io/name": "labelmill", "labelmill/job": self._name}
        self._annotations = {"labelmill/job-digest": job.digest()}
        keys = {f"file-{number}": name for number, name in enumerate(files)}
        self._data = {key: files[name] for key, name in keys.items()} | {SCRIPT: run_script(command)}
        num_bytes = sum(len(text.encode()) for text in self._data.values())
        if num_bytes > MAX_CONFIG_MAP_BYTES:
            raise ValueError(
                f"the job's files hold {num_bytes:,} bytes, and a config map takes {MAX_CONFIG_MAP_BYTES:,}: "
                "put long lists of questions into the source's table"
            )
        self._ray_job_spec = {
            "entrypoint": f"sh {SCRIPT_FOLDER}/{SCRIPT}",
            "backoffLimit": settings.num_retries,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": settings.keep_cluster_s,
            "rayClusterSpec": ray_cluster_spec(
                sizes, settings, files=keys, config_map=self._config_map_name, stop_wait_s=stop_wait_s
            ),
        }

    def once(self) -> list[Document]:
        return [self._config_map(), self._ray_job({"name": self._name})]

    def on_kuberays_schedule(self) -> list[Document]:
        spec = {"schedule": self._settings.schedule, "jobTemplate": self._ray_job_spec}
        if self._settings.time_zone:
            spec["timeZone"] = self._settings.time_zone
        return [self._config_map(), self._document("ray.io/v1", "RayCronJob", {"name": self._name}, spec=spec)]

    def on_cron_job(self) -> list[Document]:
        """For clusters whose KubeRay has no RayCronJob: a CronJob that creates a RayJob."""
        account = f"{self._name}-creator"
        template = yaml.safe_dump(self._ray_job({"generateName": f"{self._name}-"}), sort_keys=False)
        rule = {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
        subject = {"kind": "ServiceAccount", "name": account}
        if self._settings.namespace:
            subject["namespace"] = self._settings.namespace
        name, rbac = {"name": account}, "rbac.authorization.k8s.io/v1"
        return [
            self._config_map(),
            self._document("v1", "ConfigMap", {"name": f"{self._name}-rayjob"}, data={"rayjob.yaml": template}),
            self._document("v1", "ServiceAccount", name),
            self._document(rbac, "Role", name, rules=[rule]),
            self._document(rbac, "RoleBinding", name, roleRef=role, subjects=[subject]),
            self._document("batch/v1", "CronJob", {"name": self._name}, spec=self._cron_job_spec(account)),
        ]

    def _cron_job_spec(self, account: str) -> Document:
        container = {
            "name": "create",
            "image": self._settings.kubectl_image,
            "command": ["kubectl", "create", "-f", "/manifest/rayjob.yaml"],
            "volumeMounts": [{"name": "manifest", "mountPath": "/manifest", "readOnly": True}],
            "resources": {
                "requests": {"cpu": "100m", "memory": "128Mi"},
                "limits": {"cpu": "1", "memory": "256Mi"},
            },
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        pod = {
            "serviceAccountName": account,
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000},
            "containers": [container],
            "volumes": [{"name": "manifest", "configMap": {"name": f"{self._name}-rayjob"}}],
        }
        spec = {
            "schedule": self._settings.schedule,
            "concurrencyPolicy": "Forbid",
            "jobTemplate": {"spec": {"backoffLimit": 1, "template": {"spec": pod}}},
        }
        return spec | ({"timeZone": self._settings.time_zone} if self._settings.time_zone else {})

    @property
    def _config_map_name(self) -> str:
        return f"{self._name}-job"

    def _config_map(self) -> Document:
        return self._document("v1", "ConfigMap", {"name": self._config_map_name}, data=self._data)

    def _ray_job(self, name: Mapping[str, str]) -> Document:
        document = self._document("ray.io/v1", "RayJob", name, spec=self._ray_job_spec)
        if self._settings.queue:
            document["metadata"]["labels"][QUEUE_LABEL] = self._settings.queue
        return document

    def _document(self, version: str, kind: str, name: Mapping[str, str], **parts: Any) -> Document:
        metadata: Document = {**name}
        if self._settings.namespace:
            metadata["namespace"] = self._settings.namespace
        metadata |= {"labels": dict(self._labels), "annotations": dict(self._annotations)}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **parts}
