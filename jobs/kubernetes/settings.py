"""What a manifest says beside the job: where it runs, on which machines, when, and how often it is tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ManifestSettings:
    image: str
    """Of every pod of the Ray cluster; its `python` has labelmill."""
    ray_version: str
    namespace: str | None = None
    service_account: str = "labelmill"
    """Whose identity in the cloud may read the source and the checkpoint, and write the output."""
    queue: str | None = None
    """A LocalQueue of Kueue's."""
    spot_gpus: bool = True
    num_retries: int = 2
    """Of a run that failed; each is a new cluster."""
    keep_cluster_s: int = 300
    """After the end of a run, for whoever wants to look at it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Of every pod; nothing secret."""
    secret: str | None = None
    """A Secret that is there, whose entries are environment of every pod: for stores that know no service accounts."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """A folder of every pod, absolute -> the PersistentVolumeClaim that is mounted there; many pods write to it."""
    schedule: str | None = None
    """In cron's five fields."""
    time_zone: str | None = None
    kubectl_image: str = "registry.k8s.io/kubectl:v1.34.1"
