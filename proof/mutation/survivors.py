"""Why mutants survive: this table is kept by hand, and a run fails when it lacks one or names one that is killed."""

import re
from collections.abc import Mapping

from proof.mutation.tool import Mutant
from uponce.core import errors

_AT_IMPORT = (
    "runs as the module is imported, before the tool switches a mutant on; made by hand: limits have no defaults"
)
_SAME = "equivalent: "
_DECORATES = (
    "runs as the module is imported; made by hand: a purge, a fence, a revocation, a condemnation beside commits"
)
_MAKES_METHODS = "runs as the module is imported; each test of a database calls what it makes"
_FIPS = _SAME + "it counts in FIPS builds only"
_LOCKS = "SQLite needs no locks; the tests on PostgreSQL do"
_ONE_LENGTH = _SAME + "both have one length"
_ROW_MORE = _SAME + "one row more is read, and cut off"
_NAMED = _SAME + "a public_id that is set needs no other name"
_NO_EDGE = _SAME + "neither has an edge or a segment of dots"
_LOOKED_UP = _SAME + "then the record is looked up again"
_EDGE = "only the very moment differs"
_TIMELESS = _SAME + "that operation asks for no time"
_NO_SERIES = _SAME + "no series is from the first second of 1970"
_BOTH = _SAME + "the steps before have set all of them"
_LATER = _SAME + "the key of the blob is set later"
_TRUTH = _SAME + "only its truth is asked for"
_SHOWN = "how much of a long name is shown; names so long are refused before"

