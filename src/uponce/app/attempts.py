"""Live attempts of this process: how many may run at a time, and which attempt ends when there are too many.

The bounds save disk and connections. They are no part of the safety argument: the commit alone decides which attempt
wins.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from weakref import WeakValueDictionary

from uponce.core.errors import ChunkInProgress, ServerBusy, SignatureInUse, UponceError
from uponce.core.policy import Limits
from uponce.core.refusals import WHY_SIGNATURES_COLLIDE
from uponce.core.values import UNLIMITED_USES, Grant

_RETRY_SECONDS = 5
_REFUSALS_AT_ONCE = 4
_STEP = 1024  # bytes; attempts that differ by less count as equally fast
_YOUNG_SECONDS = 2.0
_RELAYED_BYTES = 8 * 1024 * 1024
_SMALL_BYTES = 64 * 1024 * 1024  # of bodies on their way to a store that is far away
_NETWORK_BITS = 64  # the part of an IPv6 address that one client holds
_TRANSLATED = IPv6Network("64:ff9b::/96")  # IPv4 clients, behind a translator (RFC 7755)
_UNVERIFIED = "unverified"


@dataclass(slots=True, eq=False)
class Attempt:
    """One upload that runs. `received` counts bytes of its file. A newer attempt that displaces it sets `refusal`."""

    network: str
    begun: float
    received: int = 0
    refusal: UponceError | None = None
    _body: asyncio.Timeout | None = None

    @contextmanager
    def receiving(self, deadline: asyncio.Timeout) -> Iterator[None]:
        """Let newer attempts displace this one: `deadline` then expires, and `refusal` has the reason."""
        self._body = deadline
        try:
            yield
        finally:
            self._body = None

    @property
    def is_receiving(self) -> bool:
        return self._body is not None and self.refusal is None

    def seconds(self) -> float:
        return asyncio.get_running_loop().time() - self.begun

    def pace(self) -> float:
        """Return steps per second over the upload's whole life, which counts as `_YOUNG_SECONDS` or more."""
        return (self.received // _STEP) / max(self.seconds(), _YOUNG_SECONDS)

    def displace(self, refusal: UponceError) -> None:
        self.refusal = refusal
        if self._body is not None and not self._body.expired():
            self._body.reschedule(0)


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `total` attempts at a time, at most `per_network` of them from one network.

    `refusal` is what both messages are raised as. `displaced` goes to an attempt that a newer one displaced: it has
    places for {limit}, the limit that was reached, for {where} it counts and for the {progress} of the attempt. `full`
    goes to a new attempt when all the others have arrived, and are being checked or stored.
    """

    total: int
    per_network: int
    refusal: type[UponceError]
    displaced: str
    full: str


class Memory:
    """How many more bytes uploads of one kind may hold in memory, all together."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> bool:
        """Take `size` bytes. Return False, and take nothing, if fewer are left."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        self._left += size


class Forms:
    """How many bytes of forms this process holds that have no verified signature yet. Files do not count.

    A new form always gets in. When there are too many bytes, the oldest form that is still arriving ends. An honest
    form arrives without a pause. It is the oldest one only if strangers send as many bytes as the limit within its
    time.
    """

    def __init__(self) -> None:
        self._held: dict[Attempt, int] = {}  # the oldest form first
        self.size = 0

    def hold(self, attempt: Attempt, size: int, limits: Limits) -> None:
        """Count `size` bytes for this attempt, whose form may be the one that ends."""
        if attempt.refusal is not None:
            return
        most = limits.max_unverified_form_bytes
        self.size += size - self._held.get(attempt, 0)
        self._held[attempt] = size
        while self.size > most:
            oldest = next((other for other in self._held if other.is_receiving), None)
            if oldest is None:  # all have arrived, and are being verified
                return
            oldest.displace(_too_many_forms(oldest, self._held[oldest], most))
            self.release(oldest)

    def release(self, attempt: Attempt) -> None:
        self.size -= self._held.pop(attempt, 0)


class Attempts:
    """The uploads that run in this process: by grant, chunks by series, and those whose signature has not arrived yet.

    A new attempt gets in unless all others have arrived. When there is no place for it, the slowest attempt that is
    still receiving ends. Its refusal spends nothing. Can a stranger with a copy of a signature so starve the
    signature's holder?

    - Slow uploads, and uploads that are begun and left, are slower than the holder's. They end first. The rate counts
      over an attempt's whole life. A burst at the start does not help for long, and being new does not help at all.
    - One network fills all places of a grant except one. A stranger's new attempt then ends another attempt of the
      stranger.
    - So the stranger needs several networks. In every other place, the stranger needs an upload that is faster than the
      holder's, for as long as the holder uploads. That is several times the holder's own traffic. The holder's next
      attempt gets in at once again.
    """

    def __init__(self) -> None:
        self.memory = Memory(_RELAYED_BYTES)
        self.small = Memory(_SMALL_BYTES)
        self.forms = Forms()
        self._refusing = asyncio.Semaphore(_REFUSALS_AT_ONCE)
        self._turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._running: defaultdict[Hashable, set[Attempt]] = defaultdict(set)  # by grant, series, or _UNVERIFIED
        self._waiting: Counter[str] = Counter()
        self._noting: set[str] = set()

    @asynccontextmanager
    async def refusing(self, grant: Grant) -> AsyncIterator[None]:
        """Wait for a turn to record the refusal of a reuse: a few at a time in all, one at a time of one grant.

        So uploads keep their share of the database during a flood of refusals. A flood with one signature waits for its
        own turns, and refusals of other signatures do not wait behind it.
        """
        async with self._turn(grant.key), self._refusing:
            yield

    def beginning(self, grant: Grant) -> AbstractAsyncContextManager[None]:
        """Wait for a turn to begin a series, one at a time of one grant: each makes a file, and takes a connection to
        the database."""
        return self._turn(("series", grant.key))

    def _turn(self, key: Hashable) -> asyncio.Lock:
        """Return the lock of this key, which lasts as long as a request holds it or waits for it."""
        return self._turns.setdefault(key, asyncio.Lock())

    @contextmanager
    def waiting(self, series_id: str, limits: Limits) -> Iterator[None]:
        """Count a request that waits for its part of a series.

        Raise ChunkInProgress if too many wait: each of them asks the disk and the database many times a second.
        """
        if self._waiting[series_id] >= limits.waiting_per_series:
            raise ChunkInProgress(
                f"{limits.waiting_per_series} requests wait for the same part of this upload, and no more are allowed. "
                "Wait for their answers, then send this part again.",
                retry_after=_RETRY_SECONDS,
            )
        self._waiting[series_id] += 1
        try:
            yield
        finally:
            self._waiting[series_id] -= 1
            if not self._waiting[series_id]:
                del self._waiting[series_id]

    @contextmanager
    def noting(self, series_id: str) -> Iterator[bool]:
        """Return whether a request may note its bytes now: no other request of its series in this process does."""
        is_first = series_id not in self._noting
        self._noting.add(series_id)
        try:
            yield is_first
        finally:
            if is_first:
                self._noting.discard(series_id)

    def of_grant(self, attempt: Attempt, grant: Grant, limits: Limits) -> AbstractContextManager[None]:
        """Count an attempt with a verified signature among those of its grant. A grant of unlimited uses has no bound.

        Raise SignatureInUse if no other attempt can be displaced.
        """
        return self._among(grant.key, attempt, _bound_of(grant, limits))

    def of_series(self, attempt: Attempt, series_id: str, limits: Limits) -> AbstractContextManager[None]:
        """Count a chunk with a verified signature among those of its series that arrive.

        Raise ServerBusy if no other chunk can be displaced.
        """
        return self._among(series_id, attempt, _series_bound(limits))

    def unverified(self, attempt: Attempt, limits: Limits) -> AbstractContextManager[None]:
        """Count an attempt whose file came before its signature. Raise ServerBusy if no other can be displaced."""
        return self._among(_UNVERIFIED, attempt, _unverified_bound(limits))

    @contextmanager
    def _among(self, key: Hashable, attempt: Attempt, bound: Bound | None) -> Iterator[None]:
        running = self._running[key]
        try:
            if bound is not None:
                _make_room(running, attempt, bound)
            running.add(attempt)
            yield
        finally:
            running.discard(attempt)
            if not self._running.get(key):
                self._running.pop(key, None)


def network_of(address: str) -> str:
    """Return the part of an address that belongs to one client: an IPv4 address, or the /64 of an IPv6 address.

    Of a client of IPv4 behind a translator, return the IPv4 address, which its IPv6 address contains. Return an empty
    text if the address is unknown: then no bound per network applies.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    if not isinstance(ip, IPv6Address):
        return str(ip)
    if ip in _TRANSLATED:
        return str(IPv4Address(int(ip) & 0xFFFF_FFFF))
    return str(ip.ipv4_mapped or ip_network((ip.packed, _NETWORK_BITS), strict=False))


def _make_room(running: set[Attempt], attempt: Attempt, bound: Bound) -> None:
    neighbours = {other for other in running if attempt.network and other.network == attempt.network}
    if len(neighbours) >= bound.per_network:
        _displace_slowest(running, neighbours, bound, bound.per_network)
    elif len(running) >= bound.total:
        _displace_slowest(running, running, bound, bound.total)


def _displace_slowest(running: set[Attempt], among: Collection[Attempt], bound: Bound, limit: int) -> None:
    """End the slowest attempt; of equally slow attempts, the oldest."""
    slowest = min(
        (other for other in among if other.is_receiving), key=lambda other: (other.pace(), other.begun), default=None
    )
    if slowest is None:
        raise bound.refusal(bound.full)
    running.discard(slowest)
    where = "from one address" if limit < bound.total else "in all"
    slowest.displace(bound.refusal(bound.displaced.format(limit=limit, where=where, progress=_progress(slowest))))


def _bound_of(grant: Grant, limits: Limits) -> Bound | None:
    """Return how many attempts of a grant may run. One network cannot take all places: it leaves one to another."""
    if grant.max_uses >= UNLIMITED_USES:
        return None
    total = limits.attempts_per_grant + grant.max_uses - 1
    allowed = f"UPONCE_ATTEMPTS_PER_GRANT is {limits.attempts_per_grant}"
    if grant.max_uses > 1:
        allowed += f", and with {grant.max_uses} uses it allows {total}"
    return Bound(
        total,
        max(1, total - 1),
        SignatureInUse,
        displaced="A newer upload with this signature replaced this one, the slowest of {limit}: {progress} "
        f"{allowed}. The signature is not spent: send the file again. {WHY_SIGNATURES_COLLIDE}",
        full=f"This signature is in use: {total} uploads with it have arrived and are being checked or stored, and no "
        f"more than {total} may run at a time. Wait {SignatureInUse.retry_seconds} seconds, or ask for a new "
        f"signature. {WHY_SIGNATURES_COLLIDE}",
    )


def _series_bound(limits: Limits) -> Bound:
    total = limits.arriving_per_series
    allowed = f"UPONCE_ARRIVING_PER_SERIES is {total}"
    return Bound(
        total,
        max(1, total - 1),
        ServerBusy,
        displaced="A newer chunk of this upload replaced this one, the slowest of {limit} {where}: {progress} "
        f"{allowed}. Send this chunk again, and fewer chunks at a time.",
        full=f"{total} chunks of this upload have arrived and are being stored. {allowed}. Send this chunk again, and "
        "fewer chunks at a time.",
    )


def _unverified_bound(limits: Limits) -> Bound:
    total = limits.max_unverified_uploads
    return Bound(
        total,
        min(total, limits.max_unverified_per_address),
        ServerBusy,
        displaced="{limit} uploads {where} that send the file before the fields that sign it are the limit. A newer "
        "upload replaced this one, the slowest: {progress} Send the fields before the file.",
        full=f"{total} uploads that send the file before the fields that sign it are running, and {total} are allowed "
        "at a time. Send the fields before the file, or try again.",
    )


def _too_many_forms(oldest: Attempt, size: int, most: int) -> ServerBusy:
    return ServerBusy(
        f"The forms that arrive now, without a verified signature, have more than {most} bytes, which "
        f"UPONCE_MAX_UNVERIFIED_FORM_BYTES allows. This one was the oldest: {size} bytes without its file in "
        f"{oldest.seconds():.0f} seconds. Send the form again without a pause, or with fewer and shorter fields."
    )


def _progress(attempt: Attempt) -> str:
    return f"{attempt.received} bytes in {attempt.seconds():.0f} seconds."
