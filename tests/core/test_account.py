"""`cloudinary://…` as it is read and written: the same account on both ways, and no secret in an error."""

import pytest

from uponce.core.account import Account, account_url, read_account


@pytest.mark.parametrize(
    "account",
    [
        Account("123", "secret", "Demo", {}),
        Account("a/b:c@d", "e/f:g@h?i#j%k", "demo", {"upload_prefix": "http://[::1]:8000/below", "name": "x"}),
        Account("1", "secret", "demo", {"upload_prefix": "https://h/a+b%2Fc d", "name": "é&#=%"}),
    ],
)
def test_what_is_written_is_read_again(account: Account) -> None:
    url = account_url(account.api_key, account.secret, account.cloud, **account.options)
    assert read_account(url) == account
    without = account_url(account.api_key, "", account.cloud, **account.options)
    assert read_account(without, account.secret) == account
    assert account.secret not in repr(account)


def test_the_last_of_equal_options_counts_and_an_empty_one_is_one() -> None:
    account = read_account(" cloudinary://1:s@c/?window=1&window=2&name=&upload_prefix=https://h// \n")
    assert account.options == {"window": "2", "name": "", "upload_prefix": "https://h//"}
    assert account.base == "https://h"
    assert read_account("cloudinary://1:s@c").base == ""
    assert read_account("cloudinary://1:s@c?upload_prefix=https://hX").base == "https://hX"
    assert read_account("cloudinary://1:s@x@c") == Account("1", "s@x", "c", {})


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("cloudinary://1:topsecret@[c", "it cannot be read"),
        ("https://1:topsecret@c", "it has another form"),
        ("cloudinary://1:topsecret@c/folder", "it has another form"),
        ("cloudinary://1:topsecret@c/X", "it has another form"),
        ("cloudinary://:topsecret@c", "it has another form"),
        ("cloudinary://1:topsecret@", "it has another form"),
        ("cloudinary://1@c", "it has no secret"),
        ("cloudinary://1:@c", "it has no secret"),
    ],
)
def test_a_wrong_url_is_refused_without_its_secret(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"^{fault}$"):
        read_account(url)
