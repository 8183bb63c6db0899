"""Closing the flow runs that a kill left in the state Running."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from prefect import get_client, runtime
from prefect.client.schemas.filters import FlowRunFilter
from prefect.logging import get_run_logger
from prefect.states import Crashed

TAG = "labelmill-workspace:"


def reap_dead_runs(root: Path) -> int:
    """Mark earlier runs of a workspace as crashed; call it while holding the workspace's lock.

    A process that dies cannot say so, and Prefect shows its flow run as running for ever. Whoever holds the
    lock knows that no other run of the workspace is alive.

    Args:
        root: The workspace.

    Returns:
        How many runs were closed.
    """
    tag = f"{TAG}{root}"
    own = runtime.flow_run.id
    reaped = 0
    with get_client(sync_client=True) as client:
        dead = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(
                {"tags": {"all_": [tag]}, "state": {"type": {"any_": ["RUNNING", "CANCELLING"]}}}
            )
        )
        for found in dead:
            if str(found.id) != own:
                client.set_flow_run_state(
                    found.id, Crashed(message="The process died; a later run took over."), force=True
                )
                reaped += 1
        if own:
            current = client.read_flow_run(UUID(own))
            client.update_flow_run(UUID(own), tags={*current.tags, tag})
    if reaped:
        get_run_logger().warning("closed %d earlier runs of this workspace that had died", reaped)
    return reaped
