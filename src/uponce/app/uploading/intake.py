"""Turn an upload that arrives, fields and one file in any order, into a spooled blob and a verified grant.

Fields before the file are verified before the server takes a byte of the file, and later fields cannot change them. A
file that comes first is spooled under a smaller limit, a deadline and a least rate until its fields have arrived.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from uponce.app.attempts import Attempt, network_of
from uponce.app.authorise import CREDENTIALS, Admitted, UploadRequest, Verified, authorise, check_scripted
from uponce.app.ports import Spooled
from uponce.app.relaying.held import HeldFile
from uponce.app.services import Services
from uponce.app.sign import sign_for
from uponce.app.uploading.series import Append
from uponce.core import errors
from uponce.core.parameters import UploadSpec
from uponce.core.policy import too_large
from uponce.core.signature import collect_known


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class FileStart:
    """The file begins. Its bytes follow as bytes events. `filename` and `size`, in bytes, are as the request says."""

    filename: str | None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class FormBytes:
    """How many bytes of the body have arrived that are not the file's, if they are more than `FORM_BYTES`."""

    size: int


Event = Field | FileStart | FormBytes | bytes | bytearray
FORM_BYTES = 4096


S = TypeVar("S", bound=Spooled | HeldFile | Append)


class Receiver(ABC, Generic[S]):
    """Takes events one by one. On exit, it discards a spooled file that it still holds."""

    def __init__(self, services: Services, request: UploadRequest) -> None:
        self._services = services
        self.request = request
        self._fields = list(request.fields)
        self._counted = ExitStack()
        self._doubt: errors.InvalidSignature | None = None
        self._limit = 0
        self._attempt = Attempt(network_of(request.caller.address), asyncio.get_running_loop().time())
        self._counted.callback(services.attempts.forms.release, self._attempt)
        self.verified: Verified | None = None
        self.body: S | None = None
        self.filename: str | None = None
        self._size: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._counted.close()
        # Their tracebacks would keep this object, and all fields, until a garbage collection.
        self._doubt = self._attempt.refusal = None
        if self.body is not None:
            await self.body.discard()

    async def receive(self, events: AsyncIterator[Event]) -> None:
        """Take all events in time.

        Raise RequestTooSlow if they take too long, or the refusal if a newer attempt displaces this. Raise
        InvalidSignature instead of both if the fields before the file did not match their signature.
        """
        attempt = self._attempt
        try:
            async with asyncio.timeout_at(self._deadline()) as deadline:
                with attempt.receiving(deadline):
                    async for event in events:
                        await self.take(event)
                        if attempt.refusal is not None:
                            raise self._doubt or attempt.refusal
                        if self.verified is None or isinstance(event, Field | FileStart):
                            deadline.reschedule(self._deadline())
                        del event  # or it stays in memory until the next one arrives
        except TimeoutError:
            raise self._doubt or attempt.refusal or self._too_slow() from None

    def _deadline(self) -> float:
        """Return until when more must have arrived. Before the signature is verified, the least rate counts as well."""
        limits, begun = self._services.limits, self._attempt.begun
        if self.verified is not None:
            return begun + limits.max_upload_seconds
        whole = begun + min(limits.unverified_seconds, limits.max_upload_seconds)
        if self.body is None:
            return whole
        return min(whole, begun + limits.rate_seconds + self._attempt.received / limits.least_rate)

    def _too_slow(self) -> errors.UponceError:
        limits, received, seconds = self._services.limits, self._attempt.received, self._attempt.seconds()
        if self.verified is not None or seconds >= limits.max_upload_seconds:
            return errors.RequestTooSlow(
                f"The upload was not complete after {limits.max_upload_seconds} seconds, which is the limit. Send a "
                "smaller file, or use a faster connection."
            )
        if self.body is None:
            return errors.RequestTooSlow(
                f"Neither the file nor a signature arrived within {limits.unverified_seconds} seconds. Send the "
                "fields, then the file, without a pause."
            )
        return errors.RequestTooSlow(
            f"The file came before the fields that sign it, and {received} bytes arrived in {seconds:.0f} seconds. "
            f"Such an upload must keep {limits.least_rate} bytes per second, and end within "
            f"{limits.unverified_seconds} seconds. {self._cure()}"
        )

    def _cure(self) -> str:
        """Return what lets a file arrive behind its signature."""
        if self.request.credentials is None:
            return "Send the fields before the file."
        if not self._fields:
            return "Send a field before the file, such as nonce, or PUT the file."
        return "Send the fields before the file. An upload without a signature omits api_key, which HTTP Basic has."

    async def take(self, event: Event) -> None:
        match event:
            case Field(name, value):
                self._take_field(name, value)
            case FileStart():
                await self._begin_file(event)
            case FormBytes(size):
                if self.verified is None:
                    self._services.attempts.forms.hold(self._attempt, size, self._services.limits)
            case _:
                await self._take_bytes(event)

    async def complete(self) -> tuple[Verified, S]:
        """Return the verified parameters and the file, after everything has arrived. The file may have come first."""
        if self.verified is None:
            await self._authorise(collect_known(self._fields))
        if self.verified is None or self.body is None:
            raise errors.MissingParameter("Missing required parameter - file")
        return self.verified, self.body

    def release(self) -> None:
        """Leave the file to the caller. From now on the caller must publish or discard it."""
        self.body = None

    def _take_field(self, name: str, value: str) -> None:
        if self.verified is not None and self.body is not None:
            raise errors.LateParameter(
                f"Parameter {errors.shown(name)} came after the file, and the signature was verified without it. Send "
                "all parameters before the file, or all after it."
            )
        self._fields.append((name, value))

    async def _begin_file(self, file: FileStart) -> None:
        if self.body is not None:
            raise errors.DuplicateParameter("Parameter file was sent more than once. Send one file per request.")
        self.filename, self._size = file.filename, file.size
        params = collect_known(self._fields)
        if self.request.bare:
            await self._authorise(params)
        elif all(name in params for name in CREDENTIALS) or self._needs_no_signature(params):
            try:
                await self._authorise(params)
            except errors.InvalidSignature as doubt:
                # Another signed field may follow the file. Until then the upload is unverified.
                self._doubt = doubt
        if self.verified is None:
            self._counted.enter_context(self._services.attempts.unverified(self._attempt, self._services.limits))
            self._limit = self._services.limits.max_bytes(self.request.requested, None)
        if self._size is not None and self._size > self._limit:
            raise self._doubt or self._too_large(self._size)
        self.body = await self._open()

    def _needs_no_signature(self, params: dict[str, str]) -> bool:
        """Return whether credentials stand for a signature, also for one that may follow the file.

        The SDK of .NET sends HTTP Basic with every signed upload, and all fields in the order of their names: `api_key`
        before the file, `signature` behind it. An upload without a signature has no use for `api_key`.
        """
        return self._by_credentials(params) and bool(params) and "api_key" not in params

    def _by_credentials(self, params: dict[str, str]) -> bool:
        return self.request.credentials is not None and "signature" not in params

    async def _authorise(self, params: dict[str, str]) -> None:
        self.request = request = self.request.narrowed(params)
        if request.credentials is not None and self._by_credentials(params):
            if request.idempotency_key is not None:
                raise errors.InvalidParameter(
                    "Header Idempotency-Key needs a signed upload. Sign it, or omit the header."
                )
            params = await sign_for(self._services, request.cloud, request.requested, request.credentials, params)
        verified = await self._admit(params)
        check_scripted(verified.spec, request)
        self._counted.close()
        self._limit = self._enter(verified)
        self.verified = verified

    async def _take_bytes(self, data: bytes | bytearray) -> None:
        if self.body is None:
            raise errors.MissingParameter("Missing required parameter - file")
        arrived = self.body.size + len(data)
        if arrived > self._limit:
            raise self._doubt or self._too_large(arrived)
        self._attempt.received += len(data)
        await self.body.write(data)

    def _too_large(self, arrived: int) -> errors.FileTooLarge:
        """Return the refusal. It has the cure if the file is too large only because it came before its fields."""
        refusal = too_large(self._size or arrived, self._limit, is_whole=self._size is not None)
        lasting = self._services.limits.max_bytes(self.request.requested, UploadSpec())
        if self.verified is not None or self._limit == lasting:
            return refusal
        return errors.FileTooLarge(
            f"{refusal.message} This limit is for a file that comes before the fields that sign it. {self._cure()} "
            f"Then the maximum is {lasting}, unless max_bytes is signed."
        )

    @abstractmethod
    async def _admit(self, params: dict[str, str]) -> Verified:
        """Return the verified parameters. Raise the refusal if they may not upload."""

    @abstractmethod
    def _enter(self, verified: Verified) -> int:
        """Count the attempt. Return how many bytes the file may have."""

    @abstractmethod
    async def _open(self) -> S:
        """Begin the file. Return the destination for its bytes."""


class Intake(Receiver[Spooled | HeldFile]):
    """Receives a whole file in one request. The file is spooled, or held for the upstream if its cloud has one.

    A file for an upstream is spooled too if this server inspects files, or if it came before the fields that sign it.
    """

    async def _admit(self, params: dict[str, str]) -> Verified:
        return await authorise(self._services, self.request, params)

    def _enter(self, verified: Verified) -> int:
        limits = self._services.limits
        self._counted.enter_context(self._services.attempts.of_grant(self._attempt, verified.grant, limits))
        return limits.max_bytes(self.request.requested, verified.spec)

    async def _open(self) -> Spooled | HeldFile:
        services, request, verified = self._services, self.request, self.verified
        if verified is not None and verified.key.upstream is not None and not services.inspects:
            return HeldFile(services, Admitted.of(request, verified, self.filename), request.length)
        return await services.blobs.receive()
