"""Domain values as the bodies that travel."""

from __future__ import annotations

from faceward.http_types import answered
from faceward.receipts import Receipt
from faceward.store.audit_log import AuditEntry
from faceward.store.decision_log import StoredDecision
from faceward.types import (
    ApiKey,
    Box,
    Candidate,
    Client,
    ClientChange,
    Enrollment,
    Face,
    FaceMatch,
    Job,
    JobRefusal,
    Merge,
    Person,
    Quality,
    RegionChange,
    RegionSummary,
    RetentionEffect,
    StoredFace,
    Threshold,
)


def box(value: Box) -> answered.BoxOut:
    return answered.BoxOut(
        left=round(value.left, 1), top=round(value.top, 1), right=round(value.right, 1), bottom=round(value.bottom, 1)
    )


def quality(value: Quality) -> answered.QualityOut:
    return answered.QualityOut(score=round(value.score, 4), reasons=list(value.reasons))


def person(value: Person) -> answered.PersonOut:
    return answered.PersonOut(
        id=value.id,
        region=value.region,
        name=value.name,
        description=value.description,
        external_id=value.external_id,
        face_count=value.face_count,
        state=value.state,
        expires_at=value.expires_at,
        created_at=value.created_at,
        updated_at=value.updated_at,
    )


def enrollment(value: Enrollment) -> answered.EnrollmentOut:
    qualities = [quality(each) for each in value.quality]
    return answered.EnrollmentOut(
        person=person(value.person),
        faces=[
            answered.EnrolledFace(id=face_id, quality=qualities[number] if number < len(qualities) else None)
            for number, face_id in enumerate(value.face_ids)
        ],
        likely_duplicates=[candidate(each) for each in value.likely_duplicates],
    )


def merged(value: Merge) -> answered.MergeOut:
    return answered.MergeOut(
        person=person(value.person),
        faces_moved=value.faces_moved,
        faces_dropped=value.faces_dropped,
        external_id_dropped=value.external_id_dropped,
    )


def stored_face(value: StoredFace) -> answered.FaceOut:
    return answered.FaceOut(
        id=value.id,
        box=box(value.box) if value.box else None,
        confidence=value.confidence,
        quality=value.quality,
        has_image=value.has_image,
        created_at=value.created_at,
    )


def detected(value: Face) -> answered.DetectedFace:
    return answered.DetectedFace(
        box=box(value.box),
        landmarks=[[round(float(x), 1), round(float(y), 1)] for x, y in value.landmarks],
        confidence=round(value.confidence, 4),
        quality=quality(value.quality),
    )


def similarity(value: float) -> float:
    return min(1.0, max(0.0, value))


def candidate(value: Candidate) -> answered.CandidateOut:
    near = similarity(value.similarity)
    return answered.CandidateOut(
        person_id=value.person_id,
        face_id=value.face_id,
        name=value.name,
        region=value.region,
        external_id=value.external_id,
        similarity=near,
        match_score=100.0 * near,
    )


def threshold(value: Threshold) -> answered.ThresholdOut:
    return answered.ThresholdOut(value=value.value, source=value.source)


def recognized(value: FaceMatch) -> answered.RecognizedFace:
    about = (value.match, value.rival)  # what the decision rests on: to be seen with any top_k
    named = value.candidates + tuple(each for each in about if each is not None and each not in value.candidates)
    return answered.RecognizedFace(
        box=box(value.face.box),
        confidence=round(value.face.confidence, 4),
        quality=quality(value.face.quality),
        decision=value.decision,
        reason=value.reason,
        threshold=threshold(value.threshold),
        match=candidate(value.match) if value.match is not None and value.decision == "match" else None,
        candidates=[candidate(each) for each in named],
    )


def region(value: RegionSummary) -> answered.RegionOut:
    return answered.RegionOut(
        name=value.name,
        persons=value.persons,
        faces=value.faces,
        threshold=value.threshold,
        retention_days=value.retention_days,
        created_at=value.created_at,
    )


def region_changed(value: RegionChange) -> answered.RegionChanged:
    return answered.RegionChanged(**dict(region(value)), existing=_effect(value.existing))


def client(value: Client) -> answered.ClientOut:
    return answered.ClientOut(
        client_id=value.client_id,
        name=value.name,
        threshold=value.threshold,
        retention_days=value.retention_days,
        created_at=value.created_at,
        updated_at=value.updated_at,
    )


def client_changed(value: ClientChange) -> answered.ClientChanged:
    return answered.ClientChanged(**dict(client(value)), existing=_effect(value.existing))


def _effect(value: RetentionEffect | None) -> answered.RetentionEffect | None:
    return None if value is None else answered.RetentionEffect(people=value.people, expired=value.expired)


def key(value: ApiKey) -> answered.KeyOut:
    return answered.KeyOut(
        id=value.id,
        client_id=value.client_id,
        prefix=value.prefix,
        name=value.name,
        role=value.role,
        regions=None if value.regions is None else list(value.regions),
        rate_limit=value.rate_limit,
        created_at=value.created_at,
        expires_at=value.expires_at,
        revoked_at=value.revoked_at,
        last_used_at=value.last_used_at,
    )


def job(value: Job) -> answered.JobOut:
    return answered.JobOut(**{name: getattr(value, name) for name in answered.JobOut.model_fields})


def refusal(value: JobRefusal) -> answered.RefusalOut:
    return answered.RefusalOut(position=value.position, item=value.item, code=value.code, reason=value.reason)


def receipt(value: Receipt) -> answered.ReceiptOut:
    return answered.ReceiptOut.model_validate(value.as_json())


def audit_entry(value: AuditEntry) -> answered.AuditEntryOut:
    return answered.AuditEntryOut(
        id=value.id,
        at=value.at,
        actor=value.actor,
        action=value.action,
        person_id=value.person_id,
        other_person_id=value.other_person_id,
        details=dict(value.details),
    )


def decision(value: StoredDecision) -> answered.DecisionOut:
    return answered.DecisionOut.model_validate(
        {
            "id": value.id,
            "at": value.at,
            "actor": value.actor,
            "kind": value.kind,
            "regions": value.regions,
            "threshold": {"value": value.threshold, "source": value.threshold_source},
            "decision": value.decision,
            "candidates": [
                {
                    "person_id": each.person_id,
                    "face_id": each.face_id,
                    "similarity": similarity(each.similarity),
                }
                for each in value.candidates
            ],
        }
    )
