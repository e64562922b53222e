"""API keys written as settings: `cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload&window=3600&name=browser`."""

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from uponce.config.settings import Settings
from uponce.config.sources import PREFIX
from uponce.core.errors import SettingRefused
from uponce.core.values import ApiKey, KeyScope, KeyUses


def preset_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """Return the keys of `keys` and `keys_file`. SettingRefused names the setting and never the secret."""
    found = _parsed_keys(settings.keys or "", settings.window, f"{PREFIX}KEYS")
    if settings.keys_file is None:
        return found
    source = f"{PREFIX}KEYS_FILE={settings.keys_file}"
    try:
        text = Path(settings.keys_file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingRefused(f"{source} cannot be read: {error}.") from error
    return found + _parsed_keys(text, settings.window, source)


def parse_key(url: str, window: int, source: str = "this line") -> ApiKey:
    """Return the key that `cloudinary://KEY:SECRET@CLOUD?uses=…&scope=…&window=…&name=…` describes.

    `window` is the default. The query may also have `upload_prefix`, which SDKs read. SettingRefused names `source`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    cloud = parts.netloc.rpartition("@")[2]  # `hostname` would lower its case
    if parts.scheme != "cloudinary" or not (parts.username and parts.password and cloud) or parts.path.strip("/"):
        raise SettingRefused(f"{source} must have keys like cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload.")
    options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    options.pop("upload_prefix", None)
    api_key = unquote(parts.username)
    unknown = sorted(options.keys() - {"uses", "scope", "window", "name"})
    if unknown:
        raise SettingRefused(
            f"{source}, key {api_key}: there is no option {unknown[0]}. Use uses, scope, window, name."
        )
    try:
        return ApiKey(
            api_key=api_key,
            cloud=cloud,
            secrets=(unquote(parts.password),),
            uses=KeyUses(options.get("uses", "once")),
            scope=KeyScope(options.get("scope", "upload")),
            window=int(options.get("window", window)),
            name=options.get("name", ""),
        )
    except ValueError:
        raise SettingRefused(
            f"{source}, key {api_key}: uses must be once or unlimited, scope upload or all, window a number of seconds."
        ) from None


def _parsed_keys(text: str, window: int, source: str) -> tuple[ApiKey, ...]:
    return tuple(parse_key(word, window, source) for word in text.split())
