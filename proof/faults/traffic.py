"""Clients of all kinds at the same time. What they do is checked, and remembered for the check of the whole store."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from proof.faults.audit import Receipt
from proof.faults.clients import LOST, Reply, connected, hold_back, release
from proof.faults.senders import Chunked, Request, Resumable, Sender, Tus
from proof.faults.visitor import Visitor, tag
from tests import samples
from tests.server import Key

IN_CONTEXT = 0.1
RACERS, OVERWRITES, READERS, PIPELINED, FLOOD = 5, 4, 4, 4, 9
CROWD, SLOW_BYTES = 16, range(1000, 3000)
QUICK, QUICK_BYTES = 3, 300_000
LEAVERS = 0.1
PAGE = 3
LOSERS = frozenset({"signature_used", "signature_in_use"})

_LIST = "lot"  # the key of the context of assets that are listed
Going = Callable[[], bool]


class File(NamedTuple):
    """A stored asset that no client changes any more."""

    path: str
    data: bytes


@dataclass(kw_only=True)
class Traffic(Visitor):
    """Everything that clients do to one fleet, and what must be stored after it. `deleting` is as in acts.py."""

    deleting: Key
    listing: bool = False
    used: int = 0  # refusals that the audit must have
    spent: int = 0
    left: int = 0  # unfinished uploads
    files: list[File] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)
    absent: list[str] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    pictures: Sequence[bytes] = field(default_factory=lambda: [samples.jpeg(seed, 60, 40) for seed in range(4)])

    async def play(self, going: Going, lanes: int, acts: Mapping[str, int]) -> None:
        """Let so many clients choose among the acts, which have weights, as long as it goes on."""
        names, weights = [*acts], [*acts.values()]

        async def lane() -> None:
            while going():
                (name,) = self.chance.choices(names, weights)
                self.tally.counts[f"acts: {name.replace('_', ' ')}"] += 1
                act: Callable[[], Awaitable[None]] = getattr(self, name)
                await act()

        await asyncio.gather(*(lane() for _ in range(lanes)))

    # Acts

    async def upload(self) -> None:
        kind, context = "raw", self.chance.random() < IN_CONTEXT
        data = self.bytes_()
        if self.chance.random() < 0.15:
            kind, data = "image", self.chance.choice(self.pictures)
        fields = self.sign(**({"context": f"{_LIST}=1"} if context else {}))
        if self.chance.random() < 0.2:
            await self._status(fields, "unused")
        reply = await self.ask(self.request(fields, data, kind))
        if not self.took(reply, data, fields):
            return
        path = self.path(fields, kind)
        await self.read(path, data)
        self.files.append(File(path, data))
        if context and kind == "raw":
            self.listed.add(fields["public_id"])
        if self.chance.random() < 0.3:
            await self._replay(fields, data)

    async def race(self) -> None:
        """Upload other bytes with one signature at once: exactly one upload is stored."""
        fields = self.sign()
        bodies = [self.bytes_() for _ in range(RACERS)]
        replies = await asyncio.gather(*(self.ask(self.request(fields, data)) for data in bodies))
        winners = [(reply, data) for reply, data in zip(replies, bodies, strict=True) if reply.verdict == "ok"]
        strange = {reply.verdict for reply in replies} - LOSERS - {"ok"}
        self.tally.expect(not strange, "losers without a definite refusal", strange)
        self.tally.expect(len(winners) == 1, "signatures without exactly one winner", fields["public_id"])
        self.used += sum(reply.verdict == "signature_used" for reply in replies)
        for reply, data in winners[:1]:
            if self.took(reply, data, fields):
                await self.read(self.path(fields), data)
                self.files.append(File(self.path(fields), data))

    async def refused(self) -> None:
        """Upload what the signature does not allow. It leaves nothing, and the right file can still be stored."""
        good, bad = self.bytes_(), self.bytes_() + b"bad"
        if self.chance.random() < 0.5:
            fields, expected = self.sign(max_bytes=str(len(bad) - 1)), "file_too_large"
            good = bad[:-1]
        else:
            fields, expected = self.sign(sha256=hashlib.sha256(good).hexdigest()), "content_mismatch"
        reply = await self.ask(self.request(fields, bad))
        self.tally.expect(reply.verdict == expected, "wrong refusals", f"{reply.verdict}, not {expected}")
        await self.read(self.path(fields), None)
        forged = {**fields, "public_id": self.name()}
        reply = await self.ask(self.request(forged, good))
        self.tally.expect(reply.verdict == "invalid_signature", "wrong refusals", f"{reply.verdict} of a forgery")
        self.absent.append(self.path(forged))
        if self.took(await self.ask(self.request(fields, good)), good, fields):
            self.files.append(File(self.path(fields), good))

    async def repeat(self) -> None:
        """Send one request with an Idempotency-Key several times at once: all get the same answer."""
        fields, data = self.sign(), self.bytes_()
        headers = {"Idempotency-Key": f'"{fields["public_id"]}"'}
        request = self.request(fields, data, headers=headers)
        replies = await asyncio.gather(*(self.ask(request) for _ in range(3)))
        good = [reply for reply in replies if reply.verdict == "ok"]
        told = f"{fields['public_id']}: {[reply.verdict for reply in replies]}"
        self.tally.expect(len({reply.body["asset_id"] for reply in good}) == 1, "repeats with other answers", told)
        strange = {reply.verdict for reply in replies} - {"ok", "signature_in_use"}
        self.tally.expect(not strange, "repeats with other answers", told)
        if good and self.took(good[0], data, fields):
            self.files.append(File(self.path(fields), data))

    async def series(self) -> None:
        """Upload a file in chunks or by tus. Some clients leave."""
        protocol: type[Resumable] = self.chance.choice((Chunked, Tus))
        server, data = self.fleet.first, self.bytes_(least=64)
        sender = protocol(server, self.ask, self.name(), data, self.chance)
        sender.leaves = self.chance.random() < LEAVERS
        await sender.run()
        if sender.leaves:
            self.left += 1
            self.tally.expect(not sender.refused, "uploads that were refused", sender.refused)
            return
        self.tally.expect(not sender.lost, "requests without a reply", f"{sender.public_id}: {sender.lost}")
        if sender.asset is None:
            self.tally.expect(False, "uploads that were refused", f"{sender.public_id}: {sender.refused}")
            return
        self.took(sender.asset, data, sender.signed[0])
        self.spent += len(sender.signed) - 1
        await self.read(sender.path, data)
        self.files.append(File(sender.path, data))
        await self._replay_series(sender)

    async def crowd(self) -> None:
        """Upload quickly beside many slow uploads, which share the memory."""
        slow = [(self.sign(), self.chance.randbytes(self.chance.choice(SLOW_BYTES))) for _ in range(CROWD)]
        requests = [self.request(fields, data, plain=True).whole for fields, data in slow]
        quick = [(self.sign(), self.chance.randbytes(QUICK_BYTES - number)) for number in range(QUICK)]
        async with AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(connected(self.fleet.dealt(each))) for each in range(CROWD)]
            await hold_back(lines, requests)
            await asyncio.sleep(0.1)
            first = await asyncio.gather(*(self.ask(self.request(*each, plain=True)) for each in quick))
            replies = [*first, *await release(lines, requests)]
        for reply, (fields, data) in zip(replies, [*quick, *slow], strict=True):
            if self.took(reply, data, fields):
                self.files.append(File(self.path(fields), data))
        await asyncio.gather(*(self.read(self.path(fields), data) for fields, data in quick))

    async def overwrite(self) -> None:
        """Replace an asset several times at once, beside readers. Each reader gets one whole file."""
        name, versions = self.name(), [self.bytes_() for _ in range(OVERWRITES)]
        signed = [self.sign(name, nonce=str(number)) for number in range(OVERWRITES)]
        path = self.path(signed[0])
        first = await self.ask(self.request(signed[0], versions[0]))
        requests = [self.request(*each) for each in zip(signed[1:], versions[1:], strict=True)]
        readers = asyncio.gather(*(self.read(path, *versions) for _ in range(READERS)))
        replies = [first, *await asyncio.gather(*map(self.ask, requests))]
        await readers
        for fields, data, reply in zip(signed, versions, replies, strict=True):
            self.took(reply, data, fields, lasts=False)
        last = await self.ask(self.getting(path))
        self.is_one_of(last, versions, path)
        if last.data in versions:
            self.receipts.append(replies[versions.index(last.data)].receipt(last.data))
            self.files.append(File(path, last.data))

    async def delete(self) -> None:
        """Delete an asset beside readers. Each reader gets the whole file, or nothing."""
        fields, data = self.sign(), self.bytes_()
        if not self.took(await self.ask(self.request(fields, data)), data, fields, lasts=False):
            return
        path, signed = self.path(fields), self.fleet.first.signed({"public_id": fields["public_id"]}, self.deleting)
        url = urlsplit(self.fleet.first.upload_url("raw")).path.replace("/upload", "/destroy")
        deletion = self.posted(url, urlencode(signed).encode(), "application/x-www-form-urlencoded")
        readers = asyncio.gather(*(self.read(path, data, None) for _ in range(READERS)))
        reply = await self.ask(deletion)
        await readers
        gone = reply.verdict == "ok" and reply.body["result"] == "ok"
        self.tally.expect(gone, "deletions that failed", f"{path}: {reply.verdict}")
        self.spent += 1
        self.absent.append(path)
        await self.read(path, None)
        await self._replay(fields, data)

    async def pipeline(self) -> None:
        """Send uploads and GETs on one connection without waiting for answers."""
        order: list[tuple[Request, bytes, Mapping[str, str] | None]] = []
        for _ in range(PIPELINED):
            if self.files and self.chance.random() < 0.5:
                file = self.chance.choice(self.files)
                order.append((self.getting(file.path), file.data, None))
            else:
                fields, data = self.sign(), self.bytes_()
                order.append((self.request(fields, data, plain=True), data, fields))
        async with connected(self.chance.choice(self.fleet.servers)) as connection:
            replies = await self.exchange(connection, *(request for request, *_ in order))
        for reply, (_, data, signed) in zip(replies, order, strict=True):
            if signed is None:
                self.is_one_of(reply, {data}, "pipelined GET")
            elif self.took(reply, data, signed):
                self.files.append(File(self.path(signed), data))

    async def flood(self) -> None:
        """Send more GETs than a connection may have. Those that get an answer get the right one."""
        if not self.files:
            return
        files = [self.chance.choice(self.files) for _ in range(FLOOD)]
        async with connected(self.chance.choice(self.fleet.servers)) as connection:
            replies = await self.exchange(connection, *(self.getting(file.path) for file in files))
        for file, reply in zip(files, replies, strict=True):
            if reply.status != LOST:
                self.is_one_of(reply, {file.data}, "GET of a flood")

    async def listings(self) -> None:
        """Page through the assets of a context, one client at a time. None is missing, none comes twice."""
        if self.listing:
            return
        self.listing = True
        before = set(self.listed)
        found = await self.pages(f"resources/raw/context?key={_LIST}&max_results={PAGE}", "resources", "public_id")
        self.tally.expect(before <= set(found), "listings that lack an asset", sorted(before - set(found)))
        self.tally.expect(len(found) == len(set(found)), "listings with an asset twice", len(found))
        self.listing = False

    async def stored_again(self) -> None:
        """Read any stored file, as a group of slow and fast readers."""
        if self.files:
            files = [self.chance.choice(self.files) for _ in range(READERS)]
            await asyncio.gather(*(self.read(file.path, file.data) for file in files))

    async def read_all(self, lanes: int) -> None:
        """Read all that is stored, and all that must not be."""
        pending = iter([*self.files, *((path, None) for path in self.absent)])

        async def lane() -> None:
            for path, data in pending:
                await self.read(path, data)

        await asyncio.gather(*(lane() for _ in range(lanes)))

    # Checks

    def took(self, reply: Reply, data: bytes, fields: Mapping[str, str], *, lasts: bool = True) -> bool:
        """Return whether the upload is stored. Its answer must describe the bytes that were sent.

        If it `lasts`, no later request of this client replaces or deletes the asset.
        """
        self.tally.expect(reply.verdict == "ok", "uploads that were refused", f"{fields['public_id']}: {reply.verdict}")
        if reply.verdict != "ok":
            return False
        right = (reply.body["etag"], reply.body["bytes"]) == (tag(data).strip('"'), len(data))
        self.tally.expect(right, "answers for other bytes", f"{fields['public_id']} of {len(data)} bytes")
        if lasts:
            self.receipts.append(reply.receipt(data))
        self.spent += 1
        self.tally.inside += self.under_way > 1
        self.tally.counts["uploads"] += 1
        self.tally.counts["bytes of uploads"] += len(data)
        return True

    async def _replay(self, fields: Mapping[str, str], data: bytes) -> None:
        for _ in range(self.chance.randrange(1, 5)):
            again = self.chance.choice((data, self.bytes_()))
            reply = await self.ask(self.request(fields, again))
            self.used += reply.verdict == "signature_used"
            told = f"{fields['public_id']}: {reply.verdict}"
            self.tally.expect(reply.verdict == "signature_used", "replays that were not refused", told)
            self.tally.counts["replays"] += 1
        await self._status(fields, "used")

    async def _replay_series(self, sender: Sender) -> None:
        replay, refusal = self.chance.choice(list(sender.replays()))
        reply = await self.ask(replay)
        self.used += reply.verdict == "signature_used"
        told = f"{sender.public_id}: {reply.verdict}, not {refusal}"
        self.tally.expect(reply.verdict == refusal, "replays that were not refused", told)
        await self._status(sender.signed[-1], "used")

    async def _status(self, fields: Mapping[str, str], expected: str) -> None:
        body = json.dumps(dict(fields)).encode()
        reply = await self.ask(self.admin("POST", "signatures/status", body))
        status = reply.body.get("status")
        self.tally.expect(status == expected, "wrong status of a signature", f"{fields}: {status}, not {expected}")
