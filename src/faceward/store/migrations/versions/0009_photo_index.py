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


_STANDING = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def upgrade() -> None:
    for table, name, whole in _standing():
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
        op.execute(f"DROP INDEX IF EXISTS {name}")  # of a second table, whose indexes become constraints last
        if whole:  # else it was interrupted, and is made anew when the second table is complete
            op.execute(f"CREATE UNIQUE INDEX {name} ON {table} {_COLUMNS} WHERE image_sha256 IS NOT NULL")


def downgrade() -> None:
    for table, name, whole in _standing():
        op.execute(f"DROP INDEX {name}")
        if whole:
            op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE {_COLUMNS}")


def _standing() -> list[tuple[str, str, bool]]:
    """The tables of faces that have the index, with its name: while the model is changed there may be two."""
    found = []
    for suffix in ("", "_next", "_previous"):
        whole = op.get_bind().execute(_STANDING, {"name": f"uq_face_photo{suffix}"}).scalar()
        if whole is not None:
            found.append((f"face_encodings{suffix}", f"uq_face_photo{suffix}", whole))
    return found
