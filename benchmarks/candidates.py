"""How many candidates hold the nearest face: the table of `faceward.sketches.proposals`.

    python benchmarks/candidates.py [--quick] [--json FILE]

For each size of gallery and each similarity: the number of best candidates, by score against the un-quantised probe and
by plain Hamming distance, among which the nearest face is with the probability given. For each probe, many enrolled
photos at the same similarity are drawn, so that one in ten thousand is seen without a gallery for each of them.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from faceward.evaluation.noise_model import NoiseModel, Rows
from faceward.sketches import SketchBuilder, sign_codes
from galleries import Gallery
from plots import plot_lines
from report import options, write_rows

LEVELS = (0.9995, 0.9999)
DEEPEST = 8000


def scores_of(probes: Rows, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.einsum("...i,...i->...", np.unpackbits(codes, axis=-1).astype(np.float32) * 2 - 1, probes)


def distances_of(probes: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.bitwise_count(probes ^ codes).sum(axis=-1, dtype=np.int64)


class Rivals:
    """What a gallery of enrolled strangers puts before the enrolled photo, for each probe."""

    def __init__(self, gallery: Gallery, probes: Rows) -> None:
        builder = SketchBuilder(gallery.model.dimension, gallery.faces)
        hamming = faiss.IndexBinaryFlat(gallery.model.dimension)
        self.similarity = np.full(len(probes), -1, dtype=np.float32)
        nearest = np.zeros((len(probes), gallery.model.dimension // 8), dtype=np.uint8)
        for block in gallery.enrolled():
            codes = sign_codes(block)
            builder.add(codes, np.arange(len(builder), len(builder) + len(block), dtype=np.int64))
            hamming.add(codes)
            cosines = probes @ block.T
            best = cosines.argmax(axis=1)
            nearer = cosines[np.arange(len(probes)), best] > self.similarity
            self.similarity[nearer] = cosines[nearer, best[nearer]]
            nearest[nearer] = codes[best[nearer]]
        depth = min(gallery.faces, DEEPEST)
        sketch = builder.build()
        self.scores = [sketch.search(probe, depth).scores for probe in probes]
        codes = sign_codes(probes)
        self.distances = hamming.search(codes, depth)[0]
        # The rival is one of those that were counted: half a step of rounding must not put it behind itself.
        scores, distances = scores_of(probes, nearest) + 0.03, distances_of(codes, nearest) - 1
        self.rank_by_score = np.array([self.by_score(row, scores[row]) for row in range(len(probes))])
        self.rank_by_distance = np.array([self.by_distance(row, distances[row]) + 1 for row in range(len(probes))])

    def by_score(self, row: int, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.searchsorted(-self.scores[row], -scores, side="right") + 1

    def by_distance(self, row: int, distances: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ties count against the face that is looked for."""
        return np.searchsorted(self.distances[row], distances, side="right") + 1


def ranks(
    model: NoiseModel, probes: Rows, similarity: float, draws: int, rivals: Rivals
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rank of the nearest face by score and by Hamming distance, for each probe and draw."""
    rng = np.random.default_rng(round(similarity * 1000))
    by_score, by_distance = [], []
    for row, probe in enumerate(probes):
        enrolled = sign_codes(model.near(np.broadcast_to(probe, (draws, len(probe))), similarity, rng))
        if rivals.similarity[row] > similarity:
            by_score.append(np.full(draws, rivals.rank_by_score[row]))
            by_distance.append(np.full(draws, rivals.rank_by_distance[row]))
        else:
            by_score.append(rivals.by_score(row, scores_of(probe, enrolled)))
            by_distance.append(rivals.by_distance(row, distances_of(sign_codes(probe), enrolled)))
    return np.concatenate(by_score), np.concatenate(by_distance)


def main() -> None:
    parser = options((__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="1000,3000,10000,30000,100000,300000,1000000")
    parser.add_argument("--similarities", default="0.40,0.45,0.50,0.58,0.70")
    parser.add_argument("--probes", type=int, default=4000)
    parser.add_argument("--draws", type=int, default=250, help="enrolled photos drawn for each probe")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.probes, arguments.draws = "1000,10000", 300, 100

    rows = []
    print(f"{'faces':>9} {'similarity':>10} {'level':>7} {'by score':>9} {'by Hamming':>10}   (more than {DEEPEST}: -)")
    for faces in (int(size) for size in arguments.sizes.split(",")):
        gallery = Gallery(faces)
        model = gallery.model
        probes = model.photos(model.persons(arguments.probes, np.random.default_rng(91)), np.random.default_rng(92))
        rivals = Rivals(gallery, probes)
        for similarity in (float(value) for value in arguments.similarities.split(",")):
            by_score, by_distance = ranks(model, probes, similarity, arguments.draws, rivals)
            for level in LEVELS:
                found = [int(np.quantile(rank, level, method="inverted_cdf")) for rank in (by_score, by_distance)]
                needed = [rank if rank <= DEEPEST else None for rank in found]
                rows.append(
                    {
                        "size": faces,
                        "similarity": similarity,
                        "level": level,
                        "by_score": needed[0],
                        "by_hamming": needed[1],
                        "probes": len(by_score),
                    }
                )
                shown = [str(rank) if rank else "-" for rank in needed]
                print(f"{faces:>9} {similarity:>10.2f} {level:>7} {shown[0]:>9} {shown[1]:>10}", flush=True)
    write_rows(arguments.json, rows)
    lines = {
        f"{kind}, nearest at {similarity:.2f}": [
            (row["size"], row[column])
            for row in rows
            if row["similarity"] == similarity and row["level"] == max(LEVELS) and row[column]
        ]
        for kind, column in (("score", "by_score"), ("Hamming", "by_hamming"))
        for similarity in (0.40, 0.58)
    }
    plot_lines(
        arguments.plot,
        "Candidates that miss the nearest face once in ten thousand times",
        {label: points for label, points in lines.items() if points},
        "faces",
        "candidates",
    )


if __name__ == "__main__":
    main()
