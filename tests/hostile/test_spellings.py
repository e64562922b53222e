"""One grant in any pair of spellings, in turn or at once, makes one asset. Under a key without a limit it makes two."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from proof.faults.audit import count
from proof.faults.control import seeded, until_red
from proof.faults.tally import Tally
from tests import samples
from tests.e2e.commands import beside, printed
from tests.hostile.frame import PICTURE
from tests.hostile.spellings import WAYS, Grant, Reply, Spelling, fresh, spellings
from tests.server import Key, Server

OTHER = samples.png(8, 64, 64)
RACERS = 12
ROUNDS = 25
EVERY = spellings()
PLAIN = EVERY[0]

SETTINGS = {"UPONCE_ATTEMPTS_PER_GRANT": str(RACERS)}


def in_turn(server: Server, key: Key, *pair: Spelling) -> list[Reply]:
    """The same grant in one spelling after the other, each with its own picture."""
    grant = fresh(key, time.time())
    return [spelling.send(server, grant, data) for spelling, data in zip(pair, (PICTURE, OTHER), strict=True)]


def once(server: Server, first: Spelling, second: Spelling) -> None:
    before = count(server.data_dir, "assets")
    stored, refused = in_turn(server, server.browser, first, second)
    assert stored.stored, (first.name, stored)
    assert (refused.status, refused.code) == (400, "signature_used"), (first.name, second.name, refused)
    assert count(server.data_dir, "assets") == before + 1


@pytest.mark.parametrize("spelling", EVERY, ids=lambda spelling: spelling.name)
def test_a_spelling_is_the_same_grant_as_the_plain_one(server: Server, spelling: Spelling) -> None:
    once(server, PLAIN, spelling)
    once(server, spelling, PLAIN)


@pytest.mark.parametrize("spelling", EVERY, ids=lambda spelling: spelling.name)
def test_a_key_without_a_limit_makes_two(server: Server, spelling: Spelling) -> None:
    """The control: what refuses the second one is the use, not the spelling."""
    before = count(server.data_dir, "assets")
    assert all(reply.stored for reply in in_turn(server, server.server, PLAIN, spelling))
    assert count(server.data_dir, "assets") == before + 2


@pytest.mark.proof
def test_every_pair_of_spellings_makes_one(server: Server) -> None:
    for first, second in itertools.product(EVERY, repeat=2):
        once(server, first, second)


def race(server: Server, key: Key, chance: random.Random) -> Counter[str]:
    """Different spellings of one grant, all sent in the same moment: how often each was answered."""
    grant, ready = fresh(key, time.time()), Barrier(RACERS)

    def run(racer: int, spelling: Spelling) -> Reply:
        data = samples.png(racer + 20, 16, 16)
        ready.wait(30)
        return spelling.send(server, grant, data)

    with ThreadPoolExecutor(RACERS) as pool:
        replies = list(pool.map(run, range(RACERS), chance.sample(EVERY, RACERS)))
    return Counter("stored" if reply.stored else reply.code or str(reply.status) for reply in replies)


DEFINITE = {"stored", "signature_used", "signature_in_use", "series_gone"}  # gone: the winner ended the series


@pytest.mark.proof
def test_of_racers_in_different_spellings_one_wins(server: Server) -> None:
    chance = random.Random(20_261_126)
    for number in range(ROUNDS):
        before = count(server.data_dir, "assets")
        told = race(server, server.browser, chance)
        assert told["stored"] == 1, (number, told)
        assert told.keys() <= DEFINITE, (number, told)
        assert count(server.data_dir, "assets") == before + 1


@pytest.mark.proof
def test_the_race_goes_red_with_a_key_without_a_limit(server: Server) -> None:
    tally = Tally()

    def attempt(chance: random.Random) -> int:
        return race(server, server.server, chance)["stored"] - 1

    until_red(tally, "assets too many of a key without a limit", seeded(random.Random(1), attempt))
    assert tally.controls.total() > 0


@pytest.fixture(scope="module")
def v1_key(server: Server) -> Key:
    """A key that also takes signatures of version 1, in which one value can pose as several parameters."""
    text = printed(beside(server, "keys", "create", "--name", "v1", "--allow-v1"))
    key, secret = text.partition("cloudinary://")[2].partition("@")[0].split(":")
    return Key(key, secret)


@pytest.mark.parametrize("first_reading", [0, 1])
def test_two_readings_of_one_v1_string_make_one(server: Server, v1_key: Key, first_reading: int) -> None:
    """`public_id=a&tags=b` signs like a public_id `a` and a tag `b`."""
    smuggled = fresh(v1_key, time.time(), public_id=f"a{first_reading}&tags=b c,a+é")
    whole = {name: value for name, value in smuggled.params.items() if name != "tags"}
    apart = {**smuggled.params, "public_id": f"a{first_reading}"}
    readings = [Grant(whole, v1_key), Grant(apart, v1_key)]
    assert readings[0].string(1) == readings[1].string(1)
    told = []
    for grant in readings if first_reading == 0 else readings[::-1]:
        pairs = [*grant.params.items(), ("signature", grant.digest(version=1)), ("api_key", v1_key.key)]
        told.append(WAYS["form"](server, pairs, PICTURE))
    assert sum(reply.stored for reply in told) == 1, told
    assert all(reply.stored or reply.status in (400, 401) for reply in told)


ALTERED = {
    "another boolean": {"overwrite": "true"},
    "another number": {"overwrite": "01"},
    "another order of the list": {"tags": "a+é,b c"},
    "a space more": {"context": "k=v:w "},
    "composed otherwise": {"tags": "b c,a+e\u0301"},
    "upper case": {"context": "K=v:w"},
    "a parameter more": {"folder": "x"},
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED.keys())
def test_what_signs_differently_is_no_spelling(server: Server, change: dict[str, str]) -> None:
    """An altered request is refused, spends nothing, and leaves the grant to its holder."""
    grant = fresh(server.browser, time.time(), overwrite="1")
    forged = dict(grant.pairs()) | change
    for way in ("form", "PUT", "tus, with the creation"):
        reply = WAYS[way](server, list(forged.items()), PICTURE)
        assert (reply.status, reply.code) == (401, "invalid_signature"), (way, reply)
    assert PLAIN.send(server, grant, PICTURE).stored


@pytest.mark.parametrize("hex_", [str.upper, lambda digest: digest[:20].upper() + digest[20:]], ids=["upper", "mixed"])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_signature_is_written_in_lower_case(server: Server, algorithm: str, hex_: Callable[[str], str]) -> None:
    """As every SDK writes it. Another case is refused and spends nothing."""
    drawn = (fresh(server.browser, time.time()) for _ in itertools.count())
    grant = next(each for each in drawn if hex_(each.digest(algorithm)) != each.digest(algorithm))  # it has a letter
    pairs = [(name, hex_(value) if name == "signature" else value) for name, value in grant.pairs(algorithm)]
    for way in ("form", "PUT", "tus, with the creation"):
        assert WAYS[way](server, pairs, PICTURE).status in (400, 401), way
    assert PLAIN.send(server, grant, PICTURE).stored
