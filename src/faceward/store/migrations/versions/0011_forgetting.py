"""Nobody who is enrolled is forgotten by way of another, and no entry of the audit log names its own time.

The function that forgets a person follows merges, which it reads in the audit log. The service's role may add to that log: an
entry that said so made it forget people who are enrolled.

Revision ID: 0011
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Left out, not refused: an entry that somebody made up must not keep a person from being erased.
    _replace_function("AND NOT EXISTS (SELECT 1 FROM persons p WHERE p.client_id = tenant AND p.id = a.person_id)")
    op.execute("REVOKE INSERT ON audit_log FROM faceward_app")
    op.execute(
        "GRANT INSERT (client_id, actor, action, person_id, other_person_id, details) ON audit_log TO faceward_app"
    )


def downgrade() -> None:
    _replace_function("")
    op.execute("REVOKE INSERT ON audit_log FROM faceward_app")
    op.execute("GRANT INSERT ON audit_log TO faceward_app")


def _replace_function(only_gone: str) -> None:
    """As 0005 made it. only_gone: a further condition of whom it reaches by merges."""
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
            -- Whoever was merged into the person was the person.
            WITH RECURSIVE same AS (
                SELECT person AS id
                UNION
                SELECT a.person_id FROM same JOIN audit_log a ON a.client_id = tenant AND a.other_person_id = same.id
                WHERE a.action = 'person.merge' AND a.person_id IS NOT NULL {only_gone}
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