# By "file function", then by what was changed (`Mutant.change`).
SURVIVORS: Mapping[str, Mapping[str, str]] = {
    "adapters/database/catalog.py of_context": {
        "rt': _context_part(key, value), 'most': limit + 1} → rt': _context_part(key, None), 'most': limit + 1}": (
            _SAME + "finds too much, which is filtered"
        ),
        "value), 'most': limit + 1} → value), 'most': limit + 2}": _ROW_MORE,
        "t]) if _has(asset, key, value))) → t]) if _has(asset, key, None)))": (
            "filters texts across the border of two strings; the query has compared the value"
        ),
    },
    "adapters/database/catalog.py condemn": {
        "ield from unnamed.steps(now, blob_keys)) → ield from unnamed.steps(None, blob_keys))": _TIMELESS,
    },
    "adapters/database/catalog.py _context_part": {
        "-1]},' if value is None else json_text((key, val → -1]},' if value is None or True else json_text((key, val": (
            _SAME + "finds too much, which is filtered"
        ),
    },
    "adapters/database/catalog.py _id_of": {
        "return 2 ** 63 - 1 → return 2 ** 63 - 2": _SAME + "no id is so great",
    },
    "adapters/database/committer.py Records._run_all": {
        "ession, steps) if steps else [] → ession, steps) if steps or True else []": _SAME
        + "of nothing it returns nothing",
    },
    "adapters/database/committer.py Committer._give_up": {
        "f._later if each.since <= before] → f._later if each.since < before]": _EDGE,
        "f._later if each.since > before)) → f._later if each.since >= before))": _EDGE,
    },
    "adapters/database/sqlite/connection.py Engine.look": {
        "nection.execute('PRAGMA data_version').fetchone()[0] → nection.execute('PRAGMA DATA_VERSION').fetchone()[0]": (
            _SAME + "names of SQL have no letter case"
        ),
    },
    "adapters/database/outbox.py list_receivers": {
        "if after and len(found) < most: → if after or len(found) < most:": _SAME
        + "nothing comes before an empty name",
        "f after and len(found) < most: → f after and len(found) <= most:": _ROW_MORE,
    },
    "adapters/database/outbox.py delay_waiting": {
        "ounts.items() if count > max(most - shares[each] → ounts.items() if count >= max(most - shares[each]": (
            _SAME + "it looks once more"
        ),
    },
    "adapters/database/outbox.py OutboxMethods.drop_dead_effects": {
        "fect_id - 1, effect_id, 1)) → fect_id - 1, effect_id, 2))": _SAME + "only one has that number",
    },
    "adapters/database/outbox.py OutboxMethods._once_each": {
        "ter = max(done, default=after) → ter = max(done, default=None)": _SAME + "with none done it ends",
    },
    "adapters/database/series.py create": {
        "t, complete_before: int=0) -> Steps[Series]: → t, complete_before: int=1) -> Steps[Series]:": _NO_SERIES,
    },
    "adapters/database/series.py _check_joins": {
        "t, complete_before: int=0) -> Steps[None]: → t, complete_before: int=1) -> Steps[None]:": _NO_SERIES,
    },
    "adapters/database/upkeep.py widen_fence": {
        "from wider_fence.steps(now, skew)) → from wider_fence.steps(None, skew))": _TIMELESS,
    },
    "adapters/database/upkeep.py note_settings": {
        "om noted_settings.steps(now)) != settings: → om noted_settings.steps(None)) != settings:": _TIMELESS,
    },
    "adapters/database/upkeep.py _times": {
        "om noted_settings.steps(now)) → om noted_settings.steps(None))": _TIMELESS,
        ", int(noted.get('skew', 0))) → , int(noted.get('skew', 1)))": _SAME + "the least is more",
    },
    "app/uploading/pipeline.py Pipeline.steps": {
        "= [self._refused(each, records, Pipeline.collect) for → = [self._refused(each, None, Pipeline.collect) for": (
            _SAME + "that step reads no records"
        ),
    },
    "app/uploading/pipeline.py Pipeline.judge": {
        "al.verified is not None and arrival.digest is not N → al.verified is not None or arrival.digest is not N": _BOTH,
        "content(arrival.digest, admitted.requested, admitted.spec, self._s → content(arrival.digest, None, admitted.spec, self._s": (
            "the limit of the kind that the URL names; the next step holds the file to that of its own kind"
        ),
        "lf._services, admitted, '', arrival.digest, arriva → lf._services, admitted, None, arrival.digest, arriva": _LATER,
        "f._services, admitted, '', arrival.digest, arriv → f._services, admitted, 'XXXX', arrival.digest, arriv": _LATER,
    },
    "app/uploading/pipeline.py Pipeline._candidate": {
        "rival.draft is not None and (arrival.blob_key is not None) → rival.draft is not None or arrival.blob_key is not None": _BOTH,
        "al.verified is not None and arrival.draft is not None and (arrival.blob_key is not → al.verified is not None or (arrival.draft is not None and arrival.blob_key is not": (
            _BOTH
        ),
    },
    "app/uploading/pipeline.py _digest_of": {
        "5(data, usedforsecurity=False).hexdigest() → 5(data, usedforsecurity=None).hexdigest()": _FIPS,
        "md5 = hashlib.md5(data, usedforsecurity=False).hexdigest() → md5 = hashlib.md5(data).hexdigest()": _FIPS,
        "5(data, usedforsecurity=False).hexdigest() → 5(data, usedforsecurity=True).hexdigest()": _FIPS,
    },
    "adapters/database/ledger.py page": {
        "key, 'before': before, 'timestamp': timestamp_of(before)} → key, 'before': before, 'XXtimestampXX': timestamp_of(before)}": (
            "only the query on PostgreSQL has this parameter"
        ),
        "key, 'before': before, 'timestamp': timestamp_of(before)} → key, 'before': before, 'TIMESTAMP': timestamp_of(before)}": (
            "only the query on PostgreSQL has this parameter"
        ),
        "lues | {'most': limit + 1})]) → lues | {'most': limit + 2})])": _ROW_MORE,
        "nt.key).decode().rstrip('=')) → nt.key).decode().rstrip(None))": _SAME + "a cursor may have its padding",
        "-1].grant.key).decode().rstrip('=')) → -1].grant.key).decode().lstrip('='))": (
            _SAME + "a cursor may have its padding"
        ),
        "t.key).decode().rstrip('=')) → t.key).decode().rstrip('XX=XX'))": _SAME + "the last of 43 characters is no X",
    },
    "adapters/database/ledger.py _parsed": {
        "key = b'' → key = b'XXXX'": _SAME + "neither is as long as a key",
    },
    "adapters/database/series.py join": {
        "yield [('hold', {'numbers': [of_grant(grant.key)] → yield [('hold', {'XXnumbersXX': [of_grant(grant.key)]": (
            _LOCKS
        ),
        "yield [('hold', {'numbers': [of_grant(grant.key)] → yield [('hold', {'NUMBERS': [of_grant(grant.key)]": _LOCKS,
    },
    "adapters/database/series.py hold_to_spend": {
        "yield [('hold', {'numbers': sorted((of_grant(gran → yield [('hold', {'XXnumbersXX': sorted((of_grant(gran": (
            _LOCKS
        ),
        "yield [('hold', {'numbers': sorted((of_grant(gran → yield [('hold', {'NUMBERS': sorted((of_grant(gran": _LOCKS,
        "(grant, keys, watermark=False) → (grant, keys, watermark=None)": _TRUTH,
    },
    "core/account.py read_account": {
        "uote(parts.password or '') if secret is None els → uote(parts.password or 'XXXX') if secret is None els": (
            _SAME + "without both, it is refused before"
        ),
    },
    "core/checksum.py Checksum.begin": {
        "orithm, usedforsecurity=False) → orithm, usedforsecurity=None)": _FIPS,
        "shlib.new(self.algorithm, usedforsecurity=False) → shlib.new(self.algorithm)": _FIPS,
        "orithm, usedforsecurity=False) → orithm, usedforsecurity=True)": _FIPS,
    },
    "core/naming.py _extension": {
        "t_filename(filename or '')[1], _MAX_EXTENSION) → t_filename(filename or 'XXXX')[1], _MAX_EXTENSION)": (
            _SAME + "XXXX has no extension either"
        ),
    },
    "core/naming.py path_of": {
        "quote(name.cloud, safe='')}/{name.resource_type} → quote(name.cloud, safe='XXXX')}/{name.resource_type}": (
            _SAME + "an X is never escaped"
        ),
    },
    "core/naming.py source_of": {
        "eturn quote(text, safe='/:-_.').replace('~', '%7E') → eturn quote(text, safe='XX/:-_.XX').replace('~', '%7E')": (
            _SAME + "an X is never escaped"
        ),
    },
    "core/parameters.py public_id": {
        "rn check_public_id(value, parameter=name) → rn check_public_id(value)": _SAME + "that is its default",
    },
    "core/parameters.py tags": {
        "tag in found), default=0) → tag in found), default=1)": _SAME + "both are below the limit",
    },
    "core/policy.py judge_media": {
        "g.filename_override or '')[1] → g.filename_override or 'XXXX')[1]": _SAME + "XXXX has no extension either",
        "t_filename(filename or '')[1]) → t_filename(filename or 'XXXX')[1])": _SAME + "XXXX has no extension either",
    },
    "core/naming.py check_public_id": {
        "lic_id) <= _MAX_WRITTEN else public_id → lic_id) <= _MAX_WRITTEN or True else public_id": _SAME
        + "a longer name is refused too",
        "_id) if len(public_id) <= _MAX_WRITTEN else publi → _id) if len(public_id) < _MAX_WRITTEN else publi": _SAME
        + "a longer name is refused too",
    },
    "core/naming.py _normal": {
        "if len(name) > _MAX_WRITTEN: → if len(name) >= _MAX_WRITTEN:": _SAME + "no asset has a name of that length",
    },
    "core/naming.py parse_path": {
        "join(transformation)[:100] or None, unversioned=' → join(transformation)[:101] or None, unversioned='": _SHOWN,
    },
    "core/naming.py spellings_of": {
        "'%7E')) if '~' in plain else () → '%7E')) if '~' in plain or True else ()": _SAME
        + "without a tilde they are the source",
    },
    "core/signature.py _invalid": {
        "string if len(string) <= _MOST_SHOWN else f'{str → string if len(string) < _MOST_SHOWN else f'{str": _SHOWN,
    },
    "app/authorise.py authorise": {
        "ces, verified, request, record) → ces, verified, request, None)": _LOOKED_UP,
        "vices, verified, request, record) → vices, verified, request)": _LOOKED_UP,
    },
    "app/authorise.py check_origin": {
        "ors.printable(origin[:300]) if origin else 'no we → ors.printable(origin[:301]) if origin else 'no we": _SHOWN,
    },
    "core/ranges.py parse_ranges": {
        "ge_set = (header or '').partition('=') → ge_set = (header or '').rpartition('=')": _SAME
        + "with a second = either the unit or the ranges are malformed, and the whole file is sent",
        "range_set = (header or '').partition('=') → range_set = (header or 'XXXX').partition('=')": _SAME
        + "XXXX is no known unit either",
        "c in range_set.split(',', MAX_RANGES)] → c in range_set.split(',')]": _SAME
        + "more than MAX_RANGES pieces are too many, however many; the bound only saves work",
        ") for spec in range_set.split(',', MAX_RANGES)] → ) for spec in range_set.rsplit(',', MAX_RANGES)]": _SAME
        + "more than MAX_RANGES pieces are too many, whichever is left whole",
    },
    "core/relaying.py refuses_timestamp": {
        "age(document or {}) or '').startswith(_OF_TIME) → age(document or {}) or 'XXXX').startswith(_OF_TIME)": (
            _SAME + "neither is a text of time"
        ),
    },
    "core/series.py check_parameters": {
        "arameter {changed[0][:100]} differs from that of → arameter {changed[0][:101]} differs from that of": _SHOWN,
    },
    "core/series.py check_size": {
        "pan.end, chunk.total or 0), limit, is_whole=chunk → pan.end, chunk.total or 1), limit, is_whole=chunk": _SAME
        + "no limit is below one byte",
    },
    "core/signature.py grant_key": {
        "ate(len(data).to_bytes(8, 'big') + data) → ate(len(data).to_bytes(8) + data)": _SAME + "that is its default",
    },
    "core/signature.py timestamp_of": {
        "(key[:_TIMESTAMP_OCTETS], 'big') → (key[:_TIMESTAMP_OCTETS])": _SAME + "that is its default",
    },
    "core/signature.py sign": {
        "octets + secret.encode(), usedforsecurity=False).hexdigest() → octets + secret.encode()).hexdigest()": _FIPS,
        "code(), usedforsecurity=False).hexdigest() → code(), usedforsecurity=None).hexdigest()": _FIPS,
        "tring + secret).encode(), usedforsecurity=False).hexdigest() → tring + secret).encode()).hexdigest()": _FIPS,
        "code(), usedforsecurity=False).hexdigest() → code(), usedforsecurity=True).hexdigest()": _FIPS,
    },
    "core/signature.py verify": {
        "rsion=1) if '%26' in v2 else v2 → rsion=1) if '%26' in v2 or True else v2": _SAME
        + "without an & both versions are one",
        "to_sign(params, version=1) if '%26' in v2 else v2 → to_sign(params, version=None) if '%26' in v2 else v2": _SAME
        + "only version 2 is told apart",
        "to_sign(params, version=1) → to_sign(params, version=None)": _SAME + "only version 2 is told apart",
    },
    "core/signature.py sign_delivery": {
        "code(), usedforsecurity=False) → code(), usedforsecurity=None)": _FIPS,
        "ource + secret).encode(), usedforsecurity=False) → ource + secret).encode())": _FIPS,
        "code(), usedforsecurity=False) → code(), usedforsecurity=True)": _FIPS,
    },
    "core/signature.py sign_response": {
        "to_sign(params, version=1), secret, algorithm) → to_sign(params, version=None), secret, algorithm)": _SAME
        + "only version 2 is told apart",
    },
    "core/upstream.py url_of": {
        "t_url(upstream.api_key, '', upstream.cloud, **chos → t_url(upstream.api_key, None, upstream.cloud, **chos": (
            _SAME + "both mean no secret"
        ),
    },
    "core/upstream.py read_relayed": {
        "joint(params.get(name, '').split('/')): → joint(params.get(name, 'XXXX').split('/')):": _NO_EDGE,
        "ge = (params.get(name, ''), \"a space or '/'\") → ge = (params.get(name, 'XXXX'), \"a space or '/'\")": _NO_EDGE,
    },
    "core/upstream.py _is_on": {
        "ame: str, default: str='0') -> bool: → ame: str, default: str='XX0XX') -> bool:": _SAME + "neither is on",
    },
    "core/upstream.py _placed": {
        "kind), None, '', '')] = None → kind), None, '', '')] = ''": _SAME + "only the order of the names is kept",
        "nd[kind, placed.written(ResourceType(kind), None, '', '')] = None → nd[kind, placed.written(None, None, '', '')] = None": _NAMED,
        "sourceType(kind), None, '', '')] = None → sourceType(kind), None, None, '')] = None": _NAMED,
        "ceType(kind), None, '', '')] = None → ceType(kind), None, '', None)] = None": _NAMED,
        "ourceType(kind), None, '', '')] = None → ourceType(kind), None, 'XXXX', '')] = None": _NAMED,
        "eType(kind), None, '', '')] = None → eType(kind), None, '', 'XXXX')] = None": _NAMED,
    },
    "core/upstream.py _digits": {
        "message, hashlib.sha256), 'big') → message, hashlib.sha256))": _SAME + "that is its default",
    },
}


