"""The Database port for every engine. app/ports/ says what each method promises."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

from uponce.adapters.database import outbox, upkeep
from uponce.adapters.database.catalog import CatalogMethods
from uponce.adapters.database.commits import CommitMethods
from uponce.adapters.database.committer import Committer
from uponce.adapters.database.keys import KeyMethods, SecretBox
from uponce.adapters.database.ledger import LedgerMethods
from uponce.adapters.database.outbox import OutboxMethods
from uponce.adapters.database.relays import RelayMethods
from uponce.adapters.database.series import SeriesMethods
from uponce.adapters.database.upkeep import UpkeepMethods, in_batches
from uponce.app.ports import Fault, LateGroup
from uponce.core.first_failure import FirstFailure


class Database(
    KeyMethods,
    CommitMethods,
    LedgerMethods,
    CatalogMethods,
    SeriesMethods,
    RelayMethods,
    OutboxMethods,
    UpkeepMethods,
):
    """The base class of the engines. Each of its base classes has the methods that run the operations of one module."""

    _committer: Committer
    _slack = 0

    def __init__(self, secrets: SecretBox) -> None:
        self._secrets = secrets
        self.commit_arrival = self._committer.run_arrival

    def most_connections(self) -> int | None:
        """Return how many connections all servers together may have. Return None without a limit."""
        return None

    def seal_before_commits(self, late: LateGroup) -> bool:
        """Seal the group before each commit. If that fails, nothing of the transaction happens.

        Return False if this engine does not: then only bytes that are durable may come to it.
        """
        return False

    @abstractmethod
    async def integrity(self, *, deep: bool) -> Sequence[Fault]:
        """Return what Checks.integrity returns."""

    async def purge(self, audit_seconds: int | None, dead_seconds: int | None = None) -> int:
        failure, dropped = FirstFailure(), 0
        some = partial(in_batches, seconds=upkeep.MOST_SECONDS)  # no kind of rows keeps a purge from its later steps
        with failure.kept():
            await self._make_parts()
        with failure.kept():
            dropped += await self._drop_parts()
        with failure.kept():
            dropped += await some(lambda: self.write(upkeep.purge_grants(self._slack, upkeep.BATCH)))
        with failure.kept():
            await some(lambda: self.write(upkeep.purge_replies(self._slack, upkeep.BATCH)))
        if audit_seconds is not None:
            with failure.kept():
                end = await self.read(upkeep.end_of_purge("oldest_audit"))
                await some(lambda: self.write(upkeep.purge_audit(audit_seconds, end, upkeep.BATCH)))
        with failure.kept():
            await some(lambda: self.write(outbox.hasten_far(upkeep.BATCH)))
        if dead_seconds is not None:
            with failure.kept():
                last = await self.read(upkeep.end_of_purge("oldest_dead_effect"))
                await some(lambda: self.write(outbox.drop_old(dead_seconds, last, upkeep.BATCH)))
        failure.raise_it()
        return dropped

    async def _make_parts(self) -> None:
        """Make the coming partitions of the ledger, if the engine has partitions."""

    async def _drop_parts(self) -> int:
        """Drop whole partitions of the ledger, if the engine has them. Return the number of dropped rows."""
        return 0
