"""What an annotation run has to do: its shards, their keys, and which of them exist already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labelmill.annotators import matching
from labelmill.annotators.templates import TemplateFiles, check_space, find_templates
from labelmill.config import MakerConfig
from labelmill.datasets import selection
from labelmill.datasets.catalogue import Catalogue
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.shards import SCHEMA_VERSION, ShardStore, make_key
from labelmill.datasets.sources.footage import FrameRef, Slice, Unreadable, open_footage
from labelmill.errors import TemplateError, WeightsError
from labelmill.makers import ENCODERS, PROPOSERS, Registry

STAGES = ("select", "propose", "encode", "match")


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """A run of consecutive sampled frames of one source: the unit of work, caching and distribution.

    Attributes:
        number: Position in the run, from 0.
        slice: The shard's frames, with those before and after it that a proposer warms up on or looks
            ahead to.
        first: Where in the slice the shard's own frames begin.
        stop: Where they end.
        keys: Stage name to shard key.
    """

    number: int
    slice: Slice
    first: int
    stop: int
    keys: dict[str, str]

    @property
    def refs(self) -> tuple[FrameRef, ...]:
        """The shard's own frames."""
        return self.slice.refs[self.first : self.stop]

    def __len__(self) -> int:
        """How many frames are the shard's own."""
        return self.stop - self.first

    def missing(self, store: ShardStore) -> list[str]:
        """The stages that have still to be computed."""
        return [stage for stage in STAGES if not store.has(stage, self.keys[stage])]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything that one run of a line has to do.

    Attributes:
        shards: In the order of the sources.
        problems: Sources that cannot be read.
        templates: The template images.
        bank_key: Key of the embedded templates.
        digest: Digest of every key: two plans with the same one give the same tables.
        identities: What made each stage's results, for lineage: settings and weights' digests.
    """

    shards: tuple[Shard, ...]
    problems: tuple[Unreadable, ...]
    templates: TemplateFiles
    bank_key: str
    digest: str
    identities: dict[str, object]


def make_plan(config: AnnotationConfig, catalogue: Catalogue) -> Plan:
    """Cut a line's footage into shards and name every result.

    Raises:
        SourceError: A source does not exist, or none can be read.
        TemplateError: The templates cannot be used.
        WeightsError: A file of weights does not exist.
    """
    templates = find_templates(config.templates)
    check_space(templates, config.matching)
    footage, problems = open_footage(config.sources, catalogue, config.base)
    proposer = _identity(PROPOSERS, config.proposer, catalogue)
    encoder = _identity(ENCODERS, config.encoder, catalogue)
    bank_key = make_key(
        "templates",
        schema=SCHEMA_VERSION,
        classes=templates.classes,
        owners=templates.owners,
        images=[_template_digest(path, catalogue) for path in templates.paths],
        turned=config.templates is not None and config.templates.turned,
        encoder=encoder,
    )
    before, after = config.proposer.reach()
    shards: list[Shard] = []
    names: list[list[str]] = []
    for source in footage:
        sampled = selection.sample(source, config.selection).tolist()
        size = config.selection.shard_frames
        for start in range(0, len(sampled), size):
            stop = min(start + size, len(sampled))
            begin = max(0, start - before)
            part = source.slice(sampled[begin : stop + after])
            first, last = start - begin, stop - begin
            refs = part.refs
            keys = _keys(config, refs, first, last, proposer, encoder, bank_key)
            shards.append(Shard(len(shards), part, first, last, keys))
            names.append(list(dict.fromkeys(ref.source for ref in refs[first:last])))
    digest = make_key(
        "plan",
        keys=[shard.keys for shard in shards],
        sources=names,
        problems=[[p.source, p.frame_index, p.reason] for p in problems],
    )
    identities: dict[str, object] = {
        "proposer": proposer,
        "encoder": encoder,
        "selection": config.selection.key_fields(),
        "crop": config.crop.key_fields(),
        "matching": config.matching.key_fields(),
    }
    return Plan(tuple(shards), tuple(problems), templates, bank_key, digest, identities)


def _keys(
    config: AnnotationConfig,
    refs: Sequence[FrameRef],
    first: int,
    stop: int,
    proposer: dict[str, object],
    encoder: dict[str, object],
    bank_key: str,
) -> dict[str, str]:
    repeats = config.selection.repeats
    select = make_key(
        "select",
        schema=SCHEMA_VERSION,
        version=selection.VERSION,
        frames=_names(refs[first:stop]),
        repeats=repeats.key_fields() if repeats else None,
    )
    propose = make_key(
        "propose",
        select=select,
        before=_names(refs[:first]),
        after=_names(refs[stop:]),
        proposer=proposer,
    )
    encode = make_key("encode", propose=propose, crop=config.crop.key_fields(), encoder=encoder)
    match = make_key(
        "match",
        encode=encode,
        bank=bank_key,
        matching=config.matching.key_fields(),
        version=matching.VERSION,
    )
    return {"select": select, "propose": propose, "encode": encode, "match": match}


def _names(refs: Sequence[FrameRef]) -> list[object]:
    if len({ref.source_digest for ref in refs}) == 1:  # a video: name its digest once
        return [refs[0].source_digest, [ref.index for ref in refs]]
    return [[ref.source_digest, ref.index] for ref in refs]


def _identity(registry: Registry, config: MakerConfig, catalogue: Catalogue) -> dict[str, object]:
    maker = registry.load(config.kind)
    settings = config.key_fields()  # first: it needs no weights, which may have to be fetched
    digests = []
    for path in config.files():
        try:
            digests.append(catalogue.digest(path))
        except OSError as error:
            raise WeightsError(
                f"no file {path}",
                expected=f"what the {registry.part} {config.kind!r} needs",
                do=f"mend the `{registry.part}` section",
            ) from error
    return {"version": maker.version, **settings, "files": digests}


def _template_digest(path: Path, catalogue: Catalogue) -> str:
    try:
        return catalogue.digest(path)
    except OSError as error:
        raise TemplateError(f"template {path} cannot be read", got=error.strerror, do="replace it") from error
