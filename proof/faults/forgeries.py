"""Histories of one signature that were never recorded: those that cannot happen, and their nearest neighbours that can.

Each operation is `kind result called returned`.
"""

from proof.faults.checker import Operation

BAD = {
    "two accepted, one after the other": "upload ok 0 1, upload ok 2 3",
    "two accepted at once": "upload ok 0 3, upload ok 1 2",
    "two accepted, a refusal between them": "upload ok 0 1, upload used 2 3, upload ok 4 5",
    "used, and nobody uploaded": "upload used 0 1",
    "status used, and nobody uploaded": "status used 0 1",
    "used before the winner was called": "upload used 0 1, upload ok 2 3",
    "status used before the winner was called": "status used 0 1, upload ok 2 3",
    "used before the only lost upload was called": "upload used 0 1, upload unknown 2 3",
    "a revocation that finds it used before anyone uploads": "revoke used 0 1, upload ok 2 3",
    "unused after it was accepted": "upload ok 0 1, status unused 2 3",
    "unused after it was seen used": "upload ok 0 9, status used 1 2, status unused 3 4",
    "unused after a refusal": "upload unknown 0 9, upload used 1 2, status unused 3 4",
    "accepted after the revocation": "revoke revoked 0 1, upload ok 2 3",
    "accepted before a revocation that succeeds": "upload ok 0 1, revoke revoked 2 3",
    "accepted, though a revocation at the same time succeeds": "upload ok 0 3, revoke revoked 1 2",
    "used after the revocation": "revoke revoked 0 1, upload used 2 3",
    "unused after the revocation": "revoke revoked 0 1, status unused 2 3",
    "revoked, and nobody revoked it": "upload revoked 0 1",
    "revoked before the revocation was called": "upload revoked 0 1, revoke revoked 2 3",
    "status revoked after it was accepted": "upload ok 0 1, status revoked 2 3",
    "a lost revocation cannot make it used": "revoke unknown 0 1, upload used 2 3",
    "a lost upload cannot make it revoked": "upload unknown 0 1, upload revoked 2 3",
    "a refused upload is no winner": "upload in_use 0 1, status used 2 3",
    "seen used and seen revoked": "upload unknown 0 1, revoke unknown 0 1, status used 2 3, status revoked 2 3",
}

GOOD = {
    "nothing happened": "status unused 0 1, upload in_use 0 1",
    "one accepted, the next refused": "upload ok 0 1, upload used 2 3, status used 4 5",
    "refused in the same moment": "upload used 0 2, upload ok 1 3",
    "unused while the winner runs": "upload ok 0 5, status unused 1 2, status used 3 4",
    "unused as the winner returns": "upload ok 0 2, status unused 1 3",
    "a lost upload has won": "upload unknown 0 1, upload used 2 3, revoke used 4 5",
    "a lost upload has not won": "upload unknown 0 1, status unused 2 3, upload ok 4 5",
    "a lost upload wins late": "upload unknown 0 1, status unused 2 3, upload used 4 5",
    "all are lost": "upload unknown 0 1, upload unknown 0 1, revoke unknown 0 1",
    "revoked, twice": "revoke revoked 0 1, revoke revoked 2 3, upload revoked 4 5, status revoked 6 7",
    "revoked while an upload runs": "upload revoked 0 3, revoke revoked 1 2",
    "a lost revocation has worked": "revoke unknown 0 1, status unused 2 3, upload revoked 4 5",
    "a lost revocation has not worked": "revoke unknown 0 1, upload ok 2 3",
    "the revocation came too late": "upload ok 0 3, revoke used 1 4",
}


def forged(text: str) -> list[Operation]:
    words = [line.split() for line in text.split(", ")]
    return [Operation(kind, result, float(called), float(returned)) for kind, result, called, returned in words]
