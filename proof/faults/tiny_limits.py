"""Starts `uponce` with tiny limits and buffers, so that small files cross each place where it changes its way of work.

    python -m proof.faults.tiny_limits MODULE COMMAND…

MODULE has the `main` to run: `uponce.cli`, or a broken variant of proof/faults/mutants/. Code has these numbers where
no setting reaches them. So the numbers are replaced in the source of each module while it is imported. Decoder
processes keep theirs, and so do parts of objects in a bucket: S3 takes no smaller ones.
"""

import ast
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

# Module, name and value. Most are odd: ends of one kind of block then are in the middle of other ones. The slack lets a
# purge forget every grant, long before it expires.
TABLE = """
web.receiving                       BLOCK_BYTES                      4003
web.receiving                       _MOST_BLOCKS                     6
web.receiving                       _AHEAD                           2
web.receiving                       _PIECES_BYTES                    4001
web.receiving                       _LEAST_PIECE                     301
web.receiving                       _SMALL                           memoryview(bytearray(1501))
web.connections                     _UNSENT_BYTES                    4096
web.protocol                        _MAX_PIPELINED                   4
web.protocol                        _WRITE_BUFFER_BYTES              1001
web.protocol                        _GATHER_SECONDS                  0.03
web.protocol                        _MOST_GATHERED_BYTES             9001
web.protocol                        _MOST_DROPPED_BYTES              2001
web.protocol                        HardenedProtocol.GETS_PER_TURN   2
web.discarding                      _NOWHERE                         bytearray(1009)
web.blocks                          _PIECE_BYTES                     251
web.blocks                          _WHOLE_BLOCKS                    3
web.blocks                          _MOST_BYTES                      5003
web.express                         _MOST_BYTES                      6007
web.express                         _MOST_KNOWN                      5
web.express                         _SMALL_BYTES                     1201
web.places                          PLACES                           2
web.app                             _MAX_REMEMBERED                  3
web.failures                        _MAX_ADDRESSES                   3
core.ranges                         MAX_RANGES                       2
app.attempts                        _REFUSALS_AT_ONCE                1
app.attempts                        _STEP                            11
app.unbroken                        _MOST_LATER                      2
app.uploading.intake                FORM_BYTES                       401
app.uploading.pipeline              _QUICKLY_HASHED                  1003
app.uploading.pipeline              _MOST_SEEN                       5
app.uploading.series                _PARTS                           2
app.uploading.series                _NOTE_SECONDS                    0.02
app.uploading.series                _LOOK_SECONDS                    0.02
app.uploading.series                _ABOUT_TO_HOLD_SECONDS           0.02
app.ports.database                  CONTEXT_WINDOW                   5
app.sweep                           _BATCH                           3
app.owner                           _SAMPLE                          3
app.fsck                            _MOST_SUSPECTS                   4
app.fsck                            _LISTED                          3
app.fsck                            _READ_AT_ONCE                    2
app.copy_media                      _AT_ONCE                         2
adapters.files                      BLOCK_BYTES                      2003
adapters.files                      _FIRST_BYTES                     1499
adapters.system                     _MAX_VECTOR                      3
adapters.system                     _DRAWN_BYTES                     64
adapters.spool.buffered             _LARGE                           2003
adapters.spool.disk                 _MOST_BUFFERED                   2003
adapters.spool.disk                 _LEAST_BUFFERED                  503
adapters.spool.disk                 _ALL_BUFFERED                    12007
adapters.spool.disk                 _QUICKLY_SYNCED                  3001
adapters.spool.disk                 WORKERS                          3
adapters.spool.disk                 LARGE_WORKERS                    2
adapters.spool.parts                _MOST                            3
adapters.spool.parts                _HASHED_AT_ONCE                  5003
adapters.store.blobs                _LIST_BATCH                      3
adapters.store.packs                PACK_BYTES                       40009
adapters.store.packs                _MOST_OPEN                       3
adapters.store.objects              _ASKERS                          3
adapters.store.objects              _FIRST_BYTES                     701
adapters.store.objects              _BLOCK_BYTES                     1709
adapters.store.parts                _READ_BYTES                      1301
adapters.store.bucket               _READ_BYTES                      3001
adapters.store.bucket               _LIST_BATCH                      5
adapters.media.sniff                SCAN_BYTES                       601
adapters.media.sniff                _MOSTLY_ENOUGH                   101
adapters.media.pool                 _JOBS_PER_PROCESS                25
adapters.media.pool                 _MOST_GRANTS                     3
adapters.media.turns                _MOST_NAMES                      3
adapters.database.upkeep            BATCH                            3
adapters.database.committer         _REMEMBERED_SECONDS              0.05
adapters.database.database          Database._slack                  -10_000
adapters.database.postgres          _SLACK_SECONDS                   -10_000
adapters.database.postgres.pool     MAX_GROUP                        3
adapters.database.postgres.pool     _MAX_WAVES                       2
adapters.database.sqlite.connection MAX_GROUP                        3
adapters.database.sqlite.connection COMMITS_PER_CHECKPOINT           7
adapters.database.sqlite.connection OPERATIONS_PER_CHECKPOINT        11
adapters.database.sqlite.file       LONG_LOG_PAGES                   30
adapters.database.sqlite.snapshot   _PAGES                           5
"""

