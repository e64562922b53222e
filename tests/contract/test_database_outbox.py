"""What any Database must do, run on every back end: servers share the effects that are due, and so do receivers."""

import asyncio
from dataclasses import replace

from tests.contract.databases import START, Backend, claim, grant, relay, run
from tests.contract.test_database_effects import NOTIFY, leave
from tests.contract.test_database_relays import begun
from uponce.app.ports import Database

A, B = grant("a"), grant("b")


def receivers(database: Database, after: str = "", most: int = 10, name: str = NOTIFY) -> list[str]:
    return list(run(database.list_receivers(name, after, most)))


def test_the_receivers_of_due_effects_have_turns(backend: Backend, database: Database) -> None:
    leave(database, "b", "a", "B:81", "c", "a", "a")
    assert receivers(database) == receivers(database, "c") == receivers(database, "d") == ["B:81", "a", "b", "c"]
    assert receivers(database, "a") == ["b", "c", "B:81", "a"]
    assert receivers(database, "a", 1) == ["b"]
    assert receivers(database, "a", 3) == ["b", "c", "B:81"]
    assert receivers(database, name="relay") == []
    run(claim(database, NOTIFY, 1))  # one of each
    assert receivers(database) == ["a"]
    backend.clock.time += 60
    assert receivers(database) == ["B:81", "a", "b", "c"]
    for effect in run(claim(database, NOTIFY)):
        run(database.postpone_effect(effect, 0, "gone", dead=True))
    assert receivers(database) == []
    run(begun(database, relay(B), seconds=0))
    assert (receivers(database), receivers(database, name="relay")) == ([], ["demo"])
    passed_on = relay(A, id="a")
    run(begun(database, replace(passed_on, target=replace(passed_on.target, account="account")), seconds=0))
    assert receivers(database, name="relay") == ["account", "demo"]


def test_each_receiver_gets_its_share_oldest_first(backend: Backend, database: Database) -> None:
    for each in ("a", "b", "a", "c", "a"):
        leave(database, each)
        backend.clock.time += 1
    got = run(database.claim_effects(NOTIFY, {"b": 2, "a": 2, "d": 1}, 60))
    assert [(effect.id, effect.receiver, effect.waited, effect.tries) for effect in got] == [
        (2, "b", 4, 1),
        (1, "a", 5, 1),
        (3, "a", 3, 1),
    ]
    assert [effect.id for effect in run(database.claim_effects(NOTIFY, {"a": 2, "b": 2}, 60))] == [5]


def test_an_effect_is_claimed_once_and_again_after_its_lease(backend: Backend, database: Database) -> None:
    other = backend.server()
    run(begun(database, relay(A), seconds=60))
    assert run(claim(database, "relay", 10, 120)) == []
    backend.clock.time += 60
    (effect,) = run(claim(database, "relay", 10, 120))
    assert (effect.name, effect.subject, effect.tries, effect.now) == ("relay", relay(A).id, 1, START + 60)
    assert run(claim(other, "relay", 10, 120)) == []
    backend.clock.time += 120
    (again,) = run(claim(other, "relay", 10, 120))
    assert (again.id, again.tries) == (effect.id, 2)
    run(other.postpone_effect(again, 300, "no answer"))
    (listed,) = run(database.list_effects(10))
    assert (listed.error, listed.due_at, listed.dead) == ("no answer", START + 180 + 300, False)
    run(database.hasten_effect(effect.subject))
    (third,) = run(claim(database, "relay", 10, 120))
    run(database.postpone_effect(third, 300))
    found = run(database.find_effect(effect.id))
    assert found is not None
    assert (found.error, found.due_at) == ("", START + 180 + 300)
    run(database.finish_effect(effect.id))
    assert (run(database.list_effects(10)), run(database.find_effect(effect.id))) == ([], None)


def test_a_dead_effect_waits_for_an_operator(backend: Backend, database: Database) -> None:
    run(begun(database, relay(A), seconds=0))
    (effect,) = run(claim(database, "relay", 10, 120))
    run(database.postpone_effect(effect, 0, "given up", dead=True))
    backend.clock.time += 9999
    run(database.hasten_effect(effect.subject))
    assert run(claim(database, "relay", 10, 120)) == []
    assert [each.dead for each in run(database.list_effects(10))] == [True]
    assert run(database.retry_effects(effect.id + 1)) == 0
    assert run(database.retry_effects()) == 1
    assert [each.id for each in run(claim(database, "relay", 10, 120))] == [effect.id]
    assert run(database.retry_effects(effect.id)) == 1


def test_servers_share_what_is_due(backend: Backend, database: Database) -> None:
    servers = [database, backend.server()]
    leave(database, *"ab" * 15)

    async def play() -> None:
        claimed = await asyncio.gather(*(claim(servers[number % 2], NOTIFY, 2) for number in range(12)))
        ids = [effect.id for batch in claimed for effect in batch]
        assert len(ids) == len(set(ids))
        while more := await claim(database, NOTIFY, 2):
            ids += [effect.id for effect in more]
        assert len(ids) == len(set(ids)) == 30

    run(play())
