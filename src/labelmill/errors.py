"""Every error that labelmill raises for its users.

LabelmillError
├── LineFileError          a line file that does not say what it must
│   └── UnknownMakerError  a `kind` that no registry knows
├── SourceError            footage that cannot be read at all
├── TemplateError          a template folder that cannot be matched against
├── WeightsError           model weights that are absent, wrong or unsafe
├── MissingDependencyError an optional part that is not installed
├── WorkspaceError         a workspace that cannot be read or written
│   ├── WorkspaceLockedError
│   ├── DamagedShardError  a stored result that cannot be read any more
│   └── WorkspaceFullError
├── VersionError           a dataset version that is absent, broken or refused
├── ReviewError            a review server or its project
├── TrainingError          a training run or a model folder
└── ServiceError           a server on this machine that does not start or answer
"""

from __future__ import annotations


class LabelmillError(Exception):
    """An error of the user's making: one line that says what, got, expected and what to do.

    Attributes:
        exit_code: Exit status of the command line.
    """

    exit_code = 2

    def __init__(self, what: str, *, got: object = None, expected: str = "", do: str = "") -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.do = do
        super().__init__(self.line)

    @property
    def line(self) -> str:
        """The whole message as one line."""
        parts = [self.what]
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.expected:
            parts.append(f"expected {self.expected}")
        message = ", ".join(parts)
        if self.do:
            message = f"{message}; {self.do}"
        return " ".join(message.split())

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes (Dask and Ray workers) with every part kept."""
        return _rebuild, (type(self), self.what, self.got, self.expected, self.do)


def _rebuild(kind: type[LabelmillError], what: str, got: object, expected: str, do: str) -> LabelmillError:
    return kind(what, got=got, expected=expected, do=do)


class LineFileError(LabelmillError):
    """A line file that is absent, not YAML, or says something unknown or wrong."""


class UnknownMakerError(LineFileError):
    """A `kind` that no registry knows; the message lists the known ones."""


class SourceError(LabelmillError):
    """Footage that cannot be opened or holds no frame."""


class TemplateError(LabelmillError):
    """A template folder that is absent, empty, or has a class without images."""


class WeightsError(LabelmillError):
    """Weights that are absent, do not fit the model, or come as a pickle."""


class MissingDependencyError(LabelmillError):
    """An optional dependency that the chosen part needs."""


class WorkspaceError(LabelmillError):
    """A workspace that cannot be read or written."""


class WorkspaceLockedError(WorkspaceError):
    """Another run holds the workspace."""


class DamagedShardError(WorkspaceError):
    """A stored result that cannot be read any more; it was removed, so that a run computes it anew."""


class WorkspaceFullError(WorkspaceError):
    """No space is left on the workspace's disk."""


class VersionError(LabelmillError):
    """A dataset version that is absent, broken, or refused by a gate."""


class ReviewError(LabelmillError):
    """A review server, project or decision that cannot be used."""


class TrainingError(LabelmillError):
    """A training run or model folder that cannot be used."""


class ServiceError(LabelmillError):
    """A server on this machine that does not start or does not answer."""
