"""Databases as older versions of faceward left them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from faceward.store.database import parse_url


def stand_at(url: str, revision: str) -> None:
    """Take a current database back to the tables of an older version."""
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "faceward.store:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes.update(connection=connection, dimension=512)
        command.downgrade(config, revision)
