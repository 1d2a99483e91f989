"""From an image's tag to its digest, asked of the registry by the renter's own machine.

The exchange never does that: it would have to contact any host that a renter names. Credentials are those
that docker and podman keep (``docker login``), from ~/.docker/config.json or $DOCKER_CONFIG.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from perak.client.errors import PerakError
from perak.wire.images import ACCEPT, MANIFEST_BYTES_MAX, Challenge, ImageError, Reference

TIMEOUT_SECONDS = 30.0
REDIRECTS_MAX = 5
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Only a registry on this machine may be asked without TLS, as docker has it."""


def pin_image(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same job with its image named by digest; no registry is asked where that is so already.

    An image index is pinned as it is, so that each node takes what fits it. Raises PerakError.
    """
    image = tree.get("image")
    name = image.get("name") if isinstance(image, Mapping) else image
    if not isinstance(name, str) or "@" in name:
        return dict(tree)
    pinned = f"{name}@{resolve(name)}"
    return dict(tree) | {"image": {**image, "name": pinned} if isinstance(image, Mapping) else pinned}


def resolve(name: str) -> str:
    """The digest that the registry has for ``[registry/]repository[:tag]`` now. Raises PerakError."""
    try:
        reference = Reference.parse(name)
        with httpx.Client(
            timeout=TIMEOUT_SECONDS, max_redirects=REDIRECTS_MAX, follow_redirects=True
        ) as http:
            response = _ask(http, reference)
    except httpx.HTTPError as error:
        raise _failed(name, f"its registry does not answer ({error})") from None
    except ImageError as error:
        raise _failed(name, error.detail) from None
    if response.status_code in (401, 403):
        raise _failed(name, "its registry asks for other credentials; log in with `docker login`")
    if response.status_code != 200:
        raise _failed(name, f"its registry answers {response.status_code}; is it spelled right?")
    if len(response.content) > MANIFEST_BYTES_MAX:
        raise _failed(name, "its registry sends something else than a manifest")
    return f"sha256:{hashlib.sha256(response.content).hexdigest()}"


def _ask(http: httpx.Client, reference: Reference) -> httpx.Response:
    url = f"{_base(http, reference)}{reference.manifest_path}"
    response = http.get(url, headers={"Accept": ACCEPT})
    if response.status_code == 401 and (header := response.headers.get("www-authenticate")):
        authorization = _authorization(http, Challenge.parse(header), reference)
        if authorization is not None:
            response = http.get(url, headers={"Accept": ACCEPT, "Authorization": authorization})
    return response


def _base(http: httpx.Client, reference: Reference) -> str:
    host = reference.host
    if host.rpartition(":")[0] not in LOOPBACK and host not in LOOPBACK:
        return f"https://{host}"
    try:
        http.get(f"https://{host}/v2/")
    except httpx.HTTPError:
        return f"http://{host}"
    return f"https://{host}"


def _authorization(http: httpx.Client, challenge: Challenge, reference: Reference) -> str | None:
    credentials = _credentials(reference)
    basic = None if credentials is None else f"Basic {base64.b64encode(credentials.encode()).decode()}"
    realm = challenge.parameters.get("realm", "")
    if challenge.scheme == "basic" or not realm.startswith(("https://", "http://")):
        return basic
    wanted = {"scope": f"repository:{reference.repository}:pull"}
    if service := challenge.parameters.get("service"):
        wanted["service"] = service
    answer = http.get(realm, params=wanted, headers={"Authorization": basic} if basic else {})
    try:
        tokens = answer.json()
        return f"Bearer {tokens.get('token') or tokens['access_token']}"
    except (ValueError, KeyError, AttributeError):
        return None


def _credentials(reference: Reference) -> str | None:
    """``user:password`` as `docker login` keeps it; None where it keeps none, or in a helper's own store."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser()
    try:
        auths = json.loads((folder / "config.json").read_text())["auths"]
        names = [reference.registry, f"https://{reference.registry}"]
        if reference.registry == "docker.io":
            names.append("https://index.docker.io/v1/")
        found = next(auths[name]["auth"] for name in names if name in auths)
        return base64.b64decode(found).decode()
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def _failed(name: str, why: str) -> PerakError:
    return PerakError(
        f"The image {name} could not be pinned: {why}. Or name it by digest: {name}@sha256:…",
        code="image_not_pinned",
    )
