"""What arrives of an upload: fields and one file, in any order, turned into a staged blob and a verified grant.

Fields that precede the file are verified before a byte of it is taken, and nothing that comes later may change
them. A file that comes first is staged under a smaller limit and a deadline until its fields have arrived.
"""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from uponce.app.authorise import CREDENTIALS, Verified, authorise
from uponce.app.ports import Stage
from uponce.app.services import Services
from uponce.app.sign import sign_for
from uponce.core.errors import (
    DuplicateParameter,
    FileTooLarge,
    InvalidParameter,
    InvalidSignature,
    LateParameter,
    MissingParameter,
)
from uponce.core.parameters import UploadSpec, check_route, collect_known
from uponce.core.policy import refuse_size
from uponce.core.values import Caller, ResourceType


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """The frame of an upload: its route, the fields of its query, and its sender. `requested` None is auto.

    `idempotency_key` is the client's name for this upload, under which it may ask for a lost answer again.
    `credentials` are an API key and its secret. They take the place of a signature where the fields have none.
    """

    cloud: str
    requested: ResourceType | None
    fields: tuple[tuple[str, str], ...]
    origin: str | None
    caller: Caller
    idempotency_key: str | None = None
    credentials: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class FileStart:
    """The file begins; its bytes follow as bytes events. `filename` as the client sent it."""

    filename: str | None


Event = Field | FileStart | bytes


class Sink(Protocol):
    """Where the bytes of the file go."""

    @property
    def size(self) -> int: ...

    async def write(self, data: bytes) -> None: ...

    async def discard(self) -> None: ...


S = TypeVar("S", bound=Sink)


class Arrival(ABC, Generic[S]):
    """Takes events one by one. Whoever leaves it with the stage still inside has it discarded."""

    def __init__(self, services: Services, request: UploadRequest) -> None:
        self._services = services
        self._request = request
        self._fields = list(request.fields)
        self._counted = ExitStack()
        self._doubt: InvalidSignature | None = None
        self._limit = 0
        self.verified: Verified | None = None
        self.stage: S | None = None
        self.filename: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._counted.close()
        if self.stage is not None:
            await self.stage.discard()

    async def take(self, event: Event) -> None:
        match event:
            case bytes():
                await self._take_bytes(event)
            case Field(name, value):
                self._take_field(name, value)
            case FileStart(filename):
                await self._begin_file(filename)

    async def complete(self) -> Verified:
        """All has arrived. The grant is verified, if that could not be done before the file."""
        if self.verified is None:
            await self._authorise(collect_known(self._fields))
        if self.verified is None or self.stage is None:
            raise MissingParameter("Missing required parameter - file")
        return self.verified

    def release(self) -> S:
        """Hand the stage over: from now on its fate is the caller's business."""
        if self.stage is None:
            raise MissingParameter("Missing required parameter - file")
        stage, self.stage = self.stage, None
        return stage

    def _take_field(self, name: str, value: str) -> None:
        if self.verified is not None and self.stage is not None:
            raise LateParameter(
                f"Parameter {name[:100]} came after the file, when the signature had been verified without it. "
                "Send all parameters before the file, or all after it."
            )
        self._fields.append((name, value))

    async def _begin_file(self, filename: str | None) -> None:
        if self.stage is not None:
            raise DuplicateParameter("Parameter file was sent more than once. Send one file per request.")
        self.filename = filename
        params = collect_known(self._fields)
        if all(name in params for name in CREDENTIALS) or (self._by_credentials(params) and params):
            try:
                await self._authorise(params)
            except InvalidSignature as doubt:
                # Some signed field may still come behind the file; until then this is an unverified upload.
                self._doubt = doubt
        if self.verified is None:
            self._counted.enter_context(
                self._services.attempts.unverified(self._services.limits.max_unverified_uploads)
            )
            self._limit = self._services.limits.max_bytes(self._request.requested, None)
        self.stage = await self._open()

    def _by_credentials(self, params: dict[str, str]) -> bool:
        return self._request.credentials is not None and "signature" not in params

    async def _authorise(self, params: dict[str, str]) -> None:
        request = self._request
        if request.credentials is not None and self._by_credentials(params):
            if request.idempotency_key is not None:
                raise InvalidParameter("Header Idempotency-Key needs a signed upload. Sign it, or omit the header.")
            check_route(params, request.cloud, request.requested)
            params = await sign_for(self._services, request.cloud, request.credentials, params)
        verified = await self._admit(params)
        self._counted.close()
        self._limit = self._enter(verified)
        self.verified = verified

    async def _take_bytes(self, data: bytes) -> None:
        if self.stage is None:
            raise MissingParameter("Missing required parameter - file")
        if self._doubt is not None and self.stage.size + len(data) > self._limit:
            raise self._doubt
        try:
            refuse_size(self.stage.size + len(data), self._limit)
        except FileTooLarge as refusal:
            raise self._explained(refusal) from None
        await self.stage.write(data)

    def _explained(self, refusal: FileTooLarge) -> FileTooLarge:
        """The refusal, with the cure for a file that only is too large because it came first."""
        lasting = self._services.limits.max_bytes(self._request.requested, UploadSpec())
        if self.verified is not None or self._limit == lasting:
            return refusal
        return FileTooLarge(
            f"{refusal.message} This limit is for a file that comes before the fields that sign it. Send the fields "
            f"before the file: then the maximum is {lasting}, unless max_bytes is signed."
        )

    @abstractmethod
    async def _admit(self, params: dict[str, str]) -> Verified:
        """Whether these parameters may upload."""

    @abstractmethod
    def _enter(self, verified: Verified) -> int:
        """They may: how many bytes."""

    @abstractmethod
    async def _open(self) -> S:
        """Where the file's bytes go; it begins."""


class Intake(Arrival[Stage]):
    """A whole file in one request."""

    async def _admit(self, params: dict[str, str]) -> Verified:
        request = self._request
        return await authorise(
            self._services,
            request.cloud,
            request.requested,
            params,
            origin=request.origin,
            caller=request.caller,
            idempotency_key=request.idempotency_key,
        )

    def _enter(self, verified: Verified) -> int:
        limits = self._services.limits
        self._counted.enter_context(self._services.attempts.of_grant(verified.grant, limits.attempts_per_grant))
        return limits.max_bytes(self._request.requested, verified.spec)

    async def _open(self) -> Stage:
        return await self._services.blobs.stage()
