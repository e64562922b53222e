"""What a commit makes of the asset that an upload has judged."""

from dataclasses import fields, replace
from typing import Any

from uponce.adapters.database.commits import publication
from uponce.app.ports import Draft
from uponce.core.values import Asset


def test_a_new_asset_keeps_all_that_was_decided() -> None:
    values: Any = [object() for _ in fields(Asset)]
    asset = Asset(*values)
    made = publication(Draft(asset, overwrite=True), None, 5.5).asset
    assert made == replace(asset, version=5, created_at=5)
