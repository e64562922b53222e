"""A frozen database refuses every write by triggers, whichever server makes it and however long ago it connected.

Functions run inside their caller's transaction, which holds the rules alone.
"""

from uponce.adapters.database.postgres.connection import Connection

_FUNCTION = """
CREATE OR REPLACE FUNCTION uponce_frozen() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'The database is frozen: it was moved away from.'; END $$
"""
# The last one is what readiness writes to.
_TABLES = "api_keys grants assets condemned audit replies series series_grants schema_version".split()
_IS_FROZEN = "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'grants'::regclass AND tgname = 'frozen')"


async def freeze(connection: Connection) -> None:
    await connection.execute(_FUNCTION)
    for table in _TABLES:
        await connection.execute(
            f"CREATE OR REPLACE TRIGGER frozen BEFORE INSERT OR UPDATE OR DELETE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION uponce_frozen()"
        )


async def thaw(connection: Connection) -> None:
    for table in _TABLES:
        await connection.execute(f"DROP TRIGGER IF EXISTS frozen ON {table}")


async def is_frozen(connection: Connection) -> bool:
    return await (await connection.execute(_IS_FROZEN)).fetchone() == (True,)
