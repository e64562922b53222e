"""One upload in one process whose system calls fail: it prints `ok` or the code of its error, and is gone.

    python -m proof.faults.failing_upload DATA_DIR FIELDS_AS_JSON SIZE [MOST]

The answer is the last thing that happens, so that every fault came before it. With MOST the kernel takes no more
than so many bytes at a time.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from proof.faults.one_upload import NumberedIds, send, services_of
from proof.faults.operator import settings
from uponce.core.errors import UponceError
from uponce.wiring import opened


def content(size: int) -> bytes:
    return (b"bytes that can be told apart by their place: %d." % size * (size // 40 + 1))[:size]


def answer(data_dir: Path, fields: dict[str, str], data: bytes) -> None:
    with opened(settings(data_dir)) as backend:
        try:
            asyncio.run(send(services_of(backend, NumberedIds()), backend.settings.cloud, fields, data))
        except UponceError as error:
            _leave(error.code)
        _leave("ok")


def _leave(outcome: str) -> None:
    print(outcome, flush=True)
    os._exit(0)


def _write_little(most: int) -> None:
    real = os.writev

    def writev(descriptor: int, buffers: Sequence[memoryview]) -> int:
        return real(descriptor, [buffers[0][:most]])

    os.writev = writev  # type: ignore[assignment]


def main(data_dir: str, fields: str, size: str, most: str = "") -> None:
    if most:
        _write_little(int(most))
    try:
        answer(Path(data_dir), json.loads(fields), content(int(size)))
    except UponceError as error:
        _leave(error.code)


if __name__ == "__main__":
    main(*sys.argv[1:])
