"""Every route of the OpenAPI document meets generated requests (schemathesis): none is a fault of ours."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from server_world import Running

EXAMPLES = 8
"""Generated requests for each operation: enough to meet each parameter wrong in some way, in some 15 s."""
SEED = 20_261_122
"""The same requests each time: a failure here is repeated by running it again."""
STREAM_SECONDS = 10


async def test_no_generated_request_is_a_fault_of_ours(exchange: Running) -> None:
    document = (await exchange.client.get("/openapi.json")).json()
    job = await exchange.submit()
    faults = await asyncio.to_thread(_fuzz, document, exchange.url, exchange.key, job)
    assert not faults, "\n".join(faults)
    # And it lost nothing.
    assert (await exchange.job(job))["name"] == "test"


def _fuzz(document: dict[str, Any], url: str, key: str, job: str) -> list[str]:
    """Send EXAMPLES requests to each operation; those that were answered with a 5xx, or not as a problem."""
    import schemathesis

    faults: list[str] = []
    answered: set[int] = set()
    schema: Any = schemathesis.openapi.from_dict(document)
    schema.config.base_url = url
    schema.config.update(headers={"Authorization": f"Bearer {key}"})
    for result in schema.get_all_operations():
        operation = result.ok()

        def check(case: Any) -> None:
            answer = case.call(headers={"Authorization": f"Bearer {key}"}, timeout=STREAM_SECONDS)
            answered.add(answer.status_code)
            kind = answer.headers.get("content-type", [""])[0]
            if answer.status_code >= 500:
                faults.append(f"{answer.status_code}: {case.as_curl_command()}")
            elif answer.status_code >= 400 and case.method != "HEAD" and "json" not in kind:
                faults.append(f"{answer.status_code} as {kind}: {case.as_curl_command()}")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _given(operation, check)()
    assert 400 in answered
    return faults


def _given(operation: Any, check: Any) -> Any:
    from hypothesis import given
    from schemathesis import GenerationMode

    strategy = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    try:
        strategy |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    except Exception:  # nothing in it can be wrong
        strategy = operation.as_strategy()

    @seeded(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def run(case: Any) -> None:
        check(case)

    return run
