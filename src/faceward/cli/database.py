"""`faceward db`: the tables of the database that the settings name."""

from __future__ import annotations

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation, manifest_in_use, shown_url
from faceward.cli.options import AsJson


def database_app() -> typer.Typer:
    app = typer.Typer(help="Make and describe the tables.", no_args_is_help=True)
    app.command("upgrade")(upgrade)
    app.command("index")(index)
    app.command("status")(status)
    return app


def upgrade(ctx: typer.Context) -> None:
    """Bring the tables to this version of faceward. Every other command does it too, where it is needed."""
    from contextlib import closing

    from faceward.factory import Deployment
    from faceward.store.schema import HEAD

    settings = invocation(ctx).settings()
    manifest = manifest_in_use(settings)
    with closing(Deployment(settings)) as deployment:
        done = deployment.upgrade(manifest.embedding.dimension)
    output.say(f"The tables are at version {HEAD} now." if done else f"The tables are at version {HEAD} already.")


def index(ctx: typer.Context) -> None:
    """Build, drop or rebuild the HNSW index so that it is as the settings search.hnsw_... say."""
    from contextlib import closing

    from faceward.factory import Deployment

    with closing(Deployment(invocation(ctx).settings())) as deployment:
        done = deployment.schema.apply_graph(deployment.graph)
    output.say(
        "The HNSW index is as the settings say now." if done else "The HNSW index is as the settings say already."
    )


def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Describe what stands in the database. `faceward doctor` says what is wrong with it."""
    from contextlib import closing

    from faceward.factory import Deployment
    from faceward.store.schema import CONTRACT_INDEXES, HEAD

    with closing(Deployment(invocation(ctx).settings())) as deployment:
        found = deployment.schema.status()
        url = shown_url(deployment.url)
    if as_json:
        output.print_json({"url": url, **output.plain(found), "newest_revision": HEAD, "current": found.current})
        return
    missing = [name for name in CONTRACT_INDEXES if name not in found.indexes]
    output.print_fields(
        {
            "database": url,
            "PostgreSQL": found.server_version,
            "pgvector": found.pgvector or "not in this database",
            "tables": "none" if found.revision is None else f"version {found.revision} (newest: {HEAD})",
            "indexes": ", ".join(sorted(found.indexes)) or "none",
            "missing": ", ".join(missing),
        }
    )
