"""What is signed, and where nothing is sent."""

from __future__ import annotations

import pytest

from perak.domain.errors import InvalidInput
from perak.server.webhooks import NotSent, Sender, check_url, new_secret, signature


def test_the_signature_is_that_of_the_specification_s_example() -> None:
    """The example of the Standard Webhooks libraries."""
    assert (
        signature(
            "whsec_plJ3nmyCDGBKInavdOK15jsl",
            id="msg_loFOjxBNrRLzqYUf",
            timestamp=1731705121,
            body=b'{"event_type":"ping","data":{"success":true}}',
        )
        == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
    )


@pytest.mark.parametrize(
    "url",
    ["http://example.org", "https://127.0.0.1/x", "https://[::1]/", "ftp://example.org", "https://u:p@e.org",
     "https://", "nonsense", "https://example.org:99999/"],
)  # fmt: skip
def test_an_address_that_no_webhook_may_have_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url, to_private=False)


async def test_a_public_name_that_leads_inside_is_not_dialled() -> None:
    async def inside(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    sender = Sender(resolve=inside)
    with pytest.raises(NotSent, match="no public address"):
        await sender.send("https://example.org/x", secret=new_secret(), id="msg_1", body=b"{}")
