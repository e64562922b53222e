"""What the plain values know about themselves."""

from dataclasses import replace

from uponce.core.values import Grant, Payer


def test_work_is_charged_to_the_grant_its_key_and_its_address() -> None:
    grant = Grant(b"\x01\xff", "demo", "111", 1000, 1, 2000)
    payer = Payer.of(grant, "192.0.2.1")
    assert payer == Payer("01ff", "111", "192.0.2.1")
    assert payer.holder == "01ff"
    assert Payer(api_key="111", address="A", sharer="A").holder == ""


def test_the_holders_of_a_grant_of_several_uses_pay_apart() -> None:
    """Else the files of one of them would have the files of all others refused."""
    grant = Grant(b"\x01\xff", "demo", "111", 1000, 2, 2000)
    payers = [
        Payer.of(each, address) for each in (grant, replace(grant, key=b"\x02\xff")) for address in ("A", "B", "A")
    ]
    assert [payer.grant for payer in payers] == ["01ff"] * 3 + ["02ff"] * 3
    assert len({payer.holder for payer in payers}) == 4
    assert len({Payer.of(replace(grant, max_uses=1), address).holder for address in "AB"}) == 1
