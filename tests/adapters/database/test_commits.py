"""What a commit makes of the asset that an upload has judged."""

from dataclasses import fields, replace
from typing import Any

from tests.contract.databases import CALLER, draft, grant
from uponce.adapters.database.commits import commit_or_refuse, publication
from uponce.adapters.database.steps import of_grant, of_name
from uponce.app.ports import Candidate, Draft, Refusal
from uponce.core.errors import SignatureUsed
from uponce.core.values import Asset


def test_a_new_asset_keeps_all_that_was_decided() -> None:
    values: Any = [object() for _ in fields(Asset)]
    asset = Asset(*values)
    made = publication(Draft(asset, overwrite=True), None, 5.5).asset
    assert made == replace(asset, version=5, created_at=5)


def test_an_upload_of_a_group_holds_its_name_and_its_signature_and_a_refusal_only_its_signature() -> None:
    upload = Candidate(grant("a"), draft("cat", blob="b"), CALLER)
    assert list(commit_or_refuse(upload, 1).numbers()) == [of_name(upload.draft.asset.name), of_grant(grant("a").key)]
    refusal = Refusal(grant("a"), CALLER, SignatureUsed("used"))
    assert list(commit_or_refuse(refusal, 1).numbers()) == [of_grant(grant("a").key)]
