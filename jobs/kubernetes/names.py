"""A job's name -> names that Kubernetes takes for what belongs to it."""

import hashlib
import re

MAX_LENGTH = 36
"""KubeRay appends to a RayJob's name, and it must stay a DNS label."""


def resource_name(job_name: str) -> str:
    """Lower case letters, digits and dashes; with a short digest where the name had to be changed for that."""
    name = re.sub(r"[^a-z0-9]+", "-", job_name.lower()).strip("-")
    if name == job_name and len(name) <= MAX_LENGTH and name[0].isalpha():
        return name
    digest = hashlib.sha256(job_name.encode()).hexdigest()[:6]
    return f"{('job-' + name if not name[0].isalpha() else name)[: MAX_LENGTH - 7].strip('-')}-{digest}"
