"""The values that every layer uses: assets, facts of their media, keys and grants."""

from dataclasses import dataclass, field
from enum import StrEnum


class Algorithm(StrEnum):
    """The hash of a signature. Requests do not name it; the length of the hex digest shows it."""

    SHA1 = "sha1"
    SHA256 = "sha256"


class ResourceType(StrEnum):
    """The kind of an asset. Audio is video, as with Cloudinary. Code writes `auto` of a request as None."""

    IMAGE = "image"
    VIDEO = "video"
    RAW = "raw"


class DeliveryType(StrEnum):
    """How an asset is delivered: to everyone, or only by a signed delivery URL."""

    UPLOAD = "upload"
    PRIVATE = "private"
    AUTHENTICATED = "authenticated"


@dataclass(frozen=True, slots=True)
class AudioFacts:
    codec: str
    bit_rate: int | None
    frequency: int
    channels: int
    channel_layout: str


@dataclass(frozen=True, slots=True)
class VideoFacts:
    codec: str
    profile: str | None
    level: int
    pix_format: str
    bit_rate: int | None
    dar: str | None
    time_base: str


@dataclass(frozen=True, slots=True)
class TimedFacts:
    """Facts of a video or sound. Duration in seconds, rates per second, rotation in degrees."""

    duration: float | None
    bit_rate: int | None
    frame_rate: float | None
    nb_frames: int | None
    rotation: int
    audio: AudioFacts | None
    video: VideoFacts | None


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What the bytes prove to be. `format` is the canonical extension (`jpg`, `mp4`), and None for raw.

    `pages` counts frames of an animation and is 1 for a still picture. `timed` is None for images and raw.
    """

    kind: ResourceType
    format: str | None = None
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    timed: TimedFacts | None = None


@dataclass(frozen=True, slots=True)
class Digest:
    """Size in bytes and lower-case hex digests of a whole file.

    `sha256` is empty for a relayed file if no signed digest is compared with it.
    """

    size: int
    md5: str
    sha256: str


@dataclass(frozen=True, slots=True)
class AssetName:
    """The name of an asset. Equal public_ids of two resource types or delivery types are two assets."""

    cloud: str
    resource_type: ResourceType
    type: DeliveryType
    public_id: str

    def __str__(self) -> str:
        return f"{self.cloud}/{self.resource_type}/{self.type}/{self.public_id}"


@dataclass(frozen=True, slots=True)
class Asset:
    """One stored asset. Times in Unix seconds; `version` strictly increases with every overwrite."""

    name: AssetName
    asset_id: str
    version: int
    version_id: str
    created_at: int
    blob_key: str
    digest: Digest
    facts: MediaFacts
    tags: tuple[str, ...] = ()
    context: tuple[tuple[str, str], ...] = ()
    original_filename: str | None = None


class KeyUses(StrEnum):
    """How often one signature of a key may be used."""

    ONCE = "once"
    UNLIMITED = "unlimited"


class KeyScope(StrEnum):
    """What a key's signatures and credentials allow."""

    UPLOAD = "upload"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The account to which a relay forwards the uploads of a cloud.

    `secret` is empty once it is lost: then uponce sends nothing there. `prefix` is the address of its API. `window` is
    for how many seconds the account accepts a signature. `marked` says that its presets may rename assets: uponce then
    finds each asset by a context entry instead of its public_id.
    """

    cloud: str
    api_key: str
    secret: str = field(repr=False)
    prefix: str = "https://api.cloudinary.com"
    algorithm: Algorithm = Algorithm.SHA1
    window: int = 3600
    marked: bool = False

    @property
    def account(self) -> str:
        """Return the identity of the account. Another API key of the account leads to the same assets."""
        return f"{self.prefix}/{self.cloud}"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key and its policy. `secrets` has the current one first, then a rotated one that still counts.

    `window` is how long its signatures live, in seconds. `watermark` is the newest purged timestamp. `upstream` is that
    of its cloud. `old_secret_until` is the Unix second when the rotated secret ends, or None without one.
    """

    api_key: str
    cloud: str
    secrets: tuple[str, ...] = field(repr=False)
    uses: KeyUses
    scope: KeyScope
    window: int
    name: str = ""
    allow_v1: bool = False
    algorithms: tuple[Algorithm, ...] = tuple(Algorithm)
    created_at: int = 0
    revoked_at: int | None = None
    watermark: int | None = None
    upstream: Upstream | None = None
    old_secret_until: int | None = None


@dataclass(frozen=True, slots=True)
class GivenKey:
    """A key as an operator wrote it. If it names no window, its window is the default for new keys."""

    key: ApiKey
    names_window: bool = True


UNLIMITED_USES = 2**62


@dataclass(frozen=True, slots=True)
class Grant:
    """A verified signature: its key K, its cloud and API key, and until when the ledger must remember it."""

    key: bytes
    cloud: str
    api_key: str
    timestamp: int
    max_uses: int
    keep_until: int


class GrantStatus(StrEnum):
    """`unused` also covers grants without a row. `pending` says that an upstream may still complete the upload."""

    UNUSED = "unused"
    USED = "used"
    REVOKED = "revoked"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class GrantRecord:
    """The ledger's row of a grant. Times in Unix seconds. `pending` of the `uses` have an unknown outcome.

    `spent_at` is the time of the last use with a known outcome.
    """

    grant: Grant
    uses: int
    spent_at: int | None
    revoked_at: int | None
    pending: int = 0

    @property
    def status(self) -> GrantStatus:
        if self.revoked_at is not None:
            return GrantStatus.REVOKED
        if self.pending:
            return GrantStatus.PENDING
        return GrantStatus.USED if self.uses >= self.grant.max_uses else GrantStatus.UNUSED


@dataclass(frozen=True, slots=True)
class Payer:
    """The names to which uponce charges the work on a file: its grant (hex), API key and address. Empty: not known.

    Of an IPv6 address it is the network of one client. If the grant has several uses, it may have several holders: then
    `sharer` is the address too.
    """

    grant: str = ""
    api_key: str = ""
    address: str = ""
    sharer: str = ""

    @staticmethod
    def of(grant: Grant, address: str) -> "Payer":
        return Payer(grant.key.hex(), grant.api_key, address, address if grant.max_uses > 1 else "")

    @property
    def holder(self) -> str:
        """Return whose seconds a refused file uses up. No holder uses up those of the others."""
        return f"{self.grant} {self.sharer}" if self.grant and self.sharer else self.grant


class AuditEvent(StrEnum):
    """SPENT and DELETED are each one use: an asset was made, or deleted."""

    SPENT = "spent"
    DELETED = "deleted"
    REFUSED = "refused"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a request, as the server sees it. It goes into the audit."""

    address: str
    request_id: str


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One row of a grant's history. `code` is the error code of a refusal.

    A use of a grant may have a code too. `existing`: the upload kept the asset of its name. `looked_up`: a relay found
    the asset later.

    A row with `count` above 1 means that many refusals. Its time, code and caller are those of the last one. Later rows
    have a greater `id`.
    """

    at: int
    event: AuditEvent
    caller: Caller
    code: str = ""
    asset_id: str = ""
    public_id: str = ""
    count: int = 1
    id: int = 0
