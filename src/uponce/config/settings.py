"""Every setting, one row each: type, meaning, rule for its values, default. Limits are rows of core/policy.py."""

import platform
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

import msgspec

from uponce.config.rules import (
    AT_LEAST_1,
    BYTES,
    DATABASE,
    DAY,
    DAYS,
    FOLDER,
    MAYBE_SECONDS,
    NETWORKS,
    NOTED,
    OF_A_SERVICE,
    PROCESSES,
    SECONDS,
    SECRET,
    STORAGE,
    STORES,
    WEEK,
    ValueRule,
    between,
    either,
    http_url,
    is_base,
    is_url,
    matching,
    networks,
    one_of,
)
from uponce.core.policy import MOST_SECONDS, Limits


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an operator, with defaults. Sizes in bytes, times in seconds. The reference prints the texts."""

    data: Annotated[str, "Folder of the database, the media and the secret key.", FOLDER] = "./uponce-data"
    database: Annotated[
        str | None,
        "`sqlite:////path/to/file`, or `postgresql://user:password@host/database`. The default is `uponce.db` in the "
        "data folder.",
        DATABASE,
    ] = None
    database_connections: Annotated[
        int,
        "Maximum number of connections of one server process to PostgreSQL. One of them is for commits.",
        between(2, 10_000),
    ] = 8
    database_seconds: Annotated[
        int, "Seconds that PostgreSQL may take to connect, to run one statement or to give a lock.", OF_A_SERVICE
    ] = 5
    database_failover: Annotated[
        str,
        "What happens after PostgreSQL failed over or was restored. `fence` refuses all signatures made before, as "
        "`uponce fence` does. `trust` skips this. Use `trust` only with synchronous standbys, which miss no commit.",
        one_of("fence", "trust"),
    ] = "fence"
    storage: Annotated[
        str | None,
        f"{either(f'`{store}`' for store in STORES)}. The default is `media` in the data folder.",
        STORAGE,
    ] = None
    pack_bytes: Annotated[
        int,
        "The largest blob, in bytes, that goes into a pack: a file of many blobs in the folder `packs` of the storage, "
        "which stores a group of uploads with one fsync. Each larger blob is a file. With 0, every blob is a file. "
        "Buckets have no packs.",
        between(0, 1024 * 1024),  # a pack has room for 4 GiB, and a group 256 uploads
    ] = 256 * 1024
    storage_seconds: Annotated[
        int,
        "Seconds that one try of a request to the bucket may take, its bytes included. If a try fails sooner, it is "
        "repeated. All tries together take at most twice as long.",
        OF_A_SERVICE,
    ] = 30
    storage_uploads: Annotated[
        int,
        "Maximum number of files above 5 MiB that one server process sends to the bucket at a time. Each takes up to "
        "25 MiB of memory. As many smaller files have separate threads, and take up to 10 MiB each. Parts of one "
        "unfinished upload get at most a quarter of these threads, and at least one. They wait for each other.",
        PROCESSES,
    ] = 16
    storage_redirect: Annotated[
        int,
        "Seconds for which a delivery redirects to a presigned URL of the bucket. With 0, uponce sends the bytes. "
        "At most 604,800, which is a week.",
        between(0, WEEK),
    ] = 0
    storage_accel: Annotated[
        str,
        "Lets the nginx in front send the bytes, by `X-Accel-Redirect`. Set it to nginx's internal location, such as "
        "`/_blobs/`, for the folder `blobs` of the storage. When empty, uponce sends the bytes itself.",
        matching("(/|/.*/)?", "empty, or like /_blobs/"),
    ] = ""
    secret_key: Annotated[
        str | None,
        "Encrypts API secrets at rest: 64 hex digits. The default is the file `secret.key` in the data folder, which "
        "the first start makes.",
        SECRET,
    ] = None
    cloud: Annotated[
        str,
        "Name of the cloud (tenant) that the first start makes. `v1_1` and `tus` are taken. With `UPONCE_RELAY`, the "
        "default is the cloud name of the account.",
        NOTED,
    ] = "media"
    keys: Annotated[
        str | None,
        "API keys that must exist, separated by spaces or newlines: "
        "`cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload&window=3600&name=browser`. The part after `?` is "
        "optional. With `signature_algorithm=sha256` there, the key refuses SHA-1. Use this setting to keep a pair "
        "that a backend already signs with. With this setting the first start makes no other keys and prints no "
        "secret. No server starts if the setting has no key. A key that exists is never changed.",
        SECRET,
    ] = None
    keys_file: Annotated[
        str | None, "Path of a file that holds more such keys, one a line, such as a Docker or Kubernetes secret."
    ] = None
    relay: Annotated[
        str | None,
        "The account that uploads of the cloud `UPONCE_CLOUD` are passed on to: "
        "`cloudinary://KEY:SECRET@CLOUD?upload_prefix=https://api.cloudinary.com`. The part after `?` is optional. "
        "uponce then checks and spends each signature, and the account stores the media. The database keeps it: to end "
        "the relay, first replace the setting by `UPONCE_CLOUD=CLOUD`, then run `uponce clouds relay CLOUD --off`.",
        SECRET,
    ] = None
    relay_inspect: Annotated[
        str,
        "With `on`, a relay inspects each file before it passes the file on, as uponce does without a relay. With "
        "`off`, only the upstream inspects it.",
        one_of("off", "on"),
    ] = "off"
    relay_connections: Annotated[
        int,
        "Maximum number of uploads that one server process passes on to one upstream account at a time. It makes as "
        "many other calls there.",
        AT_LEAST_1,
    ] = 1000
    host: Annotated[
        str,
        "Address to listen on. `0.0.0.0` is every address of this machine.",
        ValueRule("an address of this machine, such as 127.0.0.1", bool),
    ] = "127.0.0.1"
    port: Annotated[int, "Port to listen on. 0 picks a free port.", between(0, 65535)] = 8000
    workers: Annotated[int, "Number of server processes.", PROCESSES] = 1
    drain_seconds: Annotated[
        int,
        "Seconds for which a server goes on serving after SIGTERM. `/readyz` answers 503 for this time.",
        MAYBE_SECONDS,
    ] = 0
    instance: Annotated[
        str | None, "Name of this server in its log and its metrics. The default is the machine's name."
    ] = None
    metrics_token: Annotated[
        str,
        "Opens `/metrics` to requests with `Authorization: Bearer TOKEN`. Use visible ASCII, such as the output of "
        "`openssl rand -hex 32`. When empty, `/metrics` does not exist and uponce counts nothing.",
        SECRET,
        matching("[!-~]*", "visible ASCII without spaces"),
    ] = ""
    public_url: Annotated[
        str | None,
        "Base of the URLs in answers. The default is the host that the client called. uponce needs a host name for "
        "itself: its pages do not work below a path.",
        ValueRule(
            "a URL like https://media.example or https://xn--bcher-kva.example, without a path",
            lambda url: url is None or is_base(url),
        ),
    ] = None
    notification_url: Annotated[
        str,
        "Where uponce posts the answer of each upload, unless the upload signs its own `notification_url`. Empty: "
        "nowhere. uponce posts no upload that a relay passes on, and none of the playground.",
        ValueRule("empty, or a URL like https://app.example/uploaded", lambda url: not url or is_url(url)),
    ] = ""
    notification_networks: Annotated[
        str,
        "Private addresses or networks to which uponce may post notifications, such as `10.0.0.7`. The signed "
        "`notification_url` of every cloud may then name them, with any port and path. Empty: public addresses only.",
        NETWORKS,
    ] = ""
    notification_days: Annotated[
        int, "Days for which uponce keeps a dead notification: no receiver accepted it for a day.", DAYS, NOTED
    ] = 30
    trusted_proxies: Annotated[
        str,
        "Addresses or networks of the proxies in front, such as `127.0.0.1, 10.0.0.0/8`. uponce takes a client's "
        "address and scheme from `X-Forwarded-For` and `X-Forwarded-Proto` of these proxies only. Empty: of none.",
        NETWORKS,
    ] = ""
    playground: Annotated[
        str,
        "The page `/playground`, on which people without a key upload to the cloud `playground`. `off`; `local` for "
        "browsers on this machine only; or `public` for every client that reaches this server. uponce refuses `local` "
        "beside `UPONCE_PUBLIC_URL`.",
        one_of("off", "local", "public"),
    ] = "off"
    playground_bytes: Annotated[int, "Maximum size of a file that the playground signs for, in bytes.", BYTES] = (
        100 * 1024 * 1024
    )
    playground_keep_bytes: Annotated[
        int, "Maximum size of all files that the playground keeps, in bytes. It deletes the oldest ones.", BYTES
    ] = 1024**3
    playground_keep_files: Annotated[
        int, "Maximum number of files that the playground keeps. It deletes the oldest ones.", AT_LEAST_1
    ] = 1_000
    playground_keep_seconds: Annotated[int, "Seconds after which the playground deletes a file.", SECONDS] = 3600
    window: Annotated[
        int, "Seconds that a signature of a new key lives: at most 604,800, which is a week.", between(1, WEEK)
    ] = 3600
    decoders: Annotated[int, "Number of decoder processes for each server process.", PROCESSES] = 2
    decoder_seconds: Annotated[
        int,
        "Seconds of processor time that a decoder may use for one file. The file may take five times as long in all.",
        SECONDS,
    ] = 2
    decoder_seconds_per_grant: Annotated[
        int,
        "Seconds of decoder time that one signature may use for files that decoders refuse or do not finish. Then the "
        "signature is refused. Of a signature of several uses, each address has its own seconds.",
        SECONDS,
    ] = 10
    decoder_memory: Annotated[
        int,
        "Bytes of memory that one decoder may use. A WebP of 100 megapixels needs 430 MiB, other files less.",
        BYTES,
    ] = 448 * 1024 * 1024
    sweep_seconds: Annotated[
        int,
        "Seconds between two purges, and between two sweeps, of a running server: at most 600. After longer pauses, "
        "`uponce fsck` would report expired rows of the ledger on PostgreSQL.",
        between(1, 600),
    ] = 300
    grace_seconds: Annotated[
        int,
        "Seconds for which a sweep spares unfinished uploads and orphans, and all orphans after a fence. At least 600, "
        "since a slow upload writes only now and then.",
        between(600, MOST_SECONDS),
        NOTED,
    ] = 7200
    audit_days: Annotated[
        int,
        "Days for which uponce keeps the audit. A purge deletes at most six hours of the audit, so a lower number "
        "takes effect within days.",
        DAYS,
        NOTED,
    ] = 90
    log_level: Annotated[
        str,
        "`debug`, `info`, `warning` or `error`. `info` logs one line for each upload, deletion and refusal; `debug` "
        "logs every request. `error` hides the warnings of a start too.",
        one_of("debug", "info", "warning", "error"),
    ] = "warning"
    log_format: Annotated[str, "`text`, or `json` for one JSON object a line.", one_of("text", "json")] = "text"
    limits: Limits = Limits()

    @property
    def data_dir(self) -> Path:
        return Path(self.data).absolute()

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return networks(self.trusted_proxies)

    @property
    def private_receivers(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return networks(self.notification_networks)

    @property
    def base_url(self) -> str:
        """Return the base of URLs that are made outside of a request, such as in notifications."""
        return (self.public_url or http_url(self.host, self.port)).rstrip("/")

    @property
    def audit_seconds(self) -> int:
        return self.audit_days * DAY

    @property
    def dead_seconds(self) -> int:
        return self.notification_days * DAY

    @property
    def server_name(self) -> str:
        return self.instance or platform.node()

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data_dir}/uponce.db"

    @property
    def storage_url(self) -> str:
        return self.storage or f"file://{self.data_dir}/media"

    @property
    def storage_folder(self) -> Path | None:
        """Return the folder that has the media, or None if they are in a bucket."""
        scheme, _, place = self.storage_url.partition(":")
        return Path(place.removeprefix("//")) if scheme.lower() == "file" else None
