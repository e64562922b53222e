"""A launcher of `uponce` that writes a part as soon as no other request writes, also if the upload has ended."""

from uponce.app.services import Services
from uponce.app.uploading import chunks as upload_chunk
from uponce.app.uploading import resumable
from uponce.app.uploading import series as use_case
from uponce.app.uploading.series import Append
from uponce.cli import main
from uponce.core.series import Chunk, Series


async def append(services: Services, series: Series, chunk: Chunk) -> Append:
    piece = await use_case._take_over(
        services,
        series,
        chunk.span,
        lambda: services.blobs.parts.hold(series.blob_key, chunk.span),
        services.limits.takeover_seconds,
    )
    piece.expect(series.spans)
    return Append(services, series, chunk, piece)


# At import, not under the guard: worker processes import this file and never run it.
upload_chunk.append = append  # type: ignore[attr-defined]
resumable.append = append  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
