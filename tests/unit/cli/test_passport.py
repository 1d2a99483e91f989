"""Passports: a file proves itself offline, every change is found, and the pages hold what they say."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from perak.cli.main import cli
from perak.wire.passports import PassportError, entry_digest, sign_entry, verify_passport
from perak.wire.signing import peek_header
from unit.cli.passports import Issuer, lived

lived_once = functools.cache(lived)


@pytest.fixture
def issuer() -> Issuer:
    return lived_once()


def test_a_whole_passport_is_genuine(issuer: Issuer) -> None:
    found = verify_passport(issuer.file(), trusted_fingerprint=issuer.authority.fingerprint)
    assert (found.valid, found.trusted) == (True, True)
    assert len(found.inspections) == 2
    assert found.entries[-1].digest == entry_digest(issuer.entries[-1])
    assert {peek_header(each).typ for each in issuer.entries} == {"vc+jwt"}


def test_entries_are_verifiable_credentials_shaped_as_product_passports(issuer: Issuer) -> None:
    values = verify_passport(issuer.file()).entries[0].values
    assert values["@context"][0] == "https://www.w3.org/ns/credentials/v2"
    assert values["type"] == ["VerifiableCredential", "DigitalProductPassport"]
    assert values["issuer"]["id"] == "perak:exchange:test"
    assert values["credentialSubject"]["granularityLevel"] == "item"
    assert values["credentialSubject"]["conformityClaim"][0]["grade"] == "A"
    assert values["validFrom"].endswith("Z")


def _without_the_middle(document: dict[str, object], issuer: Issuer) -> None:
    document["entries"] = [issuer.entries[0], issuer.entries[2]]


def _swapped(document: dict[str, object], issuer: Issuer) -> None:
    document["entries"] = [issuer.entries[1], issuer.entries[0], issuer.entries[2]]


def _of_another_device(document: dict[str, object], issuer: Issuer) -> None:
    document["device"] = "GPU-2"


def _without_the_beginning(document: dict[str, object], issuer: Issuer) -> None:
    document["entries"] = issuer.entries[1:]


def _one_bit_changed(document: dict[str, object], issuer: Issuer) -> None:
    head, body, signature = issuer.entries[2].split(".")
    document["entries"] = [
        *issuer.entries[:2],
        f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}",
    ]


def _of_another_exchange(document: dict[str, object], issuer: Issuer) -> None:
    document["entries"] = [*issuer.entries[:2], lived().entries[2]]


def _evidence_of_another_inspection(document: dict[str, object], issuer: Issuer) -> None:
    first, *_, last = list(issuer.evidence)
    document["evidence"] = {**issuer.evidence, first: issuer.evidence[last]}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_without_the_middle, "chain"),
        (_swapped, "chain"),
        (_of_another_device, "chain"),
        (_without_the_beginning, "chain"),
        (_one_bit_changed, "signatures"),
        (_of_another_exchange, "authority"),
        (_evidence_of_another_inspection, "evidence"),
    ],
)
def test_every_change_is_found(
    issuer: Issuer, change: Callable[[dict[str, object], Issuer], None], check: str
) -> None:
    document = json.loads(issuer.file())
    change(document, issuer)
    found = verify_passport(json.dumps(document), trusted_fingerprint=issuer.authority.fingerprint)
    assert not found.valid
    assert check in {each.name for each in found.checks if each.passed is False}


def test_what_did_not_come_along_is_said_and_not_taken_for_a_pass(issuer: Issuer) -> None:
    found = verify_passport(json.dumps({**json.loads(issuer.file()), "evidence": {}}))
    by_name = {each.name: each.passed for each in found.checks}
    assert (found.valid, found.trusted) == (True, False)
    assert (by_name["evidence"], by_name["authority"]) == (None, None)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"device": "x", "entries": [], "evidence": {}}', '{"device":']
)
def test_what_is_no_passport_is_refused_with_a_word(text: str) -> None:
    with pytest.raises(PassportError, match="passport"):
        verify_passport(text)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_PARTS = (
    "perak",
    "credentialSubject",
    "issuer",
    "validFrom",
    "traceabilityInformation",
    "seq",
    "id",
    "evidence",
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(_PARTS), st.dictionaries(st.sampled_from(_PARTS), _JSON) | _JSON))
def test_whatever_an_entry_says_the_answer_is_a_check(values: dict[str, Any]) -> None:
    issuer = lived_once()
    token = sign_entry(values, key=issuer.key, chain=issuer.chain)
    found = verify_passport(json.dumps({"device": "GPU-1", "entries": [token], "evidence": issuer.evidence}))
    assert not found.valid


def test_the_commands_verify_show_and_export_a_file(issuer: Issuer, tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    file.write_text(issuer.file())
    run = CliRunner().invoke
    fingerprint = issuer.authority.fingerprint
    verified = run(cli, ["passport", "verify", str(file), "--fingerprint", fingerprint])
    assert verified.exit_code == 0, verified.output
    assert "genuine" in verified.output
    shown = run(cli, ["passport", "show", str(file)])
    assert "B because the sustained power reached 84%" in shown.output
    assert "driver R580 is the last" in shown.output
    file.write_text(issuer.file("GPU-2"))
    assert "NOT valid" in run(cli, ["passport", "verify", str(file)]).output
    refused = run(cli, ["passport", "export", str(file), str(tmp_path / "card.txt")])
    assert refused.exit_code != 0


def test_the_pages_hold_grade_reasons_and_plots(issuer: Issuer, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: no pages")
    file, page, sheet = tmp_path / "card.json", tmp_path / "card.html", tmp_path / "card.pdf"
    file.write_text(issuer.file())
    for made in (page, sheet):
        result = CliRunner().invoke(cli, ["passport", "export", str(file), str(made)])
        assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.count("data:image/svg+xml;base64,") == 3
    assert "B because the sustained power reached 84%" in text
    assert "http" not in text.replace("http://www.w3.org", ""), "nothing is loaded from outside"
    assert sheet.read_bytes().startswith(b"%PDF-1.")
    assert sheet.stat().st_size > 10_000
