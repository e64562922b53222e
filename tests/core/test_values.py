"""What the plain values know about themselves."""

from uponce.core.values import Grant, Payer


def test_work_is_charged_to_the_grant_its_key_and_its_address() -> None:
    grant = Grant(b"\x01\xff", "demo", "111", 1000, 1, 2000)
    assert Payer.of(grant, "192.0.2.1") == Payer("01ff", "111", "192.0.2.1")
