"""Judge bytes that have all arrived: what they are, whether that is allowed, which asset they are to become."""

from dataclasses import dataclass

from uponce.app.ports import Draft
from uponce.app.services import Services
from uponce.core.naming import RANDOM_LENGTH, UNIQUE_SUFFIX_LENGTH, split_filename
from uponce.core.parameters import UploadSpec
from uponce.core.policy import judge_content, judge_media
from uponce.core.values import AssetName, Caller, Digest, Grant, MediaFacts, Payer, ResourceType


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the file was sent as. `requested` None is auto."""

    cloud: str
    requested: ResourceType | None
    spec: UploadSpec
    filename: str | None


async def judge(services: Services, wanted: Wanted, payer: Payer, blob_key: str, path: str, digest: Digest) -> Draft:
    """Return the asset to commit; `path` leads to the bytes. Raises Refused if they are not allowed."""
    judge_content(digest, wanted.spec, services.limits.max_bytes(wanted.requested, wanted.spec))
    facts = await services.inspector.inspect(path, wanted.requested, payer)
    judge_media(facts, digest, wanted.filename, wanted.spec, services.limits)
    return draft_of(services, wanted, blob_key, digest, facts)


def payer_of(grant: Grant, caller: Caller) -> Payer:
    """Return the names under which the work on the caller's file is charged."""
    return Payer(grant.key.hex(), grant.api_key, caller.address)


def draft_of(services: Services, wanted: Wanted, blob_key: str, digest: Digest, facts: MediaFacts) -> Draft:
    """Return the asset that bytes become which were judged to be good."""
    spec, filename, ids = wanted.spec, wanted.filename, services.ids
    public_id = spec.naming.name(facts.kind, filename, ids.base36(RANDOM_LENGTH), ids.base36(UNIQUE_SUFFIX_LENGTH))
    original = split_filename(spec.naming.filename_override or filename or "")[0]
    return Draft(
        name=AssetName(wanted.cloud, facts.kind, spec.type, public_id),
        asset_id=ids.dated_hex(),
        version_id=ids.hex(32),
        blob_key=blob_key,
        digest=digest,
        facts=facts,
        tags=spec.tags,
        context=spec.context,
        original_filename=None if spec.discard_original_filename else original or None,
        overwrite=spec.overwrite,
    )
