"""The campaign of tiny limits, small; and the table of its limits, which must fit the code of today."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from proof.faults.campaigns import limits, limits_s3
from proof.faults.tiny_limits import shrunk, tiny

SECONDS = 4


@pytest.mark.proof
@pytest.mark.parametrize("campaign", [limits, limits_s3], ids=["SQLite", "PostgreSQL and S3"])
def test_small_files_cross_every_limit(campaign: ModuleType) -> None:
    report = campaign.run(SECONDS, 20261128)
    print(report)
    assert report.holds, report
    assert report.inside > 0


@pytest.mark.parametrize(("module", "values"), tiny().items(), ids=tiny())
def test_each_name_of_the_table_is_a_number_of_its_module(module: str, values: Mapping[str, str]) -> None:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    shrunk(Path(spec.origin).read_bytes(), values)


def test_a_name_that_a_module_lacks_is_refused() -> None:
    with pytest.raises(LookupError, match="B is assigned 0 times"):
        shrunk(b"A = 1", {"B": "2"})
