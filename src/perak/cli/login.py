"""`perak login`: remember an exchange, pin its authority, keep a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from perak.cli.app import App, Command, is_interactive

if TYPE_CHECKING:
    from perak.client import Client
    from perak.client.config import Target
    from perak.wire.api import Exchange


@click.command(cls=Command, example="perak login https://perak.example.org --fingerprint sha256:9f2c…")
@click.argument("url")
@click.option("--key", "api_key", envvar="PERAK_API_KEY", help="The key's secret; asked for if left out.")
@click.option("--as", "name", metavar="NAME", help="Name of the profile; the exchange's own by default.")
@click.option("--fingerprint", metavar="sha256:…", help="What the operator says its authority is.")
@click.pass_obj
def login(app: App, url: str, api_key: str | None, name: str | None, fingerprint: str | None) -> None:
    """Remember an exchange and a key.

    They become the default profile. An exchange has an authority of its own, which is pinned: from then on no
    other is believed. Compare its fingerprint with what the operator gave you.
    """
    from dataclasses import replace

    from perak.client.config import Profile, normal_url, save_profile

    url = normal_url(url)
    target, exchange = _meet(app, url, fingerprint)
    if url.startswith("http:") and not target.is_loopback:
        click.echo("Warning: without https the key travels readable to all on the way.", err=True)
    secret = api_key or click.prompt("Key", hide_input=True, err=True)
    with _client(app, replace(target, api_key=secret)) as client:
        me = client.me()
    path = save_profile(
        name or exchange.name,
        Profile(
            url=url,
            api_key=secret,
            ca_fingerprint=exchange.ca_fingerprint,
            ca_certificate=target.ca_certificate,
        ),
    )
    app.emit(me, lambda: None)
    app.say(f"Logged in to {exchange.name} as {me.key_name} of {me.project_name} ({', '.join(me.roles)}).")
    app.say(f"Kept in {path} as profile {name or exchange.name}.")


def _meet(app: App, url: str, fingerprint: str | None) -> tuple[Target, Exchange]:
    """The exchange, and how to trust it. Before that is settled no key is sent."""
    from perak.client.config import Target
    from perak.client.errors import ConfigError
    from perak.wire.identity import fingerprint as fingerprint_of

    target = Target(url=url)
    exchange, verified = _ask_who(app, target)
    shown = fingerprint_of(exchange.ca_certificate.encode())
    if shown != exchange.ca_fingerprint:
        raise ConfigError(f"{url} shows a certificate that is not the one it names. Do not use it.")
    if fingerprint is not None and fingerprint.lower() != shown:
        raise ConfigError(
            f"The authority of {url} is {shown}, not {fingerprint}. Somebody may stand between: stop."
        )
    if verified or not url.startswith("https:"):
        return target, exchange
    if fingerprint is None:
        _confirm(url, shown)
    pinned = Target(url=url, ca_certificate=exchange.ca_certificate)
    with _client(app, pinned) as client:
        return pinned, client.exchange()


def _ask_who(app: App, target: Target) -> tuple[Exchange, bool]:
    """What the exchange says of itself, and whether the system's authorities vouch for it."""
    from perak.client.errors import ExchangeUnreachable

    try:
        with _client(app, target) as client:
            return client.exchange(), True
    except ExchangeUnreachable as error:
        if "certificate" not in error.reason:
            raise
    return _ask_unverified(target), False


def _ask_unverified(target: Target) -> Exchange:
    """Ask without checking the certificate, and without a key: what comes back is shown and compared."""
    import httpx

    from perak.client.errors import ExchangeUnreachable
    from perak.wire.api import Exchange

    try:
        with httpx.Client(base_url=target.url, verify=False) as http:  # noqa: S501
            return Exchange.model_validate_json(http.get("/v1/exchange").content)
    except (httpx.HTTPError, ValueError) as error:
        raise ExchangeUnreachable(target.url, str(error)) from None


def _confirm(url: str, shown: str) -> None:
    from perak.client.errors import ConfigError

    if not is_interactive():
        raise ConfigError(
            f"The authority of {url} is not known. If the operator says that it is {shown}, give it: "
            f"perak login {url} --fingerprint {shown}"
        )
    click.echo(f"{url} has an authority of its own:\n  {shown}", err=True)
    if not click.confirm("Is that what the operator told you?", err=True):
        raise click.Abort


def _client(app: App, target: Target) -> Client:
    from perak.client import Client

    return Client(target=target, transport=app.transport)
