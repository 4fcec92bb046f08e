"""A search by embedding is a decision too: who asked, and whom it found.

Revision ID: 0008
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE decisions DROP CONSTRAINT ck_decision_kind")
    op.execute(
        "ALTER TABLE decisions ADD CONSTRAINT ck_decision_kind CHECK (kind IN ('recognize', 'search', 'verify'))"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE decisions DROP CONSTRAINT ck_decision_kind")
    # Those of searches stay: the older version reads them.
    op.execute(
        "ALTER TABLE decisions ADD CONSTRAINT ck_decision_kind CHECK (kind IN ('recognize', 'verify')) NOT VALID"
    )
