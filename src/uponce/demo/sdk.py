"""The official `cloudinary` SDK, unmodified. It is an optional dependency, so it is imported on first use."""

import importlib.metadata
import importlib.util
import io
import os
import sys
from collections.abc import Mapping
from typing import Any

from uponce.core.account import Account

HOW_TO_INSTALL = (
    "The demo signs with Cloudinary's Python SDK, which is not installed here. "
    f"Run: {sys.executable} -m pip install 'cloudinary>=1.46.3'"
)


def installed() -> bool:
    return importlib.util.find_spec("cloudinary") is not None


def version() -> str:
    return importlib.metadata.version("cloudinary")


def sign(params: Mapping[str, str], secret: str) -> str:
    _forget_real_account()
    from cloudinary.utils import api_sign_request

    return str(api_sign_request(dict(params), secret))


def upload(data: bytes, key: Account, url: str, **options: Any) -> dict[str, Any]:
    """Upload a stream by `cloudinary.uploader.upload`, as code on a server does, and return the answer."""
    _forget_real_account()
    from cloudinary.uploader import upload

    account = {"cloud_name": key.cloud, "api_key": key.api_key, "api_secret": key.secret, "upload_prefix": url}
    answer: dict[str, Any] = upload(io.BytesIO(data), **account, **options)
    return answer


def _forget_real_account() -> None:
    """Remove Cloudinary's variables from the environment: the SDK reads them, and they may name the user's account."""
    for name in [name for name in os.environ if name.startswith("CLOUDINARY_")]:
        del os.environ[name]
