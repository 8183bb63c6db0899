"""`python -m benchmarks.template_space`: how a line's own templates judge the space they are compared in.

Each template of the bottle line in turn plays the crop, and the others, all of frames before 620, stay
templates: is its class nearest, are hands more similar than NG examples, and is that so by a λ chosen without
it? Nothing of the labelled frames is looked at. `matching.space` and `neighbours` were left at their defaults
after this and the first table of `tools_quality`.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from benchmarks.line_quality import LINES
from benchmarks.reports import table, write
from benchmarks.runs import ROOT
from benchmarks.tools_quality import auroc
from labelmill.annotators.config import MatchingConfig
from labelmill.annotators.embedding_space import Kind
from labelmill.annotators.matching import match
from labelmill.annotators.templates import find_templates, make_bank, read_templates, suggest_lambda
from labelmill.annotators.types import Embeddings
from labelmill.line import load_line
from labelmill.makers import ENCODERS

HEAD = ("encoder", "space", "neighbours", "right class", "AUROC hand / NG", "hands under λ", "NG over λ")


def main() -> None:
    figures = []
    for file in LINES.values():
        line = load_line(ROOT / "examples" / file)
        files = find_templates(line.templates)
        embeddings = ENCODERS.make(line.encoder).encode(read_templates(files))
        owners = np.array(files.owners, np.int64)
        for space in get_args(Kind):
            for neighbours in (1, 3):
                config = MatchingConfig(space=space, neighbours=neighbours)
                found = leave_one_out(embeddings, owners, files.classes, config)
                figures.append(
                    {"encoder": line.encoder.kind, "space": space, "neighbours": neighbours, **found}
                )
    rows = [
        (row["encoder"], row["space"], row["neighbours"], f"{row['right']} of {row['hands']}",
         f"{row['auroc']:.2f}", row["hands_under"], f"{row['ng_over']} of {row['ng']}")
        for row in figures
    ]  # fmt: skip
    said = (__doc__ or "").partition("\n\n")[2].strip()
    write(
        "template_space", "Which space templates ask for", f"{said}\n\n{table(HEAD, rows)}", {"rows": figures}
    )


def leave_one_out(
    embeddings: Embeddings, owners: np.ndarray[Any, Any], classes: tuple[str, ...], config: MatchingConfig
) -> dict[str, Any]:
    """Match each template against the others."""
    right, similarity, over = [], [], []
    for number, owner in enumerate(owners):
        others = np.arange(len(owners)) != number
        bank = make_bank(classes, embeddings[others], owners[others], config)
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
