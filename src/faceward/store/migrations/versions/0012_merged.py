"""Nobody who was merged into somebody enrolled is forgotten, by the number or by way of a merge that an entry made up.

Revision ID: 0012
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE INDEX idx_former_name_number ON former_names (client_id, person_number) WHERE person_number IS NOT NULL"
    )
    # The names go with the person: an erasure, which deletes the person first, forgets who was merged into that one.
    _replace_function(
        """
            IF EXISTS (SELECT 1 FROM former_names f WHERE f.client_id = tenant AND f.person_number = person) THEN
                RAISE EXCEPTION 'the person was merged into one who is enrolled: only who is erased may be forgotten'
                    USING ERRCODE = 'insufficient_privilege';
            END IF;
        """,
        "AND NOT EXISTS (SELECT 1 FROM former_names f WHERE f.client_id = tenant AND f.person_number = a.person_id)",
    )


def downgrade() -> None:
    _replace_function("", "")
    op.execute("DROP INDEX idx_former_name_number")


def _replace_function(refused: str, only: str) -> None:
    """As 0011 made it. refused: whom else it refuses. only: a further condition of whom it reaches by merges."""
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION faceward_forget_person(
            person bigint, OUT audit_entries bigint, OUT named_in bigint
        ) LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp SET plan_cache_mode = force_custom_plan AS $$
        DECLARE
            tenant varchar := current_setting('faceward.client_id', true);
            people bigint[];
        BEGIN
            IF EXISTS (SELECT 1 FROM persons p WHERE p.client_id = tenant AND p.id = person) THEN
                RAISE EXCEPTION 'the person is still enrolled: only who is erased may be forgotten'
                    USING ERRCODE = 'insufficient_privilege';
            END IF;
            {refused}
            -- Whoever was merged into the person was the person.
            WITH RECURSIVE same AS (
                SELECT person AS id
                UNION
                SELECT a.person_id FROM same JOIN audit_log a ON a.client_id = tenant AND a.other_person_id = same.id
                WHERE a.action = 'person.merge' AND a.person_id IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM persons p WHERE p.client_id = tenant AND p.id = a.person_id) {only}
            )
            SELECT array_agg(same.id) INTO people FROM same;
            UPDATE audit_log a SET person_id = NULL, other_person_id = NULL, details = '{{}}'
            WHERE a.client_id = tenant AND a.person_id = ANY(people);
            GET DIAGNOSTICS audit_entries = ROW_COUNT;
            UPDATE audit_log a SET person_id = NULL, other_person_id = NULL, details = '{{}}'
            WHERE a.client_id = tenant AND a.other_person_id = ANY(people);
            DELETE FROM decision_candidates c WHERE c.client_id = tenant AND c.person_id = ANY(people);
            GET DIAGNOSTICS named_in = ROW_COUNT;
        END $$
        """
    )