_OWNER = "a database that replaces another one runs it; tests/app/test_owner.py and the tests of PostgreSQL see that"
# Functions of which no change shows.
_ALL_OF = {
    "adapters/database/keys.py _runs_with_secrets": _MAKES_METHODS,
    "adapters/database/steps.py operation": _DECORATES,
    "adapters/database/steps.py runs": _MAKES_METHODS,
    "core/policy.py _limit": _AT_IMPORT,
}
# Functions that no test of the mutation run calls.
_NOT_REACHED = {
    "adapters/database/upkeep.py replace_owner": "a restore runs it, and tests/app/test_backup.py looks for the result",
    "adapters/database/upkeep.py follow_owner": _OWNER,
    "adapters/database/upkeep.py steps_of_succession": _OWNER,
}


def _of_any(mutant: Mutant) -> str | None:
    """Return the reason that a whole function has, or a mutant that differs in nothing else."""
    place = f"{mutant.file} {mutant.function}"
    if _not_strict(mutant.was) == _not_strict(mutant.became):
        return _ONE_LENGTH
    return _ALL_OF.get(place) or (_NOT_REACHED.get(place) if mutant.status == "no tests" else None)


def _not_strict(text: str) -> str:
    return re.sub(r", strict=(?:True|False|None)", "", text)


def reason(mutant: Mutant) -> str | None:
    """Return why the mutant is no gap, or None if the reason is not known yet."""
    if _is_refusal(mutant.was) and mutant.is_respelling:
        return "wording of a refusal; tests hold its kind, its numbers and what to do next"
    place = f"{mutant.file} {mutant.function}"
    return _of_any(mutant) or SURVIVORS.get(place, {}).get(mutant.change)


def _is_refusal(line: str) -> bool:
    made = re.match(r"(?:raise|return) (?:errors\.)?(\w+)\(", line)
    return made is not None and hasattr(errors, made[1])


def stale(survived: list[Mutant]) -> list[str]:
    """Return what the table names although it does not survive (any more)."""
    seen = {(f"{mutant.file} {mutant.function}", mutant.change) for mutant in survived}
    return [
        f"{place}: {change}"
        for place, changes in SURVIVORS.items()
        for change in changes
        if (place, change) not in seen
    ]
