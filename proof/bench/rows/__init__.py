"""All rows, in the order of the report."""

from proof.bench.row import Row
from proof.bench.rows import delivery, filled, large, latency, parts, relay, replays, shared, start, uploads

ROWS: tuple[Row, ...] = (
    uploads.P1,
    large.P2,
    replays.P3,
    uploads.P4,
    filled.P5,
    delivery.P6,
    latency.P7,
    start.P8,
    parts.P9,
    relay.P10,
    uploads.P11,
    shared.P12,
)
