"""One HTML file about a run, for a person: what was found, how sure that is, and what to do next."""

from labelmill.datasets.report.write import Group, Step, write_report

__all__ = ["Group", "Step", "write_report"]
