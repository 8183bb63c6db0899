"""`python -m benchmarks.template_space`: how a line's own templates judge the space they are compared in.

Each template of the bottle line in turn plays the crop, and the others, all of frames before 620, stay
templates: is its class nearest, are hands more similar than NG examples, and is that so by a λ chosen without
it? Nothing of the labelled frames is looked at. `matching.space` and `neighbours` were left at their defaults
after this and the first table of `tools_quality`, and so were `templates: turned` and `encoder: turned`:
these hands come from one side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from benchmarks.line_quality import LINES
from benchmarks.reports import table, write
from benchmarks.runs import ROOT
from benchmarks.tools_quality import auroc
from labelmill.annotators.config import MatchingConfig
from labelmill.annotators.embedding_space import Kind
from labelmill.annotators.matching import match
from labelmill.annotators.similarity import unit_rows
from labelmill.annotators.templates import find_templates, make_bank, read_templates, suggest_lambda
from labelmill.annotators.types import Embeddings
from labelmill.line import Line, load_line
from labelmill.makers import ENCODERS

HEAD = (
    "encoder",
    "space",
    "neighbours",
    "turned",
    "right class",
    "AUROC hand / NG",
    "hands under λ",
    "NG over λ",
)


def main() -> None:
    figures = []
    for file in LINES.values():
        line = load_line(ROOT / "examples" / file)
        files = find_templates(line.templates)
        images = read_templates(files)
        encoder = ENCODERS.make(line.encoder)
        turns = [encoder.encode([np.rot90(image, turn) for image in images]) for turn in range(4)]
        embeddings = turns[0]
        owners = np.array(files.owners, np.int64)
        for space in get_args(Kind):
            for neighbours in (1, 3):
                config = MatchingConfig(space=space, neighbours=neighbours)
                found = leave_one_out(embeddings, owners, files.classes, config)
                figures.append(row_of(line, config, "", found))
        config = MatchingConfig()
        figures.append(
            row_of(
                line, config, "templates", leave_one_out(embeddings, owners, files.classes, config, turns[1:])
            )
        )
        if "turned" in type(line.encoder).model_fields:
            mean = np.mean([unit_rows(turn) for turn in turns], axis=0)
            figures.append(row_of(line, config, "crops", leave_one_out(mean, owners, files.classes, config)))
    rows = [
        (row["encoder"], row["space"], row["neighbours"], row["turned"], f"{row['right']} of {row['hands']}",
         f"{row['auroc']:.2f}", row["hands_under"], f"{row['ng_over']} of {row['ng']}")
        for row in figures
    ]  # fmt: skip
    said = (__doc__ or "").partition("\n\n")[2].strip()
    write(
        "template_space", "Which space templates ask for", f"{said}\n\n{table(HEAD, rows)}", {"rows": figures}
    )


def row_of(line: Line, config: MatchingConfig, turned: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "encoder": line.encoder.kind,
        "space": config.space,
        "neighbours": config.neighbours,
        "turned": turned,
        **found,
    }


def leave_one_out(
    embeddings: Embeddings,
    owners: np.ndarray[Any, Any],
    classes: tuple[str, ...],
    config: MatchingConfig,
    turned: Sequence[Embeddings] = (),
) -> dict[str, Any]:
    """Match each template against the others."""
    right, similarity, over = [], [], []
    for number, owner in enumerate(owners):
        others = np.arange(len(owners)) != number
        views = [view[others] for view in turned]
        bank = make_bank(classes, embeddings[others], owners[others], config, views)
        found = match(embeddings[number : number + 1], bank)
        right.append(bool(found.nearest[0] == owner))
        similarity.append(found.similarity[0])
        over.append(bool(found.similarity[0] >= suggest_lambda(bank)))
    hands = owners >= 0
    return {
        "hands": int(hands.sum()),
        "ng": int((~hands).sum()),
        "right": int(np.array(right)[hands].sum()),
        "auroc": auroc(np.array(similarity, np.float32), hands),
        "hands_under": int((~np.array(over)[hands]).sum()),
        "ng_over": int(np.array(over)[~hands].sum()),
    }


if __name__ == "__main__":
    main()
