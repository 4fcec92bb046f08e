"""Who may log in: an owner without privileges, a plain member, the role itself; and what each of the others is told."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy.engine import make_url

from faceward.errors import AccessDeniedError, ExtensionMissingError
from faceward.store.database import APP_ROLE, Database
from faceward.store.gallery import Gallery
from faceward.store.schema import Schema, check_database
from synthetic import MODEL, new_face


def test_an_extension_that_this_login_may_not_create(
    empty_database: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    url = login(empty_database, "owner", "CREATEROLE")
    admin.execute("ALTER DATABASE empty OWNER TO owner")
    with pytest.raises(ExtensionMissingError, match=r"As a superuser, there: CREATE EXTENSION vector;"):
        Schema(url).upgrade()
    admin.execute("ALTER DATABASE empty OWNER TO postgres")


def test_an_owner_that_is_no_superuser_migrates_and_works(
    empty_database: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    url = login(empty_database, "owner", "CREATEROLE")
    admin.execute("ALTER DATABASE empty OWNER TO owner")
    admin.execute(f"GRANT {APP_ROLE} TO owner")
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    assert Schema(url).upgrade()
    with Database(url) as database:
        check_database(database, MODEL, 512)
        assert Gallery(database, MODEL).create_person("acme", "A", "Alice", [new_face(1)])[0].face_count == 1
        assert Gallery(database, MODEL).list_persons("globex").persons == ()
    admin.execute("ALTER DATABASE empty OWNER TO postgres")


def test_a_login_that_may_not_create_the_role_is_told_what_to_do(
    empty_database: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    url = login(empty_database, "plain")
    admin.execute("GRANT CREATE ON DATABASE empty TO plain")
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    admin.execute(f"ALTER ROLE {APP_ROLE} RENAME TO put_aside")
    try:
        with pytest.raises(AccessDeniedError, match=rf"role {APP_ROLE} is missing.*CREATE ROLE {APP_ROLE} NOLOGIN"):
            Schema(url).upgrade()
    finally:
        admin.execute(f"ALTER ROLE put_aside RENAME TO {APP_ROLE}")
        admin.execute("REVOKE CREATE ON DATABASE empty FROM plain")


def test_a_login_that_may_create_roles_makes_it(
    empty_database: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    url = login(empty_database, "owner", "CREATEROLE")
    admin.execute("ALTER DATABASE empty OWNER TO owner")
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    admin.execute(f"ALTER ROLE {APP_ROLE} RENAME TO put_aside")
    try:
        assert Schema(url).upgrade()
        made = admin.execute(
            "SELECT rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname = %s", (APP_ROLE,)
        ).fetchone()
        assert made == (False, False, False)
        with Database(url) as database:
            assert Gallery(database, MODEL).create_person("acme", "A", "Alice", [new_face(1)])[0].face_count == 1
    finally:
        with psycopg.connect(empty_database, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {APP_ROLE}")
        admin.execute(f"DROP ROLE {APP_ROLE}")
        admin.execute(f"ALTER ROLE put_aside RENAME TO {APP_ROLE}")
        admin.execute("ALTER DATABASE empty OWNER TO postgres")


def test_a_login_that_is_neither_superuser_nor_owner_works_as_a_member(
    database_url: str, login: Callable[..., str]
) -> None:
    url = login(database_url, "member", f"IN ROLE {APP_ROLE}")
    assert Schema(url).upgrade() is False
    with Database(url) as database:
        check_database(database, MODEL, 512)
        assert Gallery(database, MODEL).create_person("acme", "A", "Alice", [new_face(1)])[0].face_count == 1


def test_a_login_without_the_role_is_told_what_to_do(database_url: str, login: Callable[..., str]) -> None:
    url = login(database_url, "stranger")
    with Database(url) as database, pytest.raises(AccessDeniedError, match=rf"{APP_ROLE}.*setup_postgres"):
        check_database(database, MODEL, 512)


def test_a_login_that_may_not_migrate_says_so(
    empty_database: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    url = login(empty_database, "member", f"IN ROLE {APP_ROLE}")
    with pytest.raises(AccessDeniedError, match="permission denied"):
        Schema(url).upgrade()
    assert Schema(empty_database).status().revision is None


def test_the_app_role_itself_may_be_the_login(database_url: str, admin: psycopg.Connection) -> None:
    """A URL without a password: the server trusts it, or a password file knows it."""
    admin.execute(f"ALTER ROLE {APP_ROLE} LOGIN")
    try:
        url = make_url(database_url).set(username=APP_ROLE, password=None).render_as_string()
        assert Schema(url).upgrade() is False
        with Database(url) as database:
            check_database(database, MODEL, 512)
            assert Gallery(database, MODEL).create_person("acme", "A", "Alice", [new_face(1)])[0].face_count == 1
    finally:
        admin.execute(f"ALTER ROLE {APP_ROLE} NOLOGIN")


def test_an_unsafe_app_role_is_reported(database_url: str, admin: psycopg.Connection) -> None:
    admin.execute(f"ALTER ROLE {APP_ROLE} BYPASSRLS")
    try:
        assert not Schema(database_url).status().app_role_is_safe
    finally:
        admin.execute(f"ALTER ROLE {APP_ROLE} NOBYPASSRLS")
