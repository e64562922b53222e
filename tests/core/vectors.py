"""Signatures as the official SDKs compute them: Python 1.46.3, checked with Node 2.11.0 and 2.1.0."""

from dataclasses import dataclass

SECRET = "abcd"
_TS = ("timestamp", "1700000000")


@dataclass(frozen=True, slots=True)
class Vector:
    """Form fields, and the hex digests and string that they must give; None where the SDKs' is not recorded."""

    id: str
    fields: tuple[tuple[str, str], ...]
    sha1: str | None = None
    sha256: str | None = None
    string: str | None = None
    version: int = 2


_SMUGGLING = (("public_id", "a&tags=evil"), ("notification_url", "https://h.example/cb?x=1&y=2"), _TS)
_RENAME = (("from_public_id", "a"), ("to_public_id", "b"), _TS)
_URLS = (("mode", "download"), _TS, ("urls[]", "http://x/a.png?x=1&y=2"), ("urls[]", "http://x/b.png"))

VECTORS = (
    Vector(
        "V1 documentation sample",
        (
            ("eager", "w_400,h_300,c_pad|w_260,h_200,c_crop"),
            ("public_id", "sample_image"),
            ("timestamp", "1315060510"),
        ),
        "bfd09f95f331f558cbd1320e67aa8d488770583e",
        "cc927e1290f9e3ae4c1a741eda21a4630b4ce80f9ce0bc0296337d25cf40f91e",
        "eager=w_400,h_300,c_pad|w_260,h_200,c_crop&public_id=sample_image&timestamp=1315060510",
    ),
    Vector(
        "V2 timestamp only",
        (_TS,),
        "565e337b7f63b66286d82fccb51ae468584c7d5d",
        "29886ed878035abc09e29f7e8ce19b01d9f3caa3ad0851d5d5c2aaa5ab812369",
    ),
    Vector(
        "V3 typical",
        (("folder", "a/b"), ("overwrite", "1"), ("public_id", "p1"), ("tags", "x,y"), _TS),
        "6477b97c4ab418e827126ae2cd06301e09df9d0f",
        "4bcf35d8abf50987175f9dffa189719db640fce7c7c40ed4bb883418f3b7080c",
    ),
    Vector(
        "V4 array",
        (("command", "add"), *(("public_ids[]", x) for x in "bac"), ("tag", "t"), _TS),
        "7b519fd5358e4ea6e7550e71e08e509ae5c141ba",
        "fb52f150db3e032eadf6bf3eb52b8316b321ff84ce96c2ab92df082dd37df331",
        "command=add&public_ids=b,a,c&tag=t&timestamp=1700000000",
    ),
    Vector(
        "V5 empty value",
        (("public_id", "p1"), ("tags", ""), _TS),
        "a1def12365c4819ec724e2c650b383949c8e3d9a",
        "a27bfd7cfa0e88d26fc707bb29d06ece51fcab100e53471ebe6d02a322e91a91",
        "public_id=p1&timestamp=1700000000",
    ),
    Vector(
        "V6 ampersand, version 1",
        _SMUGGLING,
        "41d755e3591ce57888033bceb4771a033dd15b3a",
        "a88fde575380764f326064e9ddcc92b4da1e6d48486f97ce167301e449ad5ac3",
        "notification_url=https://h.example/cb?x=1&y=2&public_id=a&tags=evil&timestamp=1700000000",
        version=1,
    ),
    Vector(
        "V6 ampersand, version 2",
        _SMUGGLING,
        "7da6884665a33349eb271abe73d85850a47c26f7",
        "70489024259771c48e4487784724052577fbfa2ae39066c7af33f749ff352b00",
        "notification_url=https://h.example/cb?x=1%26y=2&public_id=a%26tags=evil&timestamp=1700000000",
    ),
    Vector(
        "V7 unicode and escapes",
        (("context", r"alt=caf\=e|cap=a b+c%20d"), ("public_id", "größe/äß 図"), _TS),
        "022b5590f9d91d39c76e20962b45c9f4650b6cfd",
        "d2985967a46285391ddfcb63575323153a6ef7888b247eed4efbb58e2d80e817",
    ),
    Vector(
        "V8 tags call without its notification_url",
        (("command", "add"), ("public_ids[]", "p1"), ("tag", "t"), _TS),
        "0a07988137ef611b9c438d489bc0b00654e6a016",
    ),
    Vector(
        "V8 tags call of older SDKs",
        (
            ("command", "add"),
            ("public_ids[]", "p1"),
            ("tag", "t"),
            ("notification_url", "https://h.example/n"),
            _TS,
        ),
        "c43e2d68b1684f9c7d4f5065eb31d3a4be0ec472",
    ),
    Vector("V9 rename from Node", (*_RENAME, ("overwrite", "true")), "a019fbf1e0d094d0da05dc5974d4ef37674a6c34"),
    Vector("V9 rename from Python", (*_RENAME, ("overwrite", "1")), "6a96e1925e35675ff33bc174e3bf6723b1d1cca5"),
    Vector(
        "V10 Directus",
        (("public_id", "a/b"), ("timestamp", "1700000000123"), ("type", "upload")),
        sha256="9bab74041c78ab26d01a1c61eafafcdc62740867cd8286e2ea705c3093f1e039",
        version=1,
    ),
    Vector(
        "V11 array with ampersand, version 2",
        _URLS,
        "6e4ac3493307f00811adc453d6ee6624f2de7938",
        string="mode=download&timestamp=1700000000&urls=http://x/a.png?x=1%26y=2,http://x/b.png",
    ),
    Vector("V11 array with ampersand, version 1", _URLS, "dfbe6bb76cc9f5cc1ca26041d6a526c719519181", version=1),
    Vector(
        "V13 JSON text",
        (("access_control", '[{"access_type":"token"}]'), _TS),
        "fe5876e53b620537eefefd5cdcfc93d1fd9bb5ec",
    ),
    Vector(
        "V14 smuggling carrier, version 1",
        (("public_id", "p1"), ("tags", "t&zz=1"), _TS),
        "9f7665cbd72d0f82d4645274eec59895e14b4b19",
        version=1,
    ),
    Vector(
        "V14 smuggling carrier, version 2",
        (("public_id", "p1"), ("tags", "t&zz=1"), _TS),
        "b399d57292d48b481de7a3ae283309f6eb9cbdd1",
    ),
    Vector(
        "V14 split",
        (("public_id", "p1"), ("tags", "t"), ("zz", "1"), _TS),
        "93fdd59179edbea2d0c236b58a0b3e26d61f7b3e",
    ),
)
