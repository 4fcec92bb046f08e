"""What is kept of a person, and for how long: states and expiry, retention, and the keys of stored photos.

Revision ID: 0007
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # matchable_until: what a search asks for. '-infinity' is suspended, 'infinity' is for good.
    op.execute(
        """
        ALTER TABLE persons
            ADD COLUMN state varchar(20) NOT NULL DEFAULT 'active'
                CONSTRAINT ck_person_state CHECK (state IN ('active', 'suspended')),
            ADD COLUMN expires_at timestamptz,
            ADD COLUMN matchable_until timestamptz NOT NULL GENERATED ALWAYS AS (
                CASE WHEN state = 'suspended' THEN '-infinity'::timestamptz
                     ELSE coalesce(expires_at, 'infinity'::timestamptz) END) STORED
        """
    )
    op.execute("CREATE INDEX idx_person_expiry ON persons (client_id, expires_at, id) WHERE expires_at IS NOT NULL")
    # image_key_id: of the key that the photo is encrypted with; NULL: it is not. image_box: the part of the sent photo that
    # was kept; NULL: all of it.
    op.execute(
        """
        ALTER TABLE face_encodings
            ADD COLUMN matchable_until timestamptz NOT NULL DEFAULT 'infinity',
            ADD COLUMN image_key_id varchar(100),
            ADD COLUMN image_box varchar(100)
        """
    )
    for column in ("image_key_id", "image_box"):  # as in 0001: nothing but the photo may move out of line
        op.execute(f"ALTER TABLE face_encodings ALTER COLUMN {column} SET STORAGE PLAIN")
    # Faces repeat it as they repeat the region, and the foreign key holds both equal.
    _person_key("region, matchable_until")
    op.execute("DROP INDEX idx_face_scope_code")
    op.execute(
        "CREATE INDEX idx_face_scope_code ON face_encodings (client_id, region, id) INCLUDE (code, matchable_until)"
    )
    # The photos under each key, for those who change keys.
    op.execute(
        "CREATE INDEX idx_face_photo ON face_encodings (client_id, image_key_id, id) WHERE image_data IS NOT NULL"
    )
    for table in ("regions", "clients"):
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN retention_days integer "
            f"CONSTRAINT ck_{table}_retention CHECK (retention_days BETWEEN 1 AND 36500)"
        )
    op.execute("ALTER TABLE job_chunks ADD COLUMN key_id varchar(100)")


def downgrade() -> None:
    op.execute("ALTER TABLE job_chunks DROP COLUMN key_id")
    for table in ("regions", "clients"):
        op.execute(f"ALTER TABLE {table} DROP COLUMN retention_days")
    op.execute("DROP INDEX idx_face_scope_code")
    op.execute("CREATE INDEX idx_face_scope_code ON face_encodings (client_id, region, id) INCLUDE (code)")
    _person_key("region")
    op.execute(
        "ALTER TABLE face_encodings DROP COLUMN matchable_until, DROP COLUMN image_key_id, DROP COLUMN image_box"
    )
    op.execute("ALTER TABLE persons DROP COLUMN matchable_until, DROP COLUMN expires_at, DROP COLUMN state")


def _person_key(repeated: str) -> None:
    """repeated: the columns of a person that its faces repeat."""
    op.execute("ALTER TABLE face_encodings DROP CONSTRAINT fk_face_person")
    op.execute("ALTER TABLE persons DROP CONSTRAINT uq_person_id_region")
    op.execute(f"ALTER TABLE persons ADD CONSTRAINT uq_person_id_region UNIQUE (client_id, id, {repeated})")
    op.execute(
        f"ALTER TABLE face_encodings ADD CONSTRAINT fk_face_person FOREIGN KEY (client_id, person_id, {repeated}) "
        f"REFERENCES persons (client_id, id, {repeated}) ON DELETE CASCADE"
    )
