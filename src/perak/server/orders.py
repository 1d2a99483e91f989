"""What a node should have now, in the words of its session."""

from __future__ import annotations

from perak.adapters.db.views.market import LiveLease
from perak.wire.session import InputOrder, LeaseOrder, SecretOrder


def order(lease: LiveLease) -> LeaseOrder:
    """The order for a live lease: run it, or stop it for the cause that is noted on it."""
    spec = lease.spec
    return LeaseOrder(
        lease=lease.lease,
        run=lease.run,
        job=lease.job,
        epoch=lease.epoch,
        wanted="run" if lease.stop_cause is None else "stop",
        stop_cause=lease.stop_cause,
        name=spec.name,
        command=spec.run,
        setup=spec.setup,
        env=spec.env,
        python_version=spec.python.version if spec.python else None,
        python_packages=spec.python.packages if spec.python else (),
        workdir_digest=spec.workdir_digest,
        outputs=spec.outputs,
        devices=lease.devices,
        cpu_milli=lease.cpu_milli,
        memory_bytes=lease.memory_bytes,
        disk_bytes=lease.disk_bytes,
        shm_bytes=spec.resources.shm_bytes,
        max_duration_seconds=lease.max_duration_seconds,
        image=f"{spec.image.name}@{spec.image.digest}" if spec.image else None,
        image_credentials=spec.image.credentials if spec.image else None,
        secrets=tuple(SecretOrder(name=each.name, kind=each.kind) for each in spec.secrets),
        inputs=tuple(InputOrder(path=each.path, url=each.url, digest=each.digest) for each in spec.inputs),
        network_allow=spec.network_allow,
        tier=lease.tier,
        encrypt_to=spec.encrypt_to,
    )
