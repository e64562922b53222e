"""Which database replaced which."""

from uponce.core.lineage import follows, heir, left


def test_a_database_follows_those_that_it_took_over_from() -> None:
    second = heir("second", "first")
    third = heir("third", second)
    assert follows("first", "first")
    assert follows(third, "first")
    assert follows(third, second)


def test_no_former_one_and_no_other_heir_follows() -> None:
    second, other = heir("second", "first"), heir("other", "first")
    assert not follows("first", second)
    assert not follows(other, second)
    assert not follows(heir("third", other), second)
    assert not follows(second, "sec")
    assert not follows(second, "")


def test_a_name_stays_short() -> None:
    name = "0"
    for number in range(1, 100):
        name = heir(str(number), name)
    assert follows(name, "36")
    assert not follows(name, "35")


def test_the_owner_of_a_storage_that_was_left_names_the_database_that_left_it() -> None:
    assert left(heir("third", heir("second", "first"))) == "left-third"


def test_no_database_follows_the_owner_of_a_storage_that_one_has_left() -> None:
    name = heir("second", "first")
    taken = heir("third", left(name))  # by a fence of a database whose other storage is lost
    assert not any(follows(each, left(name)) for each in (name, heir("third", name), left(name), taken))
    assert follows(taken, taken)
