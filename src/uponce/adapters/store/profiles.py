"""Credentials of a profile in ~/.aws, by boto3: keys, roles, single sign-on, and every other kind."""

import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from uponce.core.errors import SettingRefused

if TYPE_CHECKING:
    from obstore.auth.boto3 import Boto3CredentialProvider

VARIABLE = "AWS_PROFILE"
# Credentials from botocore work for at least ten minutes: it renews them before. obstore's own half-hour is too long.
_ASKED_AGAIN = timedelta(minutes=5)


def credentials_of_profile() -> "Boto3CredentialProvider | None":
    """Return the credentials of the profile in AWS_PROFILE, or None if the variable is not set.

    They are renewed before they expire. obstore itself reads no profiles. Raise SettingRefused if the profile does not
    exist, or has no credentials.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        install = f"{sys.executable} -m pip install boto3"
        raise SettingRefused(f"{VARIABLE}={name} needs boto3. Run: {install}") from None
    try:
        provider = Boto3CredentialProvider(ttl=_ASKED_AGAIN)
        provider()
    except (BotoCoreError, ClientError, ValueError, AssertionError) as error:
        raise SettingRefused(
            f"{VARIABLE}={name} gives no credentials: {error}. Check the profile in ~/.aws, or unset {VARIABLE}."
        ) from error
    return provider