SETTINGS = {
    "UPONCE_SMALL_BODY_BYTES": "2601",
    "UPONCE_PACK_BYTES": "1501",
    "UPONCE_MIN_CHUNK_BYTES": "1",
    "UPONCE_RECORD_BYTES": "2503",
    "UPONCE_REFUSALS_PER_GRANT": "2",
    "UPONCE_WAITING_PER_SERIES": "2",
    "UPONCE_MAX_UNVERIFIED_UPLOADS": "2",
    "UPONCE_MAX_UNVERIFIED_PER_ADDRESS": "1",
    "UPONCE_DATABASE_CONNECTIONS": "2",
    "UPONCE_STORAGE_UPLOADS": "2",
}

_VARIABLE = "TINY_LIMITS_OF"  # names the program for worker processes


def tiny() -> dict[str, dict[str, str]]:
    """Return the new values by module and name, as they are in source code."""
    values: dict[str, dict[str, str]] = {}
    for module, name, value in (line.split(maxsplit=2) for line in TABLE.strip().splitlines()):
        values.setdefault(f"uponce.{module}", {})[name] = value
    return values


def sizes() -> list[int]:
    """Return the numbers of bytes among all values: where the ways of a server part."""
    texts = [*(value for values in tiny().values() for value in values.values()), *SETTINGS.values()]
    return sorted({int(text) for text in texts if text.isdigit() and int(text) > 100})


def shrunk(source: bytes, values: Mapping[str, str]) -> ast.Module:
    """Return the module with these values. Raise LookupError unless it assigns each name exactly once."""
    tree = ast.parse(source)
    for name, value in values.items():
        (*owner, word) = name.split(".")
        places = [*_assignments(_body(tree, owner), word)]
        if len(places) != 1:
            raise LookupError(f"{name} is assigned {len(places)} times")
        places[0].value = ast.copy_location(ast.parse(value, mode="eval").body, places[0])
    return ast.fix_missing_locations(tree)


def _body(tree: ast.Module, owner: Sequence[str]) -> list[ast.stmt]:
    return next((each.body for each in tree.body if isinstance(each, ast.ClassDef) and [each.name] == owner), tree.body)


def _assignments(body: Sequence[ast.stmt], word: str) -> "list[ast.Assign | ast.AnnAssign]":
    return [
        each
        for each in body
        if (isinstance(each, ast.Assign) and any(isinstance(t, ast.Name) and t.id == word for t in each.targets))
        or (isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.target.id == word)
    ]


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Return the code with the new values. It is not kept: other programs share the folder of the bytecode."""
        return compile(shrunk(self.get_data(self.path), tiny()[fullname]), self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in tiny() else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def _program() -> Callable[[], None]:
    """Return the `main` of the program, all of whose modules have the new values from now on."""
    sys.meta_path.insert(0, _Finder())
    program: Callable[[], None] = import_module(os.environ[_VARIABLE]).main
    return program


if __name__ == "__mp_main__":
    _program()

if __name__ == "__main__":
    os.environ[_VARIABLE] = sys.argv.pop(1)
    _program()()
