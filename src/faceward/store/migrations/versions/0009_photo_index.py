"""Faces without a photo are not in the index that tells photos apart: an import of embeddings writes one index less.

Revision ID: 0009
"""

from alembic import op
from sqlalchemy import text

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_COLUMNS = "(client_id, region, image_sha256, face_bbox)"


def upgrade() -> None:
    for table, name in _standing():
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
        op.execute(f"DROP INDEX IF EXISTS {name}")  # of a second table, whose indexes become constraints last
        op.execute(f"CREATE UNIQUE INDEX {name} ON {table} {_COLUMNS} WHERE image_sha256 IS NOT NULL")


def downgrade() -> None:
    for table, name in _standing():
        op.execute(f"DROP INDEX {name}")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE {_COLUMNS}")


def _standing() -> list[tuple[str, str]]:
    """The tables of faces that have the index, with its name: while the model is changed there may be two."""
    bind = op.get_bind()
    named = [(f"face_encodings{suffix}", f"uq_face_photo{suffix}") for suffix in ("", "_next", "_previous")]
    return [pair for pair in named if bind.execute(text("SELECT to_regclass(:name)"), {"name": pair[1]}).scalar()]
