"""How routes reach the services of their application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from perak.server.services import Services


def services_of(connection: HTTPConnection) -> Services:
    services: Services = connection.app.state.services
    return services
