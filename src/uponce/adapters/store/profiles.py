"""Credentials of a profile in ~/.aws, by boto3: keys, roles, single sign-on, whatever a profile can say."""

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from uponce.core.errors import SettingRefused

if TYPE_CHECKING:
    from obstore.auth.boto3 import Boto3CredentialProvider

VARIABLE = "AWS_PROFILE"
# What botocore gives is good for ten minutes at least: it renews by then. obstore's own half-hour would outlive it.
_ASKED_AGAIN = timedelta(minutes=5)


def credentials_of_profile() -> "Boto3CredentialProvider | None":
    """What the profile that AWS_PROFILE names gives, asked again before it runs out; None where it names none.

    obstore itself reads no profiles. SettingRefused when there is no such profile, or it gives no credentials.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise SettingRefused(f"{VARIABLE}={name} needs boto3. Install it: pip install 'uponce[aws]'.") from None
    try:
        provider = Boto3CredentialProvider(ttl=_ASKED_AGAIN)
        provider()
    except (BotoCoreError, ClientError, ValueError, AssertionError) as error:
        raise SettingRefused(
            f"{VARIABLE}={name} gives no credentials: {error}. Check the profile in ~/.aws, or unset {VARIABLE}."
        ) from error
    return provider
