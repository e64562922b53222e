"""The one table from errors to HTTP statuses, and where the protocol tus differs from it.

SDKs read the bodies of 200, 400, 401, 404, 420 and 500 only: npm's uploader hides all others, and treats 429 as rate
limiting. So every refusal that a person has to read is 400, 401 or 404, except those that only tus clients receive.
"""

from uponce.core import errors
from uponce.core.errors import UponceError

TUS_ONLY: dict[type[UponceError], int] = {
    errors.OffsetConflict: 409,
    errors.ChecksumMismatch: 460,
    errors.SeriesComplete: 409,
    errors.SeriesExpired: 410,
    errors.UnsupportedVersion: 412,
    errors.UnsupportedContentType: 415,
}

STATUS: dict[type[UponceError], int] = {
    errors.SignatureUsed: 400,
    errors.SignatureInUse: 400,
    errors.SignatureRevoked: 400,
    errors.StaleRequest: 400,
    errors.FutureTimestamp: 400,
    errors.IdempotencyKeyReused: 400,
    errors.UnknownCloud: 401,
    errors.UnknownApiKey: 401,
    errors.InvalidSignature: 401,
    errors.BadCredentials: 401,
    errors.BadToken: 401,
    errors.ScopeDenied: 401,
    errors.OriginMismatch: 400,
    errors.DeliveryDenied: 401,
    errors.TooManyFailures: 429,
    errors.MissingParameter: 400,
    errors.InvalidParameter: 400,
    errors.DuplicateParameter: 400,
    errors.LateParameter: 400,
    errors.UnknownParameter: 400,
    errors.UnsupportedParameter: 400,
    errors.FileTooLarge: 400,
    errors.EmptyFile: 400,
    errors.InvalidMedia: 400,
    errors.MediaTooLarge: 400,
    errors.FormatNotAllowed: 400,
    errors.ContentMismatch: 400,
    errors.ChunkConflict: 400,
    errors.ChunkTooSmall: 400,
    errors.ChunkInProgress: 400,
    errors.ChunkSuperseded: 400,
    errors.TooManySeries: 400,
    errors.SeriesGone: 404,
    errors.MalformedRequest: 400,
    errors.RequestTooSlow: 400,
    errors.NotFound: 404,
    errors.UnsupportedCall: 400,
    errors.RangeNotSatisfiable: 416,
    errors.DatabaseUnavailable: 503,
    errors.OutcomeUnknown: 503,
    errors.StorageUnavailable: 503,
    errors.StorageFull: 507,
    errors.BlobCondemned: 503,
    errors.ServerBusy: 503,
    errors.SettingRefused: 500,
    **TUS_ONLY,
}


# tus clients ask for the offset and go on after 409, 423 and 5xx. They stop after any other 4xx.
TUS_STATUS: dict[type[UponceError], int] = {
    errors.ChunkInProgress: 423,
    errors.FileTooLarge: 413,
    errors.RequestTooSlow: 409,
    errors.TooManySeries: 429,
}


def status_of(error: UponceError) -> int:
    return STATUS[type(error)]


def tus_status_of(error: UponceError) -> int:
    return TUS_STATUS.get(type(error), status_of(error))
