"""`faceward reembed`: change the embedding model of the gallery, without a gap in recognition."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, Yes

if TYPE_CHECKING:
    from faceward.factory import ReembeddingParts
    from faceward.reembedding import ChangeStatus, Comparison, Exchanged, ModelScores
    from faceward.store.reembedded_faces import LeftBehind
    from faceward.store.reembeddings import Reembedding

LeaveBehind: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--leave-behind",
        help="Also where persons have no face then; they stay, and nobody finds them without a new photo.",
    ),
]
Wait: TypeAlias = Annotated[
    float, typer.Option("--wait", min=1, max=3600, help="Seconds to try for a moment without a long reader.")
]


def reembed_app() -> typer.Typer:
    app = typer.Typer(
        help="Change the embedding model: fill a second table, compare, cut over, roll back or finish.",
        invoke_without_command=True,
    )
    app.callback(invoke_without_command=True)(fill)
    app.command("status")(status)
    app.command("compare")(compare)
    app.command("cut-over")(cut_over)
    app.command("roll-back")(roll_back)
    app.command("finish")(finish)
    app.command("abandon")(abandon)
    return app


def fill(
    ctx: typer.Context,
    pack: Annotated[
        str | None, typer.Option("--pack", help="The model pack that the gallery is to be changed to.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Photos worked on at once.")] = 1,
    pause: Annotated[
        float, typer.Option("--pause", min=0, max=60, help="Seconds that each worker rests after a photo.")
    ] = 0.0,
    nice: Annotated[
        int, typer.Option("--nice", min=0, max=19, help="How far the work stands back behind other processes.")
    ] = 10,
    retry: Annotated[bool, typer.Option("--retry", help="Try the photos again of which nothing was made.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the new model's embeddings from the stored photos, beside the gallery that serves. Run it again to go on.

    With `status`, `compare`, `cut-over`, `roll-back`, `finish` or `abandon`: the steps that follow.
    """
    if ctx.invoked_subcommand is not None:
        if pack is not None:
            raise typer.BadParameter("belongs to `faceward reembed` alone", param_hint="--pack")
        return
    if pack is None:
        raise typer.BadParameter("name the model pack, or a step: see `faceward reembed --help`", param_hint="--pack")
    from faceward.factory import pack_store
    from faceward.reembedding import FillSettings

    settings = invocation(ctx).settings()
    with output.download_bar("Fetching the models") as download:
        manifest = pack_store(settings, download.tell).get(pack, progress=download.progress).manifest
    with suppress(OSError):
        os.nice(nice)
    with _opened(ctx) as parts, output.counting_bar() as bar:
        parts.change.begin(manifest.model_id, manifest.embedding.dimension)
        if retry:
            parts.change.retry()
        task = bar.add_task(f"Embedding by {pack}", total=None)
        parts.change.fill(
            FillSettings(workers=workers, pause=pause),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        found = parts.change.status()
    _show_status(found, as_json)
    if not as_json:
        output.say("Next: `faceward reembed compare`, then `faceward reembed cut-over`.")


def status(
    ctx: typer.Context,
    faces: Annotated[
        bool, typer.Option("--faces", help="List the faces that the new model can not take over, and why.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="The most faces to list.")] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Say how far a change of the model is."""
    with _opened(ctx) as parts:
        found = parts.change.status()
        under_way = found.counts is not None
        left = list(islice(parts.change.faces_left(), limit)) if faces and under_way else []
    if as_json:
        output.print_json(
            {**_status_fields(found), **({"faces": [output.plain(each) for each in left]} if faces else {})}
        )
        return
    _show_status(found, as_json=False)
    if left:
        table = output.new_table("client", "person", "face", "reason", right=("person", "face"))
        for each in left:
            table.add_row(each.client_id, str(each.person_id), str(each.face_id), each.reason)
        output.print_table(table)


def compare(
    ctx: typer.Context,
    sample: Annotated[int, typer.Option("--sample", min=1, max=1_000_000, help="The most faces to compare.")] = 2_000,
    as_json: AsJson = False,
) -> None:
    """Compare the two models on the gallery's own faces: who would be found differently, and how the scores lie."""
    from faceward.errors import NotFoundError
    from faceward.reembedding import compare as compare_models

    with _opened(ctx) as parts, output.counting_bar() as bar:
        found = parts.change.status().change
        if found is None or found.ended_at is not None:
            raise NotFoundError("No change of the model is under way. `faceward reembed --pack NAME` begins one.")
        task = bar.add_task("Comparing", total=None)
        report = compare_models(
            parts.database,
            found,
            (parts.threshold_of(found.model_of_live), parts.threshold_of(found.model_of_shadow)),
            sample=sample,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        output.print_json(report)
    else:
        _show_comparison(report)


def cut_over(ctx: typer.Context, leave_behind: LeaveBehind = False, wait: Wait = 60.0, as_json: AsJson = False) -> None:
    """Let the new model answer from now on, in one transaction for all clients. Running services follow by themselves."""
    with _opened(ctx) as parts:
        done = parts.change.cut_over(leave_behind=leave_behind, wait=wait)
    _show_exchange(done, as_json)
    if not as_json:
        output.say(
            f"The gallery is of {done.change.model_to} now. In config.json: "
            f'"model": {{"pack": "{_pack(done.change.model_to)}"}}. '
            "Back: `faceward reembed roll-back`. For good: `faceward reembed finish`."
        )


def roll_back(
    ctx: typer.Context, leave_behind: LeaveBehind = False, wait: Wait = 60.0, as_json: AsJson = False
) -> None:
    """Let the previous model answer again, as before the cut-over."""
    with _opened(ctx) as parts:
        done = parts.change.roll_back(leave_behind=leave_behind, wait=wait)
    _show_exchange(done, as_json)
    if not as_json:
        output.say(
            f"The gallery is of {done.change.model_from} again. The new model's table is kept: cut over again, or "
            "`faceward reembed abandon`."
        )


def finish(ctx: typer.Context, yes: Yes = False, as_json: AsJson = False) -> None:
    """Drop the previous model's embeddings, for good: who was left behind loses the last ones."""
    with _opened(ctx) as parts:
        if not yes:
            question = "Drop the previous model's embeddings, for good? There is no roll-back then. "
            typer.confirm(question + _loss(parts.change.lost_by_finish()), abort=True, err=True)
        change = parts.change.finish()
    _show_end(change, as_json, f"The change to {change.model_to} is finished.")


def abandon(ctx: typer.Context, yes: Yes = False, as_json: AsJson = False) -> None:
    """Drop what was made for the new model; the gallery is left as it is. Who was left behind by a roll-back loses the last
    embeddings, and their photos.
    """
    with _opened(ctx) as parts:
        if not yes and (lost := parts.change.lost_by_abandon()).faces:
            question = "Drop what was made for the new model, with faces that are nowhere else, and their photos? "
            typer.confirm(question + _loss(lost), abort=True, err=True)
        change = parts.change.abandon()
    _show_end(change, as_json, f"The change to {change.model_to} is abandoned.")


def _loss(lost: LeftBehind) -> str:
    return f"{lost.faces:,} faces lose their last embedding, and {lost.persons:,} persons have none any more."


def _opened(ctx: typer.Context) -> AbstractContextManager[ReembeddingParts]:
    from faceward.factory import open_reembedding

    return open_reembedding(invocation(ctx).settings(), notify=output.tell)


def _pack(model_id: str) -> str:
    return model_id.partition(":")[0]


def _status_fields(found: ChangeStatus) -> dict[str, Any]:
    change = found.change
    if change is None:
        return {"state": None}
    counts = {} if found.counts is None else output.plain(found.counts) | {"waiting": found.counts.waiting}
    return {**output.plain(change), **counts, "dimension_of_other_table": found.dimension}


def _show_status(found: ChangeStatus, as_json: bool) -> None:
    if as_json:
        output.print_json(_status_fields(found))
        return
    if found.change is None:
        output.say("The model of this gallery was never changed.")
        return
    change, counts = found.change, found.counts
    moments = {"begun": change.started_at, "cut over": change.cut_over_at, "ended": change.ended_at}
    fields: dict[str, object] = {
        "from": change.model_from,
        "to": change.model_to,
        "state": change.state.replace("_", " "),
        **{name: None if at is None else output.when(at) for name, at in moments.items()},
    }
    if counts is not None:
        fields |= {
            "faces": f"{counts.faces:,} in the gallery, {counts.made:,} of them also by {change.model_of_shadow}",
            "waiting": f"{counts.waiting:,}" if counts.waiting else None,
            "not made": f"{counts.unmade:,}" if counts.unmade else None,
            "without a photo": f"{counts.without_image:,}" if counts.without_image else None,
            "persons": f"{counts.persons:,}, of whom {counts.persons_left:,} would be left without a face",
        }
    output.print_fields(fields)


def _show_exchange(done: Exchanged, as_json: bool) -> None:
    if as_json:
        output.print_json(done)
        return
    output.print_fields(
        {
            "caught up": f"{done.caught_up:,} faces",
            "writes waited": f"{done.writes_held:.2f} s",
            "searches waited": f"{done.searches_held:.2f} s",
            "left without a face": f"{done.persons_left:,} persons" if done.persons_left else None,
            "they are": ", ".join(f"{person} of client {client}" for client, person in done.left[:20]) or None,
        }
    )
    if done.graph_missing:
        output.say(
            "The table that serves now has no HNSW index (an import had set it aside). Searches go on; for the strategy hnsw "
            "build it: `faceward db index`."
        )


def _show_end(change: Reembedding, as_json: bool, line: str) -> None:
    if as_json:
        output.print_json(change)
    else:
        output.say(line)


def _show_comparison(report: Comparison) -> None:
    table = output.new_table("", "before", "after", right=("before", "after"))
    before, after = report.before, report.after
    table.add_row("model", before.model_id, after.model_id)
    table.add_row("threshold of the pack", f"{before.threshold:g}", f"{after.threshold:g}")
    rows: Mapping[str, str] = {
        "found their person": "right",
        "found nobody, with further photos": "missed",
        "found somebody else": "wrong",
    }
    for title, name in rows.items():
        table.add_row(title, f"{getattr(before, name):,}", f"{getattr(after, name):,}")
    table.add_row("same person: 5 / 50 / 95 %", _spread(before, "genuine"), _spread(after, "genuine"))
    table.add_row("nearest other: 5 / 50 / 95 / 99 %", _spread(before, "impostor"), _spread(after, "impostor"))
    output.print_table(table)
    output.say(
        f"{report.faces:,} faces were searched in their regions without themselves; {report.with_others:,} belong to people "
        f"with further photos. {report.different:,} would find somebody else, or nobody, or somebody instead of nobody."
    )
    if report.own_thresholds:
        output.say(
            f"Regions or clients with a threshold of their own: {report.own_thresholds}. Those were set for {before.model_id}: "
            "look at them before the cut-over."
        )
    if report.differences:
        listed = output.new_table("client", "region", "person", "face", "before", "after", right=("person", "face"))
        for each in report.differences[:50]:
            shown = [
                f"{'nobody' if one.person_id is None else one.person_id} at {one.similarity or 0:.3f}"
                for one in (each.before, each.after)
            ]
            listed.add_row(each.client_id, each.region, str(each.person_id), str(each.face_id), *shown)
        output.print_table(listed)


def _spread(scores: ModelScores, name: str) -> str:
    values: Mapping[int, float] = getattr(scores, name)
    shown = (5, 50, 95) if name == "genuine" else (5, 50, 95, 99)
    return " / ".join(f"{values[each]:.2f}" for each in shown) if values else "none"
